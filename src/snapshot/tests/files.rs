//! Each file stands alone: good, broken, new, moved, removed, unreadable; before and after a restart.

use proptest::prelude::*;

use super::*;

#[test]
fn a_broken_file_keeps_its_last_good_version_and_touches_no_other() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", "")), ("b.yaml", &spec("b", "m1", ""))]);
    let first = world.load();
    assert!(first.changed);
    assert_eq!(
        (first.snapshot.generation, serving(&first.snapshot)),
        (1, vec!["a a.yaml m1".into(), "b b.yaml m1".into()])
    );

    // Broken in syntax, in sense, in bytes, emptied: all the same.
    for broken in [BROKEN, "version: 1\nname: a\n", "", "\u{0}", &spec("a", "m9", "tragets: {}\n")] {
        world.save("a.yaml", broken).save("b.yaml", &spec("b", "m2", ""));
        let loaded = world.load();
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m2"], "{broken:?}");
        assert!(!report(&loaded.snapshot, "a.yaml").valid && report(&loaded.snapshot, "b.yaml").valid);
        assert!(report(&loaded.snapshot, "a.yaml").diagnostics.iter().any(Diagnostic::is_error));
    }
    // After a restart while it is broken, too; and nothing changed by that.
    let before = world.generation;
    let loaded = world.restart().load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m2"]);
    assert_eq!((loaded.changed, loaded.snapshot.generation), (false, before));
    // Mended.
    assert_eq!(world.save("a.yaml", &spec("a", "m3", "")).serves(), ["a a.yaml m3", "b b.yaml m2"]);
}

#[test]
fn a_new_broken_file_defines_nothing_until_it_is_valid() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", "")), ("new.yaml", "version: 1\nname: fresh\n")]);
    let loaded = world.load();
    assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1"]);
    let missing = loaded.snapshot.explain_missing(&name("fresh"));
    assert!(missing.contains("no valid version yet: new.yaml:1:1: "), "{missing}");
    assert_eq!(world.save("new.yaml", &spec("fresh", "m1", "")).serves(), ["a a.yaml m1", "fresh new.yaml m1"]);
}

#[test]
fn a_removed_file_takes_its_pipeline_away_and_a_moved_one_does_not() {
    let (a, b) = (spec("a", "m1", ""), spec("b", "m1", ""));
    let mut world = World::new(&[("a.yaml", &a), ("b.yaml", &b)]);
    let first = world.load();
    let moved = world.remove("a.yaml").save("sub/moved.yaml", &a).load();
    assert_eq!(serving(&moved.snapshot), ["a sub/moved.yaml m1", "b b.yaml m1"]);
    assert_eq!((moved.changed, &moved.snapshot.hash), (false, &first.snapshot.hash));
    // Moved and broken at once: it is still known by its name.
    let broken = "version: 1\nname: a\nroute: 5\n";
    assert_eq!(world.remove("sub/moved.yaml").save("x.yaml", broken).serves(), ["a x.yaml m1*", "b b.yaml m1"]);
    assert_eq!(world.restart().serves(), ["a x.yaml m1*", "b b.yaml m1"]);
    assert_eq!(world.remove("x.yaml").serves(), ["b b.yaml m1"]);
    // A file that renames its pipeline takes the old one away.
    assert_eq!(world.save("b.yaml", &spec("c", "m1", "")).serves(), ["c b.yaml m1"]);
}

#[test]
fn all_specs_removed_is_refused_unless_allowed() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", "")), ("b.yaml", &spec("b", "m1", ""))]);
    let before = world.load();
    world.sources.specs.clear();
    for _ in 0..2 {
        let loaded = world.load();
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b b.yaml m1*"]);
        assert_eq!((loaded.changed, &loaded.snapshot.hash), (false, &before.snapshot.hash));
        assert_eq!(codes(&loaded.snapshot, "pipelines"), ["all-specs-removed"]);
        assert!(loaded.snapshot.files.iter().all(|report| !report.valid));
        world.restart();
    }
    // A kill switch gets through to them.
    let loaded = world.save_flags("FORCE_OPENAI_PROVIDER: true").load();
    assert!(loaded.changed && loaded.snapshot.flags.file.get(&force("openai")) == Some(true));
    world.allow_empty = true;
    assert!(world.serves().is_empty());
    // One that comes back is believed at once.
    assert_eq!(world.save("b.yaml", &spec("b", "m1", "")).serves(), ["b b.yaml m1"]);
}

