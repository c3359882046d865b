//! Decisions: rules, rollouts, flags and fallback together.

use proptest::prelude::*;

use super::{
    fixture::{Job, confine, pipeline, provider, providers, rollout, rule, target, triage},
    *,
};
use crate::{
    job::HoldReason,
    money::BasisPoints,
    spec::{
        Course, Destination, Flag, FlagSet, MissingKey, OnMissing, Pipeline, RolloutIx, TargetIx, flags::FlagLevel,
    },
};

fn flags(pipeline: &Pipeline, set: &[&str]) -> EffectiveFlags {
    let rolled_back = set.contains(&"rolled back");
    let set = set.iter().filter_map(|name| Flag::parse(name, providers().keys()));
    let levels = FlagLevels { runtime: FlagSet(set.map(|flag| (flag, true)).collect()), ..FlagLevels::default() };
    EffectiveFlags::resolve(&levels, pipeline, &providers(), rolled_back)
}

fn decide_with(pipeline: &Pipeline, set: &[&str], job: &Job) -> Decision {
    let flags = flags(pipeline, set);
    decide(&Question { pipeline, flags: &flags, standings: &Standings::default(), facts: job.facts(pipeline) })
}

/// The chain in names, or the hold's reason code.
fn outcome(pipeline: &Pipeline, set: &[&str], job: &Job) -> String {
    let record = decide_with(pipeline, set, job).record(pipeline, 1);
    record.held.map_or_else(|| record.chain.join(" "), |reason| reason.to_string())
}

const EU: &[(&str, &str)] = &[("region", "eu"), ("customer", "c-1")];
/// Buckets 45 and 4420 of the published vectors: below and above 25 %.
const LOW: &[(&str, &str)] = &[("region", "us"), ("customer", "c-1")];
const HIGH: &[(&str, &str)] = &[("region", "us"), ("customer", "customer-0007")];
const KEYLESS: &[(&str, &str)] = &[("region", "us")];

#[test]
fn the_designs_example() {
    let none: &[&str] = &[];
    for (percent, flags, job, expected) in [
        ("25", none, EU, "bedrock-eu"),
        ("25", none, LOW, "bedrock openai"),
        ("25", none, HIGH, "openai"),
        ("25", none, KEYLESS, "openai"),
        ("0", none, LOW, "openai"),
        ("0.45", none, LOW, "openai"),
        ("0.46", none, LOW, "bedrock openai"),
        ("100", none, HIGH, "bedrock openai"),
        ("100", none, KEYLESS, "bedrock openai"),
        // A rollback serves the baseline, at any percentage, without falling back to the candidate.
        ("25", &["rolled back"], LOW, "openai"),
        ("100", &["rolled back"], KEYLESS, "openai"),
        // A forced provider filters the chain; where nothing stays, the pipeline's targets of it serve.
        ("25", &["FORCE_OPENAI_PROVIDER"], LOW, "openai"),
        ("25", &["FORCE_BEDROCK_PROVIDER"], LOW, "bedrock"),
        ("25", &["FORCE_BEDROCK_PROVIDER"], HIGH, "bedrock bedrock-eu"),
        ("100", &["rolled back", "FORCE_BEDROCK_PROVIDER"], LOW, "bedrock bedrock-eu"),
        ("25", &["FORCE_AZURE_PROVIDER"], LOW, "forced_provider_has_no_target"),
        ("25", &["FORCE_OPENAI_PROVIDER", "FORCE_BEDROCK_PROVIDER"], LOW, "forced_providers_conflict"),
        // Only confinement is stronger.
        ("25", &["FORCE_OPENAI_PROVIDER"], EU, "confined"),
        ("25", &["FORCE_BEDROCK_PROVIDER"], EU, "bedrock-eu"),
        ("25", &["FORCE_AZURE_PROVIDER"], EU, "forced_provider_has_no_target"),
        ("25", &["DISABLE_FALLBACK"], LOW, "bedrock"),
        ("25", &["PAUSE"], LOW, "paused"),
        ("25", &["PAUSE", "FORCE_OPENAI_PROVIDER", "FORCE_BEDROCK_PROVIDER"], LOW, "paused"),
    ] {
        let pipeline = triage(percent);
        assert_eq!(outcome(&pipeline, flags, &Job::with(job)), expected, "{percent} % {flags:?} {job:?}");
    }
}

