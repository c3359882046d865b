//! No order of events leads astray.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Any {
    Tick { hours: u64, jobs: u64, failure: u8, cost: u8 },
    Promote,
    Pause,
    Resume,
    Abort,
    Retry,
    Approve,
    Switch(bool),
    Edit(u8),
    Trip,
}

fn any_event() -> impl Strategy<Value = Any> {
    prop_oneof![
        6 => (0..30u64, 0..2_000u64, 0..20u8, 0..12u8)
            .prop_map(|(hours, jobs, failure, cost)| Any::Tick { hours, jobs, failure, cost }),
        1 => Just(Any::Promote),
        1 => Just(Any::Pause),
        2 => Just(Any::Resume),
        1 => Just(Any::Abort),
        1 => Just(Any::Retry),
        2 => Just(Any::Approve),
        2 => any::<bool>().prop_map(Any::Switch),
        1 => (0..6u8).prop_map(Any::Edit),
        1 => Just(Any::Trip),
    ]
}

fn verdict_of(number: u8) -> Verdict {
    match number {
        0 => Verdict::Fail,
        1..=8 => Verdict::Pass,
        _ => Verdict::Undecided(Outlook::Open),
    }
}

proptest! {
    #[test]
    fn no_order_of_events_leads_astray(events in proptest::collection::vec(any_event(), 0..80)) {
        let mut story = Story::new(plan());
        for event in events {
            let before = story.controller.clone();
            story.readings.revision = before.revision();
            let readings = story.readings.clone();
            let other_plan;
            let (event, by_itself) = match event {
                Any::Tick { hours, jobs, failure, cost } => {
                    story.hours(hours);
                    story.readings.jobs += jobs;
                    story.readings.pairs += jobs;
                    story.readings.verdicts =
                        BTreeMap::from([("failure".to_owned(), verdict_of(failure)), ("cost".to_owned(), verdict_of(cost))]);
                    story.tick();
                    let after = &story.controller;
                    let failed = failure == 0 && matches!(before.state(), State::Running | State::Paused | State::Held);
                    prop_assert_eq!(failed, after.state() == State::RolledBack && before.state() != State::RolledBack);
                    prop_assert!(after.percent() <= before.percent() || before.state() == State::Running);
                    continue;
                }
                Any::Promote => (Event::Promote(&readings), false),
                Any::Pause => (Event::Pause, false),
                Any::Resume => (Event::Resume(&readings), false),
                Any::Abort => (Event::Abort, false),
                Any::Retry => (Event::Retry(before.after() + 100), false),
                Any::Approve => (Event::Approve, false),
                Any::Switch(true) => (Event::SwitchOn, true),
                Any::Switch(false) => (Event::SwitchOff, true),
                Any::Edit(which) => {
                    let mut plan = plan();
                    match which {
                        0 => plan.steps.truncate(3),
                        1 => plan.gates = vec![failure(0.02)],
                        2 => plan.identity.candidate = "bedrock/nova".to_owned(),
                        3 => plan.identity.salt = "other".to_owned(),
                        4 => plan.steps = vec![step(30, 1, 1), step(60, 1, 1)],
                        _ => {}
                    }
                    other_plan = plan;
                    (Event::Edited(&other_plan, before.after() + 10), true)
                }
                Any::Trip => (Event::BreakerTripped(15), true),
            };
            let result = story.event(event);
            let after = &story.controller;
            if result.is_err() {
                prop_assert_eq!(after, &before);
            }
            match event {
                Event::Abort => prop_assert_eq!(after.state(), State::Aborted),
                Event::Retry(_) | Event::Promote(_) => {}
                // Nothing but a promotion raises a percentage outside of a tick.
                _ => prop_assert!(after.percent() <= before.percent()),
            }
            let gone = matches!(before.state(), State::RolledBack | State::Aborted);
            let relaunched = after.revision() > before.revision();
            prop_assert!(!gone || relaunched || matches!(after.state(), State::RolledBack | State::Aborted));
            prop_assert!(!by_itself || !relaunched || after.plan().identity != before.plan().identity);
            prop_assert!(after.step_index().is_none_or(|step| step < after.plan().steps.len()));
            let silent = matches!(after.state(), State::RolledBack | State::Aborted);
            prop_assert!(!silent || after.percent() == BasisPoints::NONE);
        }
    }
}