#[test]
fn what_cannot_be_read_is_not_gone() {
    let unreadable = || Diagnostic::error("unreadable", "x", "no permission");
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", "")), ("sub/b.yaml", &spec("b", "m1", ""))]);
    world.load();
    world.remove("a.yaml").sources.unreadable.insert(SourceFile::Spec("a.yaml".into()), unreadable());
    world.remove("sub/b.yaml").sources.unreadable.insert(SourceFile::SpecFolder("sub".into()), unreadable());
    world.sources.unreadable.insert(SourceFile::Spec("new.yaml".into()), unreadable());
    for _ in 0..2 {
        let loaded = world.load();
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml m1*", "b sub/b.yaml m1*"]);
        for file in ["a.yaml", "sub/b.yaml", "new.yaml", "sub"] {
            assert_eq!(codes(&loaded.snapshot, file), ["unreadable"], "{file}");
        }
        world.restart();
    }
    world.sources.unreadable.clear();
    assert_eq!(world.save("a.yaml", &spec("a", "m2", "")).serves(), ["a a.yaml m2"]);
}

#[test]
fn a_definition_that_breaks_a_spec_leaves_its_last_good_version_also_after_a_restart() {
    // The confinement holds as long as the definition stays in the eu.
    let uses = "version: 1\nname: a\ntargets: { t: { use: eu } }\n\
                route: [{ confine: { regions: [\"eu-*\"] }, to: t }]\n";
    let good = r#"{"name": "eu.amazon.nova-lite-v1:0", "provider": "bedrock", "region": "eu-central-1", "parameters": {"max_tokens": 5}}"#;
    let mut world = World::new(&[("a.yaml", uses)]);
    world.sources.models.insert("eu".into(), good.into());
    assert_eq!(world.serves(), ["a a.yaml eu.amazon.nova-lite-v1:0"]);

    let moved = good.replace("eu.amazon", "us.amazon").replace("eu-central-1", "us-east-1");
    for change in [Some(moved), None] {
        match change {
            Some(text) => world.sources.models.insert("eu".into(), text.into()),
            None => world.sources.models.remove("eu"),
        };
        for restarts in 0..3 {
            let loaded = world.load();
            assert_eq!(serving(&loaded.snapshot), ["a a.yaml eu.amazon.nova-lite-v1:0*"], "{restarts}");
            assert!(report(&loaded.snapshot, "a.yaml").diagnostics.iter().any(Diagnostic::is_error));
            assert_eq!(loaded.changed, restarts == 0);
            world.restart();
        }
        // The daemon looks again while nothing has changed.
        world.load();
        assert!(!world.load().changed);
    }
    world.sources.models.insert("eu".into(), good.replace("lite", "pro").into());
    let mended = world.load();
    assert_eq!(serving(&mended.snapshot), ["a a.yaml eu.amazon.nova-pro-v1:0"]);
    assert!(!mended.last_good.keys().any(|key| key.starts_with("/with/")));
}

#[test]
fn model_definitions_keep_their_last_good_version() {
    let uses = "version: 1\nname: a\ntargets: { t: { use: eu } }\n";
    let good = r#"{"name": "eu.amazon.nova-lite-v1:0", "provider": "bedrock", "region": "eu-central-1", "parameters": {"max_tokens": 5}}"#;
    let mut world = World::new(&[("a.yaml", uses)]);
    world.sources.models.insert("eu".into(), good.into());
    assert_eq!(world.serves(), ["a a.yaml eu.amazon.nova-lite-v1:0"]);
    world.sources.models.insert("eu".into(), b"{".to_vec());
    for _ in 0..2 {
        let loaded = world.load();
        assert_eq!(serving(&loaded.snapshot), ["a a.yaml eu.amazon.nova-lite-v1:0"]);
        assert!(!report(&loaded.snapshot, "models/eu.json").valid && report(&loaded.snapshot, "a.yaml").valid);
        assert!(!loaded.changed);
        world.restart();
    }
    // A better one reaches the specs that use it, though their files did not change.
    world.sources.models.insert("eu".into(), good.replace("lite", "pro").into());
    assert_eq!(world.serves(), ["a a.yaml eu.amazon.nova-pro-v1:0"]);
    // A removed one breaks those that use it; they keep their last good version.
    world.sources.models.clear();
    assert_eq!(world.serves(), ["a a.yaml eu.amazon.nova-pro-v1:0*"]);
}

