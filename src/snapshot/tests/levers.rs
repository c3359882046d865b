//! Flags in files: a kill switch that was saved gets through, whatever else is broken.

use super::*;

#[test]
fn the_flags_file_is_read_in_both_spellings() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", ""))]);
    world.environment.0.insert(Flag::Pause, false);
    for text in [
        "FORCE_OPENAI_PROVIDER: true\npipelines:\n  a: { PAUSE: true }\n",
        "flags: { FORCE_OPENAI_PROVIDER: true }\npipelines: { a: { PAUSE: true } }",
    ] {
        let snapshot = world.save_flags(text).load().snapshot;
        assert_eq!(snapshot.flags.file.0, [(force("openai"), true)].into());
        assert_eq!(snapshot.flags.file_by_pipeline[&name("a")].0, [(Flag::Pause, true)].into());
        assert_eq!(snapshot.flags.environment.get(&Flag::Pause), Some(false));
        assert!(report(&snapshot, "flags.yaml").valid && codes(&snapshot, "flags.yaml").is_empty());
    }
    for nothing in ["", "# nothing\n", "pipelines:\n", "flags: {}\n"] {
        let snapshot = world.save_flags(nothing).load().snapshot;
        assert!(snapshot.flags.file.0.is_empty() && report(&snapshot, "flags.yaml").valid, "{nothing:?}");
    }
    let snapshot = world
        .save_flags("pipelines: { b: { PAUSE: true } }\nFORCE_OPENAI_PROVIDER: true\nFORCE_BEDROCK_PROVIDER: true")
        .load()
        .snapshot;
    assert_eq!(codes(&snapshot, "flags.yaml"), ["forced-twice", "unknown-pipeline"]);
    assert!(report(&snapshot, "flags.yaml").valid);
    let warning = &report(&snapshot, "flags.yaml").diagnostics[1];
    assert_eq!((warning.position.unwrap().column, warning.help.as_deref()), (14, Some("did you mean `a`?")));
}

#[test]
fn a_switch_gets_through_a_broken_flags_file() {
    for (text, code) in [
        ("FORCE_OPENAI_PROVIDER: true\nPAUZE: true\n", "unknown-flag"),
        ("FORCE_OPENAI_PROVIDER: true\nPAUSE: yes\n", "wrong-type"),
        ("flags: { FORCE_OPENAI_PROVIDER: true, NOPE: 1 }\n", "unknown-flag"),
        ("pipelines: { 'B A D': { PAUSE: true } }\nFORCE_OPENAI_PROVIDER: true\n", "bad-name"),
        ("FORCE_OPENAI_PROVIDER: true\npipelines: [\n", "yaml-syntax"),
        ("pipelines: {\nFORCE_OPENAI_PROVIDER: true # now!\n", "yaml-syntax"),
        ("flags:\n  FORCE_OPENAI_PROVIDER: true\n  oops: [\n", "yaml-syntax"),
        ("FORCE_OPENAI_PROVIDER: true\n\"\n", "yaml-syntax"),
    ] {
        let mut world = World::new(&[("a.yaml", BROKEN)]);
        world.apply = Apply::All;
        let loaded = world.save_flags(text).load();
        assert_eq!(loaded.snapshot.flags.file.get(&force("openai")), Some(true), "{text:?}");
        assert!(loaded.changed);
        let found = codes(&loaded.snapshot, "flags.yaml");
        assert!(found.iter().any(|found| found == code || code == "yaml-syntax"), "{text:?}: {found:?}");
        assert!(!report(&loaded.snapshot, "flags.yaml").valid, "{text:?}");
    }
}

#[test]
fn a_broken_flags_file_lifts_no_switch() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", ""))]);
    world.save_flags("FORCE_OPENAI_PROVIDER: true\npipelines: { a: { PAUSE: true } }").load();
    for broken in ["FORCE_OPENAI_PROVIDR: false\n", "[", "pipelines: 5"] {
        for _ in 0..2 {
            let loaded = world.save_flags(broken).load();
            assert_eq!(loaded.snapshot.flags.file.get(&force("openai")), Some(true), "{broken:?}");
            assert_eq!(loaded.snapshot.flags.file_by_pipeline[&name("a")].get(&Flag::Pause), Some(true));
            assert!(!loaded.changed);
            world.restart();
        }
    }
    // A broken file that plainly says false does lift it, and a switch that came with a broken file survives the next.
    world.save_flags("FORCE_OPENAI_PROVIDER: false\nNOPE: 1").load();
    world.save_flags("DISABLE_FALLBACK: true\nNOPE: 1").load();
    let loaded = world.restart().save_flags("NOPE: 1").load();
    assert_eq!(loaded.snapshot.flags.file.0, [(force("openai"), false), (Flag::DisableFallback, true)].into());
    world.sources.unreadable.insert(SourceFile::Flags, Diagnostic::error("unreadable", "flags.yaml", "no"));
    world.sources.flags = None;
    assert_eq!(world.load().snapshot.flags.file.get(&Flag::DisableFallback), Some(true));
    world.sources.unreadable.clear();
    assert!(world.load().snapshot.flags.file.0.is_empty());
}

#[test]
fn a_switch_in_a_broken_spec_reaches_its_last_good_version() {
    let mut world =
        World::new(&[("a.yaml", &spec("a", "m1", "flags: { PAUSE: true }\n")), ("b.yaml", &spec("b", "m1", ""))]);
    world.load();
    let flags = |snapshot: &Snapshot, pipeline: &str| snapshot.pipelines[&name(pipeline)].pipeline.flags.0.clone();
    for apply in [Apply::PerFile, Apply::All] {
        world.apply = apply;
        for _ in 0..2 {
            let loaded = world.save("a.yaml", "name: a\nflags: { FORCE_OPENAI_PROVIDER: true }\nrout: [\n").load();
            assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m1"], "{apply:?}");
            assert_eq!(flags(&loaded.snapshot, "a"), [(Flag::Pause, true), (force("openai"), true)].into());
            // It stays while the file is broken otherwise.
            let loaded = world.save("a.yaml", "name: a\nrout: [\n").load();
            assert_eq!(flags(&loaded.snapshot, "a").len(), 2, "{apply:?}");
            world.save("a.yaml", "name: a\nflags: { FORCE_OPENAI_PROVIDER: true }\nrout: [\n").restart();
        }
        // The text that was good before is good again, and its flags are those that it sets.
        let loaded = world.save("a.yaml", &spec("a", "m1", "flags: { PAUSE: true }\n")).load();
        assert_eq!(flags(&loaded.snapshot, "a"), [(Flag::Pause, true)].into(), "{apply:?}");
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1", "b b.yaml m1"]);
    }
    // Under `all`, the flags of a good file get through although its other changes wait for a broken one.
    world.save("a.yaml", BROKEN).save("b.yaml", &spec("b", "m2", "flags: { FORCE_OPENAI_PROVIDER: true }\n"));
    let loaded = world.load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m1*"]);
    assert_eq!(flags(&loaded.snapshot, "b"), [(force("openai"), true)].into());
    assert!(loaded.changed);
}