#[test]
fn a_rule_that_needs_a_value_the_job_lacks() {
    for (on_missing, expected, rule) in [
        (OnMissing::NoMatch, "bedrock openai", Some(1)),
        (OnMissing::Hold, "missing_value", Some(0)),
        (OnMissing::Match, "bedrock-eu", Some(0)),
    ] {
        let mut pipeline = triage("25");
        pipeline.route[0].on_missing = on_missing;
        let job = Job::with(&[("customer", "c-1")]);
        assert_eq!(outcome(&pipeline, &[], &job), expected);
        let decision = decide_with(&pipeline, &[], &job);
        assert_eq!(decision.rule, rule);
        assert!(
            matches!(&decision.reasons[0], Reason::RuleMissing { rule: 0, path, then }
                if &**path == "job.metadata.region" && *then == on_missing),
            "{:?}",
            decision.reasons
        );
    }
}

#[test]
fn a_rule_that_cannot_be_judged_does_as_it_says_of_missing_values() {
    for (on_missing, expected) in
        [(OnMissing::NoMatch, "bedrock openai"), (OnMissing::Hold, "missing_value"), (OnMissing::Match, "bedrock-eu")]
    {
        let mut pipeline = triage("25");
        let mut eu = rule("eu", Some("int(job.metadata.region) == 1"), Destination::Target(TargetIx(2)));
        eu.on_missing = on_missing;
        eu.confine = Some(confine(&[false, false, true]));
        pipeline.route[0] = eu;
        let job = Job::with(&[("region", "not a number"), ("customer", "c-1")]);
        assert_eq!(outcome(&pipeline, &[], &job), expected);
    }
}

#[test]
fn jobs_without_the_key() {
    for (missing_key, percent, expected, bucketed) in [
        (MissingKey::Baseline, "99.99", "openai", false),
        (MissingKey::Hold, "99.99", "missing_value", false),
        (MissingKey::Hold, "100", "bedrock openai", false),
        (MissingKey::JobId, "0", "openai", true),
        (MissingKey::JobId, "100", "bedrock openai", true),
    ] {
        let mut pipeline = triage(percent);
        pipeline.rollouts[0].missing_key = missing_key;
        let job = Job::with(KEYLESS);
        assert_eq!(outcome(&pipeline, &[], &job), expected, "{missing_key} {percent}");
        let decision = decide_with(&pipeline, &[], &job);
        assert_eq!(decision.arm.is_some_and(|arm| arm.bucket.is_some()), bucketed);
        let evidence = decision.assignment(&pipeline, &flags(&pipeline, &[])).is_some_and(|it| it.evidence);
        assert!(!evidence, "a job without a key is no evidence");
    }
}

#[test]
fn the_baseline_falls_back_to_the_candidate_only_when_told() {
    let mut pipeline = triage("25");
    pipeline.rollouts[0].fallback_to_candidate = true;
    assert_eq!(outcome(&pipeline, &[], &Job::with(HIGH)), "openai bedrock");
    assert_eq!(outcome(&pipeline, &["rolled back"], &Job::with(HIGH)), "openai", "not during a rollback");
}

#[test]
fn a_rules_own_fallback_replaces_the_pipelines() {
    let mut pipeline = triage("25");
    pipeline.route[1].to = Destination::Target(TargetIx(0));
    assert_eq!(outcome(&pipeline, &[], &Job::with(LOW)), "openai bedrock");
    pipeline.route[1].fallback = Some(vec![TargetIx(2), TargetIx(0)]);
    assert_eq!(outcome(&pipeline, &[], &Job::with(LOW)), "openai bedrock-eu");
    pipeline.route[1].fallback = Some(Vec::new());
    assert_eq!(outcome(&pipeline, &[], &Job::with(LOW)), "openai");
    // The pipeline's fallback is filtered by the confinement.
    pipeline.route[1].fallback = None;
    pipeline.route[1].confine = Some(confine(&[true, false, false]));
    assert_eq!(outcome(&pipeline, &[], &Job::with(LOW)), "openai");
}