#[test]
fn a_broken_catalogue_keeps_its_last_good_version() {
    let mut world = World::new(&[("a.yaml", &spec("a", "gpt-4o", ""))]);
    let burndown = |loaded: &Loaded| loaded.snapshot.catalog.find(Api::OpenAi, "gpt-4o").unwrap().burndown;
    world.load();
    world.sources.catalog = Some(b"openai: { gpt-4o: { burndown: 7 } }".to_vec());
    let loaded = world.load();
    assert!(loaded.changed && burndown(&loaded) == 7);
    assert!(describe_changes(&Snapshot::default(), &loaded.snapshot).contains(&"the catalogue changed".to_owned()));
    world.sources.catalog = Some(b"openai: { gpt-4o: { burndwn: 8 } }".to_vec());
    for _ in 0..2 {
        let loaded = world.load();
        assert_eq!((burndown(&loaded), loaded.changed), (7, false));
        assert_eq!(codes(&loaded.snapshot, "catalog.yaml"), ["unknown-key"]);
        world.restart();
    }
    world.sources.catalog = None;
    assert_eq!(burndown(&world.load()), 1);
}

#[test]
fn a_failing_test_rejects_the_file_and_says_why() {
    let tested = |target: &str, chain: &str| {
        let tests = format!(
            "flags: {{ PAUSE: true }}\ntests:\n  - name: goes first\n    job: {{ metadata: {{ region: eu }} }}\n    \
             expect: {{ target: {target}, chain: {chain} }}\n"
        );
        spec("a", "m1", &tests)
    };
    let mut world = World::new(&[("a.yaml", &tested("second", "[second, first]"))]);
    let loaded = world.load();
    assert!(serving(&loaded.snapshot).is_empty());
    let problem = &said(&loaded.snapshot, "a.yaml")[0];
    assert_eq!((problem.code.as_str(), problem.position.unwrap().line), ("test-failed", 10));
    assert_eq!(
        problem.message,
        "test \"goes first\" failed: expected the target second, but it went to first, then second, and expected the \
         chain second, then first, but it went to first, then second"
    );
    assert!(problem.help.as_ref().unwrap().starts_with("how it was decided: "), "{problem:?}");
    // The flags of the file itself are off in its tests.
    assert_eq!(world.save("a.yaml", &tested("first", "[first, second]")).serves(), ["a a.yaml m1"]);
    for (test, expected) in [
        ("{ name: t, job: {}, flags: { PAUSE: true }, expect: { held: paused } }", None),
        ("{ name: t, job: {}, flags: { FORCE_BEDROCK_PROVIDER: true }, expect: { chain: [second] } }", None),
        (
            "{ name: t, job: {}, expect: { held: paused } }",
            Some("expected it to be held (paused), but it went to first"),
        ),
        ("{ name: t, job: {}, flags: { PAUSE: true }, expect: { target: first } }", Some("but it was held (paused)")),
        ("{ name: t, job: { priority: 5000 }, expect: { target: first } }", Some("would be refused")),
    ] {
        let loaded = world.save("a.yaml", &spec("a", "m1", &format!("tests: [{test}]\n"))).load();
        let found = said(&loaded.snapshot, "a.yaml").first().map(|found| found.message.clone());
        match expected {
            None => assert_eq!(found, None, "{test}"),
            Some(expected) => assert!(found.as_ref().unwrap().contains(expected), "{test}: {found:?}"),
        }
    }
}

