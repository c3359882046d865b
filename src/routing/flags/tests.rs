//! Flags on four levels: which one wins.

use super::*;
use crate::routing::fixture::{pipeline, provider, providers, rule, target, triage};
use crate::spec::{Destination, TargetIx};

/// Levels in the words of the tables below: `runtime*` is the pipeline's own set at run time.
fn levels(said: &[(&str, &str, bool)]) -> (FlagLevels, Pipeline) {
    let mut pipeline = triage("25");
    let mut levels = FlagLevels::default();
    for (level, flag, value) in said {
        let flag = Flag::parse(flag, providers().keys()).unwrap();
        let set = match *level {
            "runtime*" => levels.runtime_by_pipeline.entry(pipeline.name.clone()).or_default(),
            "runtime" => &mut levels.runtime,
            "environment" => &mut levels.environment,
            "file*" => levels.file_by_pipeline.entry(pipeline.name.clone()).or_default(),
            "file" => &mut levels.file,
            "spec" => &mut pipeline.flags,
            other => unreachable!("{other}"),
        };
        set.0.insert(flag, *value);
    }
    (levels, pipeline)
}

fn resolve(said: &[(&str, &str, bool)]) -> EffectiveFlags {
    let (levels, pipeline) = levels(said);
    EffectiveFlags::resolve(&levels, &pipeline, &providers(), false)
}

fn source(level: FlagLevel, pipeline_only: bool) -> Option<FlagSource> {
    Some(FlagSource { level, pipeline_only })
}

#[test]
fn an_ordinary_flag_follows_the_highest_level_that_speaks() {
    use FlagLevel::{Environment, File, Runtime, Spec};
    for (said, expected) in [
        (&[][..], None),
        (&[("spec", true)], source(Spec, true)),
        (&[("spec", false)], None),
        (&[("spec", true), ("file", false)], None),
        (&[("spec", false), ("file", true)], source(File, false)),
        (&[("file", true), ("file*", false)], None),
        (&[("file", false), ("file*", true)], source(File, true)),
        (&[("file*", true), ("environment", false)], None),
        (&[("file", false), ("environment", true)], source(Environment, false)),
        (&[("environment", true), ("runtime", false)], None),
        (&[("environment", false), ("runtime", true)], source(Runtime, false)),
        (&[("runtime", true), ("runtime*", false)], None),
        (&[("runtime", false), ("runtime*", true)], source(Runtime, true)),
    ] {
        let said: Vec<_> = said.iter().map(|(level, value)| (*level, "DISABLE_FALLBACK", *value)).collect();
        assert_eq!(resolve(&said).disable_fallback, expected, "{said:?}");
    }
}

#[test]
fn a_kill_switch_is_on_wherever_it_is_set_until_run_time_says_no() {
    use FlagLevel::{Environment, File, Runtime, Spec};
    for (said, expected) in [
        (&[][..], None),
        (&[("spec", true)], source(Spec, true)),
        (&[("spec", true), ("file", false)], source(Spec, true)),
        (&[("spec", true), ("environment", false), ("file*", false)], source(Spec, true)),
        (&[("spec", true), ("file", true)], source(File, false)),
        (&[("file", true), ("environment", false)], source(File, false)),
        (&[("file", true), ("file*", false)], None),
        (&[("file", true), ("file*", false), ("spec", true)], source(Spec, true)),
        (&[("environment", true)], source(Environment, false)),
        (&[("environment", true), ("runtime", false)], None),
        (&[("environment", true), ("runtime*", false)], None),
        (&[("spec", true), ("file", true), ("environment", true), ("runtime", false)], None),
        (&[("runtime", true), ("runtime*", false)], None),
        (&[("runtime", false), ("runtime*", true)], source(Runtime, true)),
        (&[("environment", true), ("runtime", true)], source(Runtime, false)),
    ] {
        let of = |flag| said.iter().map(|(level, value)| (*level, flag, *value)).collect::<Vec<_>>();
        assert_eq!(resolve(&of("PAUSE")).pause, expected, "{said:?}");
        let forced = resolve(&of("FORCE_OPENAI_PROVIDER")).forced;
        assert_eq!(forced.first().map(|(_, source)| *source), expected, "{said:?}");
    }
}

#[test]
fn another_pipelines_flags_are_not_ours() {
    let (mut levels, pipeline) = levels(&[("runtime*", "PAUSE", true), ("file*", "FORCE_OPENAI_PROVIDER", true)]);
    for sets in [&mut levels.runtime_by_pipeline, &mut levels.file_by_pipeline] {
        let set = sets.remove(&pipeline.name).unwrap();
        sets.insert("another".parse().unwrap(), set);
    }
    assert_eq!(EffectiveFlags::resolve(&levels, &pipeline, &providers(), false), EffectiveFlags::default());
}

#[test]
fn forcing_goes_by_name_and_family_not_by_protocol() {
    let targets = vec![target("a", "openai"), target("b", "bedrock"), target("c", "azure"), target("d", "openai-like")];
    let mut pipeline = pipeline(targets, vec![rule("all", None, Destination::Target(TargetIx(0)))]);
    for (flag, expected) in [
        ("FORCE_OPENAI_PROVIDER", [true, false, true, false]),
        ("FORCE_BEDROCK_PROVIDER", [false, true, false, false]),
        // The family is permitted when its head is forced, not the other way round.
        ("FORCE_AZURE_PROVIDER", [false, false, true, false]),
    ] {
        pipeline.flags = FlagSet([(Flag::parse(flag, providers().keys()).unwrap(), true)].into());
        let flags = EffectiveFlags::resolve(&FlagLevels::default(), &pipeline, &providers(), false);
        assert_eq!(flags.permitted, expected, "{flag}");
        assert!(flags.overrides_rollouts());
    }
}

#[test]
fn two_forced_providers_are_both_told() {
    let flags = resolve(&[("spec", "FORCE_BEDROCK_PROVIDER", true), ("environment", "FORCE_OPENAI_PROVIDER", true)]);
    let names: Vec<_> = flags.forced.iter().map(|(name, source)| (name.as_str(), source.level)).collect();
    assert_eq!(names, [("bedrock", FlagLevel::Spec), ("openai", FlagLevel::Environment)]);
}

#[test]
fn a_forced_provider_that_is_no_longer_configured_still_forces() {
    let mut pipeline = triage("25");
    pipeline.flags = FlagSet([(Flag::Force(provider("gone")), true)].into());
    let flags = EffectiveFlags::resolve(&FlagLevels::default(), &pipeline, &providers(), false);
    assert_eq!(flags.forced.len(), 1);
    assert_eq!(flags.permitted, [false, false, false]);
}

#[test]
fn a_rollback_is_passed_on() {
    let flags = EffectiveFlags::resolve(&FlagLevels::default(), &triage("25"), &providers(), true);
    assert!(flags.rolled_back && flags.overrides_rollouts() && flags.permitted.is_empty());
}
