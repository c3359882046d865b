//! The course of a rollout, event by event.

mod any_order;

use std::time::Duration;

use super::*;
use crate::rollout::{
    breaker::BreakerRule,
    gate::{CostOf, Criterion, Outlook, Source, Unit},
    process::{Margin, Side},
};

const HOUR: Duration = Duration::from_hours(1);

fn share(percent: u16) -> BasisPoints {
    BasisPoints::new(percent * 100).unwrap()
}

fn step(percent: u16, hours: u64, min_jobs: u64) -> Step {
    Step {
        percent: share(percent),
        min_duration: HOUR * u32::try_from(hours).unwrap(),
        min_jobs,
        min_pairs: if percent == 0 { 300 } else { 0 },
        require: if percent == 1 { Require::NotFail } else { Require::Pass },
        approval: percent == 50,
    }
}

fn failure(points: f64) -> GateSpec {
    let criterion = Criterion::Failure { margin: Margin::Points(points), of: Source::Arms };
    GateSpec { criterion, on_fail: OnFail::Rollback }
}

fn cost() -> GateSpec {
    GateSpec { criterion: Criterion::Cost { of: CostOf::Pairs, max_ratio: 1.1 }, on_fail: OnFail::Hold }
}

fn plan() -> Plan {
    Plan {
        identity: Identity {
            baseline: "openai/gpt".to_owned(),
            candidate: "bedrock/haiku".to_owned(),
            key: "job.id".to_owned(),
            salt: "triage/to-bedrock".to_owned(),
        },
        steps: vec![step(0, 2, 0), step(1, 1, 100), step(10, 6, 500), step(50, 24, 1_500), step(100, 1, 0)],
        alpha: 0.05,
        gates: vec![failure(0.01), cost()],
        outcome_within: Duration::from_mins(10),
        undecided: Some(Patience { after: 72 * HOUR, act: OnUndecided::Hold }),
        no_data: Some(Patience { after: 30 * HOUR, act: OnNoData::Hold }),
        breaker: Some(BreakerRule { last: 20, failures: 15 }),
        windows: None,
    }
}

/// Midnight before a Monday.
fn start() -> Timestamp {
    "2026-11-23T00:00:00Z".parse().unwrap()
}

/// A rollout with its clock and its evidence, for telling stories.
struct Story {
    controller: Controller,
    now: Timestamp,
    readings: Readings,
    told: Vec<String>,
}

impl Story {
    fn new(plan: Plan) -> Self {
        let controller = Controller::new(plan, 0, start()).unwrap();
        let readings = Readings { revision: 1, ..Readings::default() };
        Self { controller, now: start(), readings, told: Vec::new() }
    }

    fn event(&mut self, event: Event<'_>) -> Result<Option<Transition>, Refusal> {
        let turn = self.controller.on(event, self.now)?;
        let steps = u64::from(turn.transition.is_some());
        assert_eq!(turn.controller.generation(), self.controller.generation() + steps);
        // What is stored is what was decided.
        let stored = serde_json::to_string(&turn.controller).unwrap();
        assert_eq!(serde_json::from_str::<Controller>(&stored).unwrap(), turn.controller);
        self.controller = turn.controller;
        if let Some(transition) = &turn.transition {
            assert!(!transition.reason.is_empty());
            assert_eq!(transition.to, self.controller.state());
            assert_eq!(transition.percent_after, self.controller.percent());
            self.told.push(format!("{}: {}", transition.change, transition.reason));
        }
        Ok(turn.transition)
    }

    fn tick(&mut self) -> Option<Transition> {
        let readings = self.readings.clone();
        self.event(Event::Tick(&readings)).unwrap()
    }

    fn hours(&mut self, hours: u64) -> &mut Self {
        self.now = self.now + HOUR * u32::try_from(hours).unwrap();
        self
    }

    fn says(&mut self, gate: &str, verdict: Verdict) -> &mut Self {
        self.readings.verdicts.insert(gate.to_owned(), verdict);
        self
    }