#[test]
fn a_confinement_that_nothing_meets_holds() {
    let mut pipeline = triage("25");
    pipeline.route[0].confine = Some(confine(&[false, false, false]));
    assert_eq!(outcome(&pipeline, &[], &Job::with(EU)), "confined");
    assert_eq!(outcome(&pipeline, &["FORCE_BEDROCK_PROVIDER"], &Job::with(EU)), "confined");
}

#[test]
fn the_family_of_a_forced_provider_serves() {
    let targets = vec![target("bedrock", "bedrock"), target("azure", "azure"), target("openai", "openai")];
    let mut pipeline = pipeline(targets, vec![rule("all", None, Destination::Target(TargetIx(0)))]);
    pipeline.fallback = vec![TargetIx(1), TargetIx(2)];
    let job = Job::with(&[]);
    assert_eq!(outcome(&pipeline, &["FORCE_OPENAI_PROVIDER"], &job), "azure openai");
    pipeline.fallback = vec![TargetIx(2)];
    assert_eq!(outcome(&pipeline, &["FORCE_OPENAI_PROVIDER"], &job), "openai", "what is in the chain comes first");
}

#[test]
fn the_arm_that_serves_is_told_beside_the_one_assigned() {
    for (percent, set, job, assigned, served, evidence) in [
        ("25", &[][..], LOW, Arm::Candidate, Arm::Candidate, true),
        ("25", &[], HIGH, Arm::Baseline, Arm::Baseline, true),
        ("25", &["rolled back"], LOW, Arm::Candidate, Arm::Baseline, false),
        ("25", &["FORCE_OPENAI_PROVIDER"], LOW, Arm::Candidate, Arm::Baseline, false),
        ("25", &["FORCE_BEDROCK_PROVIDER"], HIGH, Arm::Baseline, Arm::Candidate, false),
        ("25", &["DISABLE_FALLBACK"], LOW, Arm::Candidate, Arm::Candidate, true),
    ] {
        let pipeline = triage(percent);
        let decision = decide_with(&pipeline, set, &Job::with(job));
        let arm = decision.arm.unwrap();
        assert_eq!((arm.assigned, arm.served), (assigned, served), "{set:?}");
        let assignment = decision.assignment(&pipeline, &flags(&pipeline, set)).unwrap();
        assert_eq!((assignment.arm, assignment.evidence), (assigned, evidence), "{set:?}");
    }
    // A confined job is no evidence either.
    let mut pipeline = triage("25");
    pipeline.route[1].confine = Some(confine(&[true, true, true]));
    let decision = decide_with(&pipeline, &[], &Job::with(LOW));
    assert!(!decision.assignment(&pipeline, &flags(&pipeline, &[])).unwrap().evidence);
    assert_eq!(decide_with(&pipeline, &[], &Job::with(EU)).assignment(&pipeline, &EffectiveFlags::default()), None);
}

#[test]
fn decisions_are_told_in_words() {
    let pipeline = triage("25");
    let set = ["FORCE_OPENAI_PROVIDER", "DISABLE_FALLBACK"];
    let record = decide_with(&pipeline, &set, &Job::with(LOW)).record(&pipeline, 7);
    assert_eq!(
        explain_with_flags(&record, &flags(&pipeline, &set)),
        "FORCE_OPENAI_PROVIDER is in force: set at run time for all pipelines.\n\
         DISABLE_FALLBACK is in force: set at run time for all pipelines.\n  \
         1. Rule 1 \"eu stays\" does not match.\n  \
         2. Rule 2 \"migrate\" takes every job that reaches it; it leads to rollout to-bedrock.\n  \
         3. Its bucket is 45 of 10,000; the candidate takes those below 2500 (25 %), so its arm is the candidate.\n  \
         4. FORCE_OPENAI_PROVIDER, set at run time, lets only provider openai and its family serve: 1 target taken out \
         of the chain.\n  \
         5. Target openai is tried, and no other (generation 7).\n"
    );
    let record = decide_with(&pipeline, &["FORCE_OPENAI_PROVIDER"], &Job::with(EU)).record(&pipeline, 7);
    assert_eq!(
        record.reasons.last().unwrap(),
        "The job is held: no target that could serve it keeps its data where it must stay."
    );
    assert_eq!((record.rule.as_deref(), record.held), (Some("eu stays"), Some(HoldReason::Confined)));
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(serde_json::from_value::<DecisionRecord>(json).unwrap(), record);
}

