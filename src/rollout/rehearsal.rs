//! A rollout rehearsed on made-up jobs: whether its gates would notice a regression, and how often they would be wrong.
//!
//! Invariant: the very controller and casebook that move a rollout, on a clock of its own; chance comes in as an argument. Left
//! out is what has no bearing on the evidence: minimum times, windows, and approvals, which are given.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    casebook::Casebook,
    controller::{Controller, Event, Plan, State},
    evidence::{Arm, Ended, Observed},
    gate::{Criterion, GateSpec},
    split::is_candidate,
};
use crate::{
    clock::Timestamp,
    ids::JobId,
    money::{BasisPoints, Usd},
};

/// The state is looked at after so many jobs.
const LOOK_EVERY: u64 = 10;

/// What the jobs of an arm are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Law {
    /// The share that fails.
    pub failures: f64,
    /// The share that is answered with output that does not validate.
    pub invalid: f64,
    /// The median time of an answer, in seconds.
    pub seconds: f64,
    /// The median cost of an answer, in dollars.
    pub dollars: f64,
    /// How far times and costs spread: the standard deviation of their logarithms.
    pub spread: f64,
}

/// What a rehearsal came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsed {
    /// Where the rollout stood at the end; running, if the jobs ran out.
    pub state: State,
    /// The gate that failed, if one did; `breaker` if that tripped.
    pub failed: Option<String>,
    /// Jobs until then.
    pub jobs: u64,
    /// Of these, the candidate's.
    pub candidate_jobs: u64,
}

/// The plan as it can be rehearsed, and the names of its gates that cannot be: nobody scores made-up jobs, or shadows them.
pub fn rehearsable(plan: &Plan) -> (Plan, Vec<String>) {
    let can = |gate: &&GateSpec| !gate.criterion.is_paired() && !matches!(gate.criterion, Criterion::Score { .. });
    let mut rehearsed = plan.clone();
    rehearsed.gates = plan.gates.iter().filter(can).cloned().collect();
    let left_out = plan.gates.iter().filter(|gate| !can(gate)).map(GateSpec::name).collect();
    for step in &mut rehearsed.steps {
        step.min_duration = Duration::ZERO;
        step.min_pairs = 0;
        step.approval = false;
    }
    (rehearsed.windows, rehearsed.undecided, rehearsed.no_data) = (None, None, None);
    (rehearsed, left_out)
}

/// One end on its way: when, whose, how.
type Due = Reverse<(Timestamp, u64, bool, u64)>;

/// Rehearses a plan once, with at most so many jobs. `draw` gives numbers from 0 up to 1.
///
/// # Errors
/// The words of a plan that cannot be followed.
pub fn rehearse(
    plan: &Plan,
    laws: [Law; 2],
    most_jobs: u64,
    draw: &mut dyn FnMut() -> f64,
) -> Result<Rehearsed, String> {
    let mut now = Timestamp::from_micros(0);
    let mut controller = Controller::new(plan.clone(), 0, now).map_err(|refusal| refusal.to_string())?;
    let mut casebook = Casebook::new(&controller).map_err(|invalid| invalid.to_string())?;
    let (mut number, mut candidate_jobs) = (0, 0);
    let mut due: BinaryHeap<Due> = BinaryHeap::new();
    for n in 0..most_jobs {
        now = now + Duration::from_millis(100);
        while let Some(Reverse((at, job, failed, invalid_and_micros))) = due.peek().copied()
            && at <= now
        {
            due.pop();
            number += 1;
            let law = laws[usize::from(job & 1 == 1)];
            casebook.read(number, at, Some(id(job)), &end(law, failed, invalid_and_micros, draw));
        }
        let percent = controller.percent();
        let arm = if is_candidate(bucket(draw), percent) { Arm::Candidate } else { Arm::Baseline };
        let law = laws[usize::from(arm == Arm::Candidate)];
        number += 1;
        // The lowest bit remembers the arm.
        let job = n << 1 | u64::from(arm == Arm::Candidate);
        let what = Observed::Dispatched { revision: 1, arm, share: percent, bucket: None };
        casebook.read(number, now, Some(id(job)), &what);
        candidate_jobs += u64::from(arm == Arm::Candidate);
        let failed = draw() < law.failures;
        let took = Duration::from_secs_f64((law.seconds * spread(law.spread, draw)).clamp(1e-6, 1e6));
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 1);
        let invalid = !failed && draw() < law.invalid;
        due.push(Reverse((now + took, job, failed, micros << 1 | u64::from(invalid))));
        if n % LOOK_EVERY == 0 {
            casebook.fold(now);
            let failed = look(&mut controller, &mut casebook, now)?;
            if failed.is_some() || controller.state() != State::Running {
                return Ok(Rehearsed { state: controller.state(), failed, jobs: n + 1, candidate_jobs });
            }
        }
    }
    Ok(Rehearsed { state: controller.state(), failed: None, jobs: most_jobs, candidate_jobs })
}