    /// To the step at `percent`, by fulfilling everything on the way.
    fn at(percent: u16, plan: Plan) -> Self {
        let mut story = Self::new(plan);
        story.says("failure", Verdict::Pass).says("cost", Verdict::Pass);
        for _ in 0..20 {
            story.tick();
            if story.controller.step_index().is_some() && story.controller.percent() == share(percent) {
                return story;
            }
            story.readings.jobs += 1_500;
            story.readings.pairs += 300;
            story.hours(24);
            let _ = story.event(Event::Approve);
        }
        panic!("{percent} % was never reached: {:?}", story.told);
    }

    fn state(&self) -> (State, BasisPoints) {
        (self.controller.state(), self.controller.percent())
    }

    fn waits(&self) -> Vec<String> {
        self.controller.waits(&self.readings, self.now).iter().map(Wait::to_string).collect()
    }
}

#[test]
fn a_good_candidate_reaches_the_end_untouched() {
    let mut story = Story::new(plan());
    assert_eq!(story.state(), (State::Running, share(0)));
    story.tick();
    assert_eq!(story.controller.step_index(), Some(0));
    assert_eq!(story.waits(), ["2h more in this step", "300 more pairs", "gate `cost` (undecided: no jobs yet)"]);
    story.readings.pairs = 300;
    story.says("cost", Verdict::Pass).hours(2).tick();
    assert_eq!(story.state(), (State::Running, share(1)));
    assert_eq!(story.waits(), ["1h more in this step", "100 more jobs of the candidate"], "not_fail needs no verdict");
    story.readings.jobs = 100;
    story.hours(1).tick();
    assert_eq!(story.state(), (State::Running, share(10)));
    let undecided = Verdict::Undecided(Outlook::About { unit: Unit::Jobs, more: 620, leaning: Side::Pass });
    story.readings.jobs = 700;
    story.says("failure", undecided).hours(6);
    assert_eq!(story.tick(), None);
    assert_eq!(story.waits(), ["gate `failure` (undecided: about 620 more jobs if it goes on like this, then pass)"]);
    story.says("failure", Verdict::Pass).tick();
    assert_eq!(story.state(), (State::Running, share(50)));
    story.readings.jobs = 10_000;
    story.hours(24).tick();
    assert_eq!(story.waits(), ["an approval"]);
    story.event(Event::Approve).unwrap();
    story.tick();
    assert_eq!(story.state(), (State::Running, share(100)));
    story.readings.jobs = 20_000;
    story.hours(1).tick();
    assert_eq!(story.state(), (State::Done, share(100)));
    assert_eq!(story.told.len(), 7, "{:?}", story.told);
    assert_eq!(story.told[2], "advanced: to 10 % (step 3 of 5): all that the step before asks for is met");
}

#[test]
fn a_failed_gate_rolls_back_or_holds_wherever_it_stands() {
    for prepare in [None, Some(Event::Pause), Some(Event::SwitchOn)] {
        let mut story = Story::at(10, plan());
        prepare.map(|event| story.event(event).unwrap());
        story.says("failure", Verdict::Fail);
        let transition = story.tick().unwrap();
        assert_eq!(story.state(), (State::RolledBack, share(0)));
        assert_eq!(transition.reason, "gate `failure` failed: the candidate is worse than its margin allows");
        assert_eq!(transition.percent_before, share(10));
        assert_eq!(story.tick(), None);
    }
    let mut story = Story::at(10, plan());
    story.says("cost", Verdict::Fail).tick();
    assert_eq!(story.state(), (State::Held, share(10)));
    // Even held, a rollback is a rollback; and the breaker needs no verdict.
    let mut worse =
        Story { controller: story.controller.clone(), told: vec![], readings: story.readings.clone(), ..story };
    let tripped = worse.event(Event::BreakerTripped(15)).unwrap().unwrap();
    assert_eq!(tripped.reason, "the breaker tripped: 15 of the candidate's last 20 jobs failed");
    assert_eq!(worse.state(), (State::RolledBack, share(0)));
    // An operator may live with a gate that only holds.
    let readings = story.readings.clone();
    let resumed = story.controller.on(Event::Resume(&readings), story.now).unwrap();
    assert_eq!(resumed.transition.unwrap().reason, "an operator resumed it and waived cost");
    assert_eq!(resumed.controller.on(Event::Tick(&readings), story.now).unwrap().transition, None);
}