#[test]
fn many_rules_that_do_not_match_share_a_sentence() {
    let mut pipeline = triage("25");
    let eu = pipeline.route[0].clone();
    pipeline.route.splice(0..1, vec![eu; 500]);
    let record = decide_with(&pipeline, &[], &Job::with(HIGH)).record(&pipeline, 1);
    assert_eq!(record.reasons[0], "Rules 1 to 500 do not match.");
    assert!(record.reasons.len() < 6, "{:?}", record.reasons);
}

proptest! {
    #[test]
    fn raising_a_percentage_only_adds_keys(key in ".{1,20}", lower in 0_u16..=10_000, higher in 0_u16..=10_000) {
        let (lower, higher) = (lower.min(higher), lower.max(higher));
        let arm = |points| {
            let mut pipeline = triage("0");
            pipeline.rollouts[0].course = Course::Percent(BasisPoints::new(points).unwrap());
            let decision = decide_with(&pipeline, &[], &Job::with(&[("region", "us"), ("customer", &key)]));
            let arm = decision.arm.unwrap();
            prop_assert_eq!(arm.bucket, Some(crate::rollout::bucket("ticket-triage/to-bedrock", &key)));
            Ok(arm.assigned)
        };
        let (at_lower, at_higher) = (arm(lower)?, arm(higher)?);
        prop_assert_eq!(arm(lower)?, at_lower, "the same key falls to the same side");
        prop_assert!(at_lower == Arm::Baseline || at_higher == Arm::Candidate);
        prop_assert_eq!(arm(0)?, Arm::Baseline);
        prop_assert_eq!(arm(10_000)?, Arm::Candidate);
    }

    #[test]
    fn confinement_first_then_the_kill_switch(case in case()) {
        let Case { pipeline, flags, job } = &case;
        let standings = Standings::default();
        let question = Question { pipeline, flags, standings: &standings, facts: job.facts(pipeline) };
        let decision = decide(&question);
        prop_assert_eq!(&decide(&question), &decision, "the same question, the same answer");
        let record = decision.record(pipeline, 1);
        prop_assert!(!record.reasons.is_empty() && !explain_with_flags(&record, flags).is_empty());
        let rule = decision.rule.map(|rule| &pipeline.route[usize::from(rule)]);
        let confined = |target: TargetIx| rule.unwrap().confine.as_ref().is_none_or(|confine| confine.permits(target));
        let of_forced = |target: TargetIx| flags.permitted.is_empty() || flags.permitted[target.get()];
        match &decision.route {
            Route::Dispatch(chain) => {
                prop_assert!(flags.pause.is_none() && flags.forced.len() < 2 && !chain.is_empty());
                for (place, target) in chain.iter().enumerate() {
                    prop_assert!(confined(*target), "never out of the confinement");
                    prop_assert!(of_forced(*target), "nothing but the forced provider");
                    prop_assert!(!chain[..place].contains(target), "no target twice");
                }
                prop_assert!(flags.disable_fallback.is_none() || chain.len() == 1);
                if let (Some(arm), true) = (decision.arm, flags.forced.is_empty()) {
                    let rollout = pipeline.rollout(arm.rollout);
                    let withheld = flags.rolled_back
                        || (arm.assigned == Arm::Baseline && arm.percent < BasisPoints::ALL && !rollout.fallback_to_candidate);
                    prop_assert!(!(withheld && chain.contains(&rollout.candidate)));
                }
            }
            Route::Hold(HoldReason::Paused) => prop_assert!(flags.pause.is_some()),
            Route::Hold(HoldReason::ForcedProvidersConflict) => prop_assert!(flags.forced.len() > 1),
            Route::Hold(HoldReason::ForcedProviderHasNoTarget) => prop_assert!(!flags.permitted.contains(&true)),
            Route::Hold(HoldReason::Confined) => {
                let places = (0..pipeline.targets.len()).map(|place| TargetIx(u16::try_from(place).unwrap()));
                prop_assert!(rule.unwrap().confine.is_some());
                if !flags.forced.is_empty() {
                    prop_assert!(!places.clone().any(|target| confined(target) && of_forced(target)));
                }
            }
            Route::Hold(HoldReason::MissingValue) => {}
            Route::Hold(other) => prop_assert!(false, "{other} is not for routing to say"),
        }
    }
}