#[test]
fn generations_count_changes_alone() {
    let mut world = World::new(&[("a.yaml", &spec("a", "m1", ""))]);
    let first = world.load().snapshot;
    let again = world.load();
    assert_eq!((again.changed, again.snapshot.generation), (false, 1));
    // What did not change is not even read again.
    assert!(Arc::ptr_eq(&first.pipelines[&name("a")], &again.snapshot.pipelines[&name("a")]));
    let changed = world.save("a.yaml", &spec("a", "m2", "")).load();
    assert_eq!((changed.changed, changed.snapshot.generation), (true, 2));
    let back = world.save("a.yaml", &spec("a", "m1", "")).load();
    assert_eq!((&back.snapshot.hash, back.snapshot.generation), (&first.hash, 3));
    assert_eq!(first.hash.len(), 64);
    // Over a restart: the same files, then other ones.
    assert_eq!(world.restart().load().snapshot.generation, 3);
    assert_eq!(world.restart().save("b.yaml", &spec("b", "m1", "")).load().snapshot.generation, 4);
    assert_eq!(world.restart().remove("b.yaml").load().snapshot.generation, 5);
    // A daemon that serves the same has the same hash.
    assert_eq!(World::new(&[("other/place.yaml", &spec("a", "m1", ""))]).load().snapshot.hash, first.hash);
}

#[test]
fn changes_are_told_in_words() {
    let rollout = |percent: &str| {
        format!(
            "version: 1\nname: a\ntargets:\n  x: {{ provider: openai, model: m1 }}\n  y: {{ provider: bedrock, model: us.amazon.nova-pro-v1:0 }}\n\
             route: [{{ rollout: r }}]\nrollouts: {{ r: {{ baseline: x, candidate: y, percent: {percent}, key: job.metadata.c }} }}\n"
        )
    };
    let mut world = World::new(&[("a.yaml", &rollout("5")), ("b.yaml", &spec("b", "m1", ""))]);
    let before = world.load().snapshot;
    world.save("a.yaml", &rollout("25")).save("b.yaml", BROKEN).save("c.yaml", &spec("c", "m1", ""));
    let after = world.save_flags("PAUSE: true\npipelines: { a: { DISABLE_FALLBACK: true } }").load().snapshot;
    assert_eq!(
        describe_changes(&before, &after),
        [
            "PAUSE is now true in flags.yaml",
            "DISABLE_FALLBACK is now true for `a` in flags.yaml",
            "`a`: rollout `r` goes from 5 % to 25 %",
            "`b` keeps its last good version while b.yaml is broken",
            "pipeline `c` added by c.yaml",
        ]
    );
    assert!(describe_changes(&after, &after).is_empty());
    world.save("b.yaml", &spec("b", "m2", "priority: 3\n")).remove("c.yaml").save_flags("");
    let last = world.load().snapshot;
    assert_eq!(
        describe_changes(&after, &last),
        [
            "PAUSE is no longer set in flags.yaml",
            "DISABLE_FALLBACK is no longer set for `a` in flags.yaml",
            "`b` follows b.yaml again",
            "`b`: target `first` goes from m1 to m2",
            "`b`: priority changed",
            "pipeline `c` removed with c.yaml",
        ]
    );
}

#[test]
fn what_targets_take_and_who_stands_in_for_them_is_told_apart() {
    let text = |first: &str, budget: &str| {
        format!(
            "version: 1\nname: a\ntargets:\n  x: {{ provider: bedrock, model: us.amazon.nova-pro-v1:0, region: us-east-1{first} }}\n  \
             y: {{ provider: bedrock, model: us.amazon.nova-pro-v1:0, region: us-west-2 }}\nroute: [{{ to: x }}]\nfallback: [y]\n{budget}"
        )
    };
    for (first, budget, expected) in [
        (", concurrency: 4", "", "`a`: targets' concurrency changed"),
        (", equivalents: [y]", "", "`a`: equivalents changed"),
        ("", "budget: { usd_per_month: 3 }\n", "`a`: budget changed"),
    ] {
        let mut world = World::new(&[("a.yaml", &text("", ""))]);
        let before = world.load().snapshot;
        let after = world.save("a.yaml", &text(first, budget)).load().snapshot;
        assert_eq!(describe_changes(&before, &after), [expected]);
    }
}

