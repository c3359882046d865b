//! Specs from text to pipeline, or to every problem they have.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::spec::{Api, Flag, FlagSet, ProviderFacts};

fn providers() -> Providers {
    let facts = |api| ProviderFacts { api, family: None, region: "us-east-1".parse().ok(), data_regions: Vec::new() };
    [("openai", Api::OpenAi), ("bedrock", Api::Bedrock)]
        .map(|(name, api)| (name.parse().unwrap(), facts(api)))
        .into_iter()
        .collect()
}

fn read_text(text: &[u8]) -> Read {
    let (providers, models, catalog) = (providers(), BTreeMap::new(), Catalog::from_models(Vec::new()));
    let context = Context {
        providers: &providers,
        models: &models,
        catalog: &catalog,
        today: jiff::civil::Date::constant(2026, 11, 22),
    };
    read("spec.yaml", text, &context)
}

const VALID: &str = include_str!("../../../tests/fixtures/specs/good/every-key.yaml");

fn forced(provider: &str, value: bool) -> FlagSet {
    FlagSet([(Flag::Force(provider.parse().unwrap()), value)].into_iter().collect())
}

#[test]
fn a_kill_switch_gets_out_of_a_broken_file() {
    let broken = [
        // Valid YAML, broken spec.
        "version: 9\nflags: { FORCE_OPENAI_PROVIDER: true }\ntargets: 7\n",
        // Broken YAML elsewhere.
        "name: x\ntargets: {\nflags:\n  FORCE_OPENAI_PROVIDER: true   # now\nroute: [\n",
        "name: x\r\nroute: \"\r\nflags: { FORCE_OPENAI_PROVIDER: true }\r\n",
        "\u{feff}flags:\n\n  # a comment\n  FORCE_OPENAI_PROVIDER: true\n?: [",
        // Broken inside the flags, too.
        "name: x\nflags:\n  FORCE_OPENAI_PROVIDER: true\n  PAUSE: {\n  FORCE_NOBODY_PROVIDER: true\n",
        "flags:\n  FORCE_OPENAI_PROVIDER: true\n  DISABLE_FALLBACK: maybe\n",
    ];
    for text in broken {
        assert!(read_text(text.as_bytes()).pipeline.is_none(), "{text}");
        assert_eq!(salvage_flags("x.yaml", text.as_bytes(), &providers()), Some(forced("openai", true)), "{text}");
    }
    let half = [b"name: x\nflags:\n  FORCE_OPENAI_PROVIDER: true\n  x: \"".as_slice(), b"\xff\xfe"].concat();
    assert_eq!(salvage_flags("x.yaml", &half, &providers()), Some(forced("openai", true)));
}

#[test]
fn only_flags_that_are_unmistakable_are_salvaged() {
    for text in [
        "name: x\ntargets: {\n",
        "name: x\nflags: 7\n",
        "description: |\n  flags: { FORCE_OPENAI_PROVIDER: true }\nroute: [\n",
        "job:\n  flags:\n    FORCE_OPENAI_PROVIDER: true\nroute: [\n",
        "flags:\n  FORCE_OPENAI_PROVIDER: tru\n  x: {\n",
        "flags2: { FORCE_OPENAI_PROVIDER: true }\nroute: [\n",
    ] {
        assert_eq!(salvage_flags("x.yaml", text.as_bytes(), &providers()), None, "{text}");
    }
    let off = "name: x\nroute: [\nflags: { FORCE_OPENAI_PROVIDER: false }\n";
    assert_eq!(salvage_flags("x.yaml", off.as_bytes(), &providers()), Some(forced("openai", false)));
}

#[test]
fn a_broken_file_still_has_its_name() {
    for text in [
        "name: ticket-triage\ntargets: {\n",
        "version: 1\nname: \"ticket-triage\" # mine\n",
        "a: [\nname: ticket-triage",
    ] {
        let name = salvage_name("x.yaml", text.as_bytes()).map(|name| name.to_string());
        assert_eq!(name.as_deref(), Some("ticket-triage"), "{text}");
    }
    for text in ["", "targets: {\n", "name: Ticket Triage\n", "name: [\n", "metadata:\n  name: x\n["] {
        assert_eq!(salvage_name("x.yaml", text.as_bytes()), None, "{text}");
    }
}

#[test]
fn a_file_of_faults_is_listed_up_to_a_bound() {
    let unknown: String = (0..5_000).map(|n| ["key-", n.to_string().as_str(), ": 1\n"].concat()).collect();
    let read = read_text(unknown.as_bytes());
    assert_eq!(read.diagnostics.len(), 201);
    assert_eq!(read.diagnostics.last().unwrap().code, "too-many-problems");
}

/// Whatever comes in: no panic, no pipeline with errors, no error without advice.
fn is_sound(text: &[u8]) {
    let read = read_text(text);
    assert_eq!(read.pipeline.is_none(), read.diagnostics.iter().any(Diagnostic::is_error));
    for diagnostic in &read.diagnostics {
        assert!(diagnostic.help.is_some(), "{diagnostic}");
        if let Some(at) = diagnostic.position {
            assert!(at.line >= 1 && at.column >= 1 && at.length >= 1);
        }
    }
    salvage_flags("spec.yaml", text, &providers());
    salvage_name("spec.yaml", text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_judged(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        is_sound(&text);
    }

    #[test]
    fn a_truncated_spec_is_judged(end in 0..VALID.len()) {
        is_sound(&VALID.as_bytes()[..end]);
    }

    #[test]
    fn a_mutated_spec_is_judged(
        edits in proptest::collection::vec((0..VALID.len(), 0_usize..4, "[-:{}\\[\\],&*!|>'\"%@#?~ a0\n\t]{0,3}"), 1..4)
    ) {
        let mut text = VALID.as_bytes().to_vec();
        for (at, cut, new) in edits {
            let at = at.min(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, new.bytes());
        }
        is_sound(&text);
    }

    #[test]
    fn a_spec_without_some_lines_is_judged(from in 0_usize..100, count in 1_usize..20) {
        let kept: Vec<&str> =
            VALID.lines().enumerate().filter(|(n, _)| !(from..from + count).contains(n)).map(|(_, line)| line).collect();
        is_sound(kept.join("\n").as_bytes());
    }
}