#[test]
fn a_pause_stops_the_clocks() {
    let mut story = Story::at(1, plan());
    story.readings.jobs += 100;
    story.event(Event::Pause).unwrap();
    story.hours(100);
    assert_eq!(story.tick(), None);
    assert_eq!(story.state(), (State::Paused, share(1)));
    let readings = story.readings.clone();
    assert!(story.event(Event::Promote(&readings)).unwrap_err().to_string().contains("resume it first"));
    story.event(Event::Resume(&readings)).unwrap();
    assert_eq!(story.tick(), None, "the hour is still to come");
    assert_eq!(story.waits(), ["1h more in this step"]);
    story.hours(1).tick();
    assert_eq!(story.state(), (State::Running, share(10)));
}

#[test]
fn windows_stop_advances_and_never_rollbacks() {
    let windows = Written { tz: "UTC".to_owned(), advance: vec!["Mon 09:00-16:00".to_owned()] }.try_into().unwrap();
    let mut story = Story::new(Plan { windows: Some(windows), ..plan() });
    assert_eq!(story.tick(), None);
    assert_eq!(
        story.controller.describe(&story.readings, story.now),
        "at 0 %, before step 1 of 5, waits for the window that opens at 2026-11-23T09:00:00.000Z"
    );
    story.hours(9).tick();
    assert_eq!(story.controller.step_index(), Some(0));
    story.hours(8);
    story.says("failure", Verdict::Fail).tick();
    assert_eq!(story.controller.state(), State::RolledBack);
}

#[test]
fn abort_beats_promote_in_either_order() {
    for abort_first in [true, false] {
        let mut story = Story::at(10, plan());
        let readings = story.readings.clone();
        if abort_first {
            story.event(Event::Abort).unwrap();
            let refusal = story.event(Event::Promote(&readings)).unwrap_err();
            assert_eq!(
                refusal.to_string(),
                "the rollout cannot be promoted: it is aborted (an operator aborted it: everybody goes to the baseline); retry \
                 lets it begin again"
            );
        } else {
            story.event(Event::Promote(&readings)).unwrap();
            story.event(Event::Abort).unwrap();
        }
        assert_eq!(story.state(), (State::Aborted, share(0)));
    }
}

#[test]
fn a_promotion_needs_the_approval_of_its_step() {
    let mut story = Story::at(10, plan());
    let readings = story.readings.clone();
    assert!(story.event(Event::Approve).unwrap_err().to_string().contains("asks for no approval"));
    let transition = story.event(Event::Promote(&readings)).unwrap().unwrap();
    assert_eq!((transition.change, story.state()), (Change::Promoted, (State::Running, share(50))));
    assert!(story.event(Event::Promote(&readings)).unwrap_err().to_string().contains("approve it first"));
    story.event(Event::Approve).unwrap();
    story.event(Event::Promote(&readings)).unwrap();
    story.event(Event::Promote(&readings)).unwrap();
    assert_eq!(story.state(), (State::Done, share(100)));
    assert!(story.event(Event::Promote(&readings)).is_err());
}

#[test]
fn after_a_kill_switch_the_step_begins_anew() {
    let mut story = Story::at(10, plan());
    story.readings.jobs += 500;
    story.hours(5);
    story.event(Event::SwitchOn).unwrap();
    assert_eq!(story.state(), (State::Held, share(10)));
    let readings = story.readings.clone();
    assert!(story.event(Event::Promote(&readings)).is_err());
    assert!(story.event(Event::Resume(&readings)).is_err());
    assert_eq!(story.hours(50).tick(), None);
    story.event(Event::SwitchOff).unwrap();
    assert_eq!(story.state(), (State::Running, share(10)));
    assert_eq!(story.waits(), ["6h more in this step"]);
    assert_eq!(story.event(Event::SwitchOff).unwrap(), None);
    story.hours(6).tick();
    assert_eq!(story.state(), (State::Running, share(50)));

    // Paused before, paused after.
    story.event(Event::Pause).unwrap();
    story.event(Event::SwitchOn).unwrap();
    story.event(Event::SwitchOff).unwrap();
    assert_eq!(story.controller.state(), State::Paused);
}