#[test]
fn missing_pipelines_are_explained() {
    let mut world =
        World::new(&[("a.yaml", &spec("ticket-triage", "m1", "")), ("b.yaml", &spec("summaries", "m1", ""))]);
    let snapshot = world.load().snapshot;
    let explain = |text: &str| snapshot.explain_missing(&name(text));
    assert_eq!(explain("ticket-traige"), "there is no pipeline `ticket-traige`; did you mean `ticket-triage`?");
    assert!(explain("zzz").contains("lists those that are"));
    assert!(Snapshot::default().explain_missing(&name("a")).contains("no spec is loaded"));
    assert!(snapshot.pipeline(&name("summaries")).is_some());
}

#[test]
fn many_specs_load_side_by_side() {
    let mut world = World::new(&[]);
    for n in 0..200 {
        let accept = format!("accept: {{ models: [\"team-{n}/*\", \"model-{n}\"] }}\n");
        world.save(&format!("{n}.yaml"), &spec(&format!("p{n}"), "m1", &accept));
    }
    world.save("7.yaml", BROKEN);
    let loaded = world.load();
    assert_eq!(loaded.snapshot.pipelines.len(), 199);
    assert_eq!(loaded.snapshot.accepting("team-42/x").unwrap().file, "42.yaml");
    assert_eq!(loaded.snapshot.accepting("model-9").unwrap().file, "9.yaml");
    assert!(loaded.snapshot.accepting("team-7/x").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in the files, a snapshot comes out, good files serve, and what is wrong is said.
    #[test]
    fn no_bytes_stop_a_load(
        junk in proptest::collection::vec(any::<u8>(), 0..60),
        from in 0_usize..300,
        cut in 1_usize..60,
        insert in "[\\[\\]{}:\\-\"' a&*!|>%@\n]{0,6}",
    ) {
        let good = spec("a", "m1", "accept: { models: [\"gpt-*\"] }\nflags: { PAUSE: false }\n");
        let mut world = World::new(&[("good.yaml", &spec("good", "m1", "")), ("a.yaml", &good)]);
        world.load();
        let mut text: Vec<char> = good.chars().collect();
        let from = from.min(text.len());
        let to = (from + cut).min(text.len());
        text.splice(from..to, insert.chars());
        world.save("a.yaml", &text.into_iter().collect::<String>());
        world.sources.specs.insert("junk.yaml".into(), junk.clone());
        world.sources.models.insert("junk".into(), junk.clone());
        world.sources.flags = Some(junk.clone());
        world.sources.catalog = Some(junk);
        let snapshot = world.load().snapshot;
        prop_assert!(snapshot.pipelines.contains_key(&name("good")));
        for report in &snapshot.files {
            prop_assert_eq!(report.valid, !report.diagnostics.iter().any(Diagnostic::is_error), "{:?}", report);
        }
        let serving = snapshot.pipelines.values().filter(|loaded| loaded.file == "a.yaml").count();
        prop_assert_eq!(serving, 1);
    }
}

/// What a model definition sets is told where a target names it; a file that would refuse every job does not serve.
#[test]
fn what_a_model_does_not_take_is_told_before_any_job() {
    let text = "version: 1\nname: one\ntargets:\n  first: { use: chatty }\nroute: [{ to: first }]\n";
    let mut world = World::new(&[("one.yaml", text)]);
    let definition = |parameters: &str| {
        format!(
            r#"{{"name": "us.amazon.nova-micro-v1:0", "provider": "bedrock", "parameters": {{"max_gen_len": 9, {parameters}}}}}"#
        )
        .into_bytes()
    };
    world.sources.models.insert("chatty".to_owned(), definition(r#""seed": 1"#));
    let loaded = world.load().snapshot;
    let found = said(&loaded, "one.yaml");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].code.as_str(), found[0].position.unwrap().line), ("inexact-parameter", 4));
    assert!(found[0].source_line.as_ref().unwrap().contains("use: chatty"));
    assert_eq!(serving(&loaded), ["one one.yaml us.amazon.nova-micro-v1:0"]);

    let mut world = World::new(&[("one.yaml", text)]);
    world.sources.models.insert("chatty".to_owned(), definition(r#""n": 2"#));
    let loaded = world.load().snapshot;
    assert_eq!(codes(&loaded, "one.yaml"), ["refused-parameter"]);
    assert_eq!(serving(&loaded), [""; 0]);
}