#[derive(Debug)]
struct Case {
    pipeline: Pipeline,
    flags: EffectiveFlags,
    job: Job,
}

prop_compose! {
    /// Any pipeline of up to five targets and four rules, under any flags and rollbacks.
    fn case()(count in 2_usize..=5)(
        owners in prop::collection::vec(prop::sample::select(vec!["openai", "bedrock", "azure"]), count),
        rules in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0..count, prop::option::of(prop::collection::vec(any::<bool>(), count)),
             prop::option::of(prop::collection::vec(0..count, 0..4)), 0..3_usize),
            1..=4,
        ),
        fallback in prop::collection::vec(0..count, 0..4),
        percent in prop_oneof![Just(0_u16), Just(10_000), 0_u16..=10_000],
        pair in (0..count, 1..count),
        missing_key in 0..3_usize,
        fallback_to_candidate in any::<bool>(),
        set in prop::sample::subsequence(
            vec!["PAUSE", "DISABLE_FALLBACK", "FORCE_OPENAI_PROVIDER", "FORCE_BEDROCK_PROVIDER", "FORCE_AZURE_PROVIDER",
                 "rolled back", "", ""],
            0..=2,
        ),
        metadata in prop::sample::subsequence(vec![("region", "eu"), ("region", "us"), ("customer", "c-1")], 0..=2),
        count in Just(count),
    ) -> Case {
        let ix = |place: usize| TargetIx(u16::try_from(place).unwrap());
        let names = ["t0", "t1", "t2", "t3", "t4"];
        let targets = (0..count).map(|place| target(names[place], owners[place])).collect();
        let last = rules.len() - 1;
        let route = rules.into_iter().enumerate().map(|(place, (conditional, split, to, permitted, own, on_missing))| {
            let when = (conditional && place < last).then_some("job.metadata.region == \"eu\"");
            let to = if split { Destination::Rollout(RolloutIx(0)) } else { Destination::Target(ix(to)) };
            let mut rule = rule("rule", when, to);
            rule.confine = permitted.map(|permitted| confine(&permitted));
            rule.fallback = own.map(|own| own.into_iter().map(ix).collect());
            rule.on_missing = [OnMissing::NoMatch, OnMissing::Hold, OnMissing::Match][on_missing];
            rule
        }).collect();
        let mut pipeline = pipeline(targets, route);
        let (baseline, step) = pair;
        let candidate = (baseline + step) % count;
        let mut split = rollout(ix(baseline).0, ix(candidate).0, "0");
        split.course = Course::Percent(BasisPoints::new(percent).unwrap());
        split.missing_key = [MissingKey::Baseline, MissingKey::JobId, MissingKey::Hold][missing_key];
        split.fallback_to_candidate = fallback_to_candidate;
        pipeline.rollouts = vec![split];
        pipeline.fallback = fallback.into_iter().map(ix).collect();
        let flags = flags(&pipeline, &set);
        Case { pipeline, flags, job: Job::with(&metadata) }
    }
}

#[test]
fn a_flag_names_its_level() {
    let mut pipeline = triage("25");
    pipeline.flags = FlagSet([(Flag::Force(provider("bedrock")), true)].into());
    let flags = EffectiveFlags::resolve(&FlagLevels::default(), &pipeline, &providers(), false);
    let decision = decide(&Question {
        pipeline: &pipeline,
        flags: &flags,
        standings: &Standings::default(),
        facts: Job::with(LOW).facts(&pipeline),
    });
    assert!(decision.reasons.contains(&Reason::Forced {
        provider: provider("bedrock"),
        level: FlagLevel::Spec,
        removed: 1
    }));
    assert_eq!(flags_in_force(&flags), ["FORCE_BEDROCK_PROVIDER is in force: set in the pipeline's spec."]);
}