#[test]
fn patience_ends() {
    for (act, expected) in [
        (OnUndecided::Hold, (State::Held, share(10))),
        (OnUndecided::Rollback, (State::RolledBack, share(0))),
        (OnUndecided::Advance, (State::Running, share(50))),
    ] {
        let undecided = Some(Patience { after: 72 * HOUR, act });
        let mut story = Story::at(10, Plan { undecided, no_data: None, ..plan() });
        story.readings.verdicts.remove("failure");
        story.readings.jobs += 500;
        assert_eq!(story.hours(71).tick(), None);
        let reason = story.hours(1).tick().unwrap().reason;
        assert!(reason.contains("after 3d it still lacks gate `failure` (undecided"), "{reason}");
        assert_eq!(story.state(), expected);
    }
    let mut story = Story::at(10, plan());
    story.readings.verdicts.clear();
    for _ in 0..4 {
        story.readings.jobs += 1;
        assert_eq!(story.hours(10).tick(), None, "something comes in");
    }
    assert_eq!(story.hours(29).tick(), None);
    assert_eq!(story.hours(1).tick().unwrap().reason, "no evidence came in for 1d6h");
    assert_eq!(story.state(), (State::Held, share(10)));
    // Resumed, it is patient again; the time in the step counts on.
    let readings = story.readings.clone();
    story.event(Event::Resume(&readings)).unwrap();
    assert_eq!(story.hours(29).tick(), None);
}

#[test]
fn a_split_that_is_off_stops_advances() {
    let mut story = Story::at(10, plan());
    story.readings.jobs += 500;
    story.readings.split_is_off = true;
    assert_eq!(story.hours(6).tick(), None);
    assert!(story.waits()[0].starts_with("a split that is what it should be"));
}

#[test]
fn steps_that_change_leave_the_percentage() {
    for (steps, place, percent_next) in [
        (vec![step(5, 1, 0), step(20, 1, 0), step(100, 1, 0)], Some(0), 20),
        (vec![step(1, 1, 0), step(10, 1, 0), step(25, 1, 0)], Some(1), 25),
        (vec![step(20, 1, 0), step(100, 1, 0)], None, 20),
    ] {
        let mut story = Story::at(10, plan());
        let plan = Plan { steps, ..plan() };
        let transition = story.event(Event::Edited(&plan, 77)).unwrap().unwrap();
        assert_eq!((transition.change, transition.percent_after), (Change::Edited, share(10)));
        assert_eq!(story.controller.step_index(), place, "{}", transition.reason);
        assert!(story.controller.counting().iter().all(|counting| counting.after == 0), "the evidence stays");
        story.readings.jobs += 500;
        story.hours(1).tick();
        assert_eq!(story.state(), (State::Running, share(percent_next)));
    }
    // A rollout that is done goes on when there is more to do.
    let mut story = Story::at(100, plan());
    story.hours(1).tick();
    assert_eq!(story.controller.state(), State::Done);
    let mut fewer = plan();
    fewer.steps.pop();
    story.event(Event::Edited(&fewer, 77)).unwrap();
    assert_eq!(story.state(), (State::Done, share(100)), "fewer steps take nothing back");
}

#[test]
fn margins_that_change_begin_their_evidence_anew() {
    let after = |plan: &Plan| -> Vec<(String, u64)> {
        let mut story = Story::at(10, self::plan());
        story.event(Event::Edited(plan, 77)).unwrap();
        story.controller.counting().iter().map(|counting| (counting.criterion.to_string(), counting.after)).collect()
    };
    let names = |failure: u64, cost: u64| vec![("failure".to_owned(), failure), ("cost".to_owned(), cost)];
    assert_eq!(after(&Plan { gates: vec![failure(0.02), cost()], ..plan() }), names(77, 0));
    assert_eq!(after(&Plan { alpha: 0.01, ..plan() }), names(77, 77));
    assert_eq!(after(&Plan { outcome_within: HOUR, ..plan() }), names(77, 77));
    let holds = GateSpec { on_fail: OnFail::Hold, ..failure(0.01) };
    assert_eq!(after(&Plan { gates: vec![holds, cost()], ..plan() }), names(0, 0), "what a gate does is no margin");
    assert_eq!(after(&Plan { gates: vec![cost()], ..plan() }), names(77, 0)[1..], "one gate fewer leaves the others");
    let agreement =
        GateSpec { criterion: Criterion::Agreement { at: "/a".to_owned(), min: 0.97 }, on_fail: OnFail::Hold };
    let more = after(&Plan { gates: vec![failure(0.01), cost(), agreement], ..plan() });
    assert!(more.iter().all(|(_, after)| *after == 77), "thresholds depend on the number of gates: {more:?}");
}