/// Lets the controller do what it would; what stopped it, if something did.
fn look(controller: &mut Controller, casebook: &mut Casebook, now: Timestamp) -> Result<Option<String>, String> {
    if let Some(failures) = casebook.take_trip() {
        let turn = controller.on(Event::BreakerTripped(failures), now).map_err(|refusal| refusal.to_string())?;
        *controller = turn.controller;
        return Ok(Some("breaker".to_owned()));
    }
    let readings = casebook.readings();
    let turn = controller.on(Event::Tick(&readings), now).map_err(|refusal| refusal.to_string())?;
    *controller = turn.controller;
    if !matches!(controller.state(), State::Held | State::RolledBack) {
        return Ok(None);
    }
    let failed = readings.verdicts.iter().find(|(_, verdict)| **verdict == super::Verdict::Fail);
    Ok(failed.map(|(name, _)| name.clone()))
}

fn end(law: Law, failed: bool, invalid_and_micros: u64, draw: &mut dyn FnMut() -> f64) -> Observed {
    let dollars = law.dollars * spread(law.spread, draw);
    let cost = rust_decimal::Decimal::try_from(dollars).ok().map(Usd).filter(|_| !failed);
    let micros = (!failed).then_some(invalid_and_micros >> 1);
    Observed::Ended(Ended { failed, invalid: invalid_and_micros & 1 == 1, micros, cost })
}

/// A factor around 1.
fn spread(deviation: f64, draw: &mut dyn FnMut() -> f64) -> f64 {
    let (radius, angle) = ((-2.0 * (1.0 - draw()).max(1e-300).ln()).sqrt(), std::f64::consts::TAU * draw());
    (deviation * radius * angle.cos()).exp()
}

fn bucket(draw: &mut dyn FnMut() -> f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9,999")]
    let bucket = (draw() * f64::from(BasisPoints::ALL.get())) as u16;
    bucket.min(9_999)
}

fn id(job: u64) -> JobId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&job.to_be_bytes());
    JobId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::rollout::{
        controller::{Identity, Require, Step},
        gate::{LatencyOf, OnFail, Source},
        process::Margin,
    };

    const SOUND: Law = Law { failures: 0.01, invalid: 0.0, seconds: 1.0, dollars: 0.001, spread: 0.4 };

    fn plan() -> Plan {
        let step = |percent: u16, min_jobs| Step {
            percent: BasisPoints::new(percent * 100).unwrap(),
            min_duration: Duration::from_hours(24),
            min_jobs,
            min_pairs: 0,
            require: Require::Pass,
            approval: true,
        };
        let gate = |criterion, on_fail| GateSpec { criterion, on_fail };
        Plan {
            identity: Identity {
                baseline: "a".to_owned(),
                candidate: "b".to_owned(),
                key: "job.id".to_owned(),
                salt: "s".to_owned(),
            },
            steps: vec![step(20, 50), step(50, 50), step(100, 10)],
            alpha: 0.05,
            gates: vec![
                gate(Criterion::Failure { margin: Margin::Points(0.03), of: Source::Arms }, OnFail::Rollback),
                gate(Criterion::Latency { of: LatencyOf::GeometricMean, max_ratio: 1.3 }, OnFail::Hold),
            ],
            outcome_within: Duration::from_mins(1),
            undecided: None,
            no_data: None,
            breaker: None,
            windows: None,
        }
    }

    fn runs(candidate: Law, n: u64) -> Vec<Rehearsed> {
        let (plan, left_out) = rehearsable(&plan());
        assert!(left_out.is_empty());
        (0..n)
            .map(|seed| {
                let mut chance = StdRng::seed_from_u64(seed);
                rehearse(&plan, [SOUND, candidate], 6_000, &mut || chance.random::<f64>()).unwrap()
            })
            .collect()
    }

    #[test]
    fn regressions_are_noticed_and_sound_candidates_are_not_stopped() {
        let stopped =
            |runs: &[Rehearsed], gate: &str| runs.iter().filter(|run| run.failed.as_deref() == Some(gate)).count();
        let failing = runs(Law { failures: 0.15, ..SOUND }, 20);
        assert_eq!(stopped(&failing, "failure"), 20, "{failing:?}");
        assert!(failing.iter().all(|run| run.state == State::RolledBack && run.candidate_jobs < run.jobs));
        let slow = runs(Law { seconds: 2.0, ..SOUND }, 20);
        assert!(stopped(&slow, "latency") >= 19, "{slow:?}");
        let sound = runs(SOUND, 20);
        assert!(stopped(&sound, "failure") + stopped(&sound, "latency") <= 2, "{sound:?}");
        assert!(sound.iter().filter(|run| run.state == State::Done).count() >= 15, "{sound:?}");
    }
}