#[test]
fn keys_and_targets_that_change() {
    let mut story = Story::at(10, plan());
    for identity in [
        Identity { key: "job.metadata.customer".to_owned(), ..plan().identity },
        Identity { salt: "other".to_owned(), ..plan().identity },
    ] {
        let refusal = story.event(Event::Edited(&Plan { identity, ..plan() }, 77)).unwrap_err();
        assert!(refusal.to_string().contains("Give the rollout another name"), "{refusal}");
    }
    assert_eq!(story.state(), (State::Running, share(10)));
    let other = Plan { identity: Identity { candidate: "bedrock/nova".to_owned(), ..plan().identity }, ..plan() };
    let transition = story.event(Event::Edited(&other, 77)).unwrap().unwrap();
    assert_eq!(
        (transition.change, transition.percent_before, transition.percent_after),
        (Change::Revised, share(10), share(0))
    );
    assert_eq!((story.controller.revision(), story.controller.step_index()), (2, None));
    assert_eq!((story.controller.after(), story.controller.counting()[0].after), (77, 77));
    // Evidence of the other candidate says nothing about this one.
    story.says("failure", Verdict::Fail);
    assert_eq!(story.tick(), None);
    story.readings = Readings { revision: 2, ..Readings::default() };
    story.tick();
    assert_eq!(story.controller.step_index(), Some(0));
}

#[test]
fn only_a_retry_launches_a_rolled_back_candidate_again() {
    let mut story = Story::at(10, plan());
    story.says("failure", Verdict::Fail).tick();
    let mut other = plan();
    other.steps.pop();
    story.event(Event::Edited(&other, 77)).unwrap();
    story.event(Event::Edited(&plan(), 78)).unwrap();
    assert_eq!(story.state(), (State::RolledBack, share(0)), "reading the file again changes nothing");
    other.identity.candidate = "bedrock/nova".to_owned();
    story.event(Event::Edited(&other, 79)).unwrap();
    assert_eq!(
        (story.controller.state(), story.controller.revision()),
        (State::Running, 2),
        "another candidate is another matter"
    );
    let back = story.event(Event::Edited(&plan(), 80)).unwrap().unwrap();
    assert!(back.reason.contains("was rolled back before"), "{}", back.reason);
    assert_eq!(story.state(), (State::RolledBack, share(0)));
    story.event(Event::Retry(90)).unwrap();
    assert_eq!((story.state(), story.controller.step_index()), ((State::Running, share(0)), None));
    assert_eq!((story.controller.revision(), story.controller.after()), (4, 90));
    assert!(story.event(Event::Retry(91)).is_err());
}

#[test]
fn plans_that_cannot_be_followed_are_refused() {
    let identity = plan().identity;
    for (plan, text) in [
        (Plan { steps: vec![], ..plan() }, "0 steps: write 1 to 64"),
        (Plan { steps: vec![step(10, 1, 0), step(10, 1, 0)], ..plan() }, "step 2 is at 10 %, not above step 1 at 10 %"),
        (Plan { alpha: f64::NAN, ..plan() }, "alpha is NaN"),
        (Plan { gates: vec![cost(), cost()], ..plan() }, "gate `cost` is there twice"),
        (Plan { gates: vec![failure(0.9)], ..plan() }, "gate `failure`: max_increase must be"),
        (Plan { outcome_within: Duration::ZERO, ..plan() }, "outcome_within must be above zero"),
        (Plan { breaker: Some(BreakerRule { last: 5, failures: 6 }), identity, ..plan() }, "breaker: `last` must be"),
    ] {
        let refusal = Controller::new(plan.clone(), 0, start()).unwrap_err();
        assert!(refusal.to_string().contains(text), "{refusal}");
        let mut story = Story::at(10, self::plan());
        assert!(story.event(Event::Edited(&plan, 1)).is_err());
    }
}
