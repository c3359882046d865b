//! The built-in facts, finding, costs, and an operator's file.

use super::*;

const HAIKU: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";

fn usage(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Usage {
    Usage { input, output, cache_read, cache_write, reasoning: 0 }
}

#[test]
fn the_built_in_file_is_whole() {
    let (catalog, diagnostics) = read::read("builtin.yaml", BUILTIN.as_bytes(), &Catalog::default());
    assert!(diagnostics.is_empty(), "{}", diagnostics[0]);
    let catalog = catalog.unwrap();
    assert_eq!(catalog.models().iter().filter(|model| model.api == Api::OpenAi).count(), 27);
    assert_eq!(catalog.models().iter().filter(|model| model.api == Api::Bedrock).count(), 43);
    for model in catalog.models() {
        let id = &model.id;
        assert!(model.max_output_tokens.is_none_or(|most| model.default_max_tokens <= most), "{id}");
        assert!(
            model.context_window.is_none_or(|window| model.max_output_tokens.is_none_or(|most| most <= window)),
            "{id}"
        );
        assert!(
            model.max_input_tokens.is_none_or(|most| model.context_window.is_some_and(|window| most < window)),
            "{id}"
        );
        assert!(!model.needs_profile || !model.profiles.is_empty(), "{id}");
        assert_eq!(model.capabilities.sampling == Sampling::Refused, model.refuses("temperature"), "{id}");
        // Whoever is told to use something else finds it, alive.
        for name in model.substitutes.iter().chain(&model.replacement) {
            let found = catalog.find(Api::OpenAi, name).unwrap_or_else(|| panic!("{id}: {name}"));
            assert_eq!(found.lifecycle, Lifecycle::Active, "{id}: {name}");
            assert!(!found.needs_profile || id::bedrock_id(name).geography.is_some(), "{id}: {name} needs a profile");
        }
        if model.lifecycle == Lifecycle::Active {
            let prices = model.prices.unwrap_or_else(|| panic!("{id} has no price"));
            assert!(prices.long.is_none_or(|long| long.input > prices.input && long.output >= prices.output), "{id}");
            assert!(model.context_window.is_some() && model.max_output_tokens.is_some(), "{id}");
        } else {
            assert!(!catalog.substitutes(model.api, id).is_empty(), "{id} ends and nothing is said to be next");
        }
    }
}

#[test]
fn models_are_found_by_all_their_names() {
    let catalog = Catalog::builtin();
    for (api, name, id) in [
        (Api::OpenAi, "gpt-4o", Some("gpt-4o")),
        (Api::OpenAi, "gpt-4o-2024-08-06", Some("gpt-4o")),
        (Api::OpenAi, "gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
        (Api::OpenAi, "us.openai.gpt-6-luna", Some("openai.gpt-6-luna")),
        (Api::OpenAi, "ft:gpt-4o-mini-2024-07-18:acme::abc", None),
        (Api::OpenAi, "gpt-99", None),
        (Api::Bedrock, HAIKU, Some(HAIKU)),
        (Api::Bedrock, "us.anthropic.claude-haiku-4-5-20251001-v1:0", Some(HAIKU)),
        (Api::Bedrock, "global.anthropic.claude-haiku-4-5-20251001-v1:0", Some(HAIKU)),
        (
            Api::Bedrock,
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0",
            Some(HAIKU),
        ),
        (Api::Bedrock, "amazon.nova-pro-v1:0:24k", Some("amazon.nova-pro-v1:0")),
        (Api::Bedrock, "gpt-4o", None),
        (Api::Bedrock, "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", None),
        (Api::Bedrock, "", None),
    ] {
        assert_eq!(catalog.find(api, name).map(|model| model.id.as_str()), id, "{name}");
    }
    assert_eq!(
        catalog.substitutes(Api::OpenAi, "gpt-4o"),
        ["gpt-6-luna", "us.openai.gpt-6-luna", "us.anthropic.claude-sonnet-4-6"]
    );
    assert!(catalog.substitutes(Api::OpenAi, "unheard-of").is_empty());
}

#[test]
fn every_term_of_a_price_counts() {
    let catalog = Catalog::builtin();
    for (api, model, usage, multiplier, dollars) in [
        (Api::OpenAi, "gpt-4o-mini", usage(1_000, 100, 0, 0), "1", "0.00021"),
        // 1,000 × 2.50 + 100 × 10 + 4,000 × 1.25 a million.
        (Api::OpenAi, "gpt-4o", usage(1_000, 100, 4_000, 0), "1", "0.0085"),
        // No price for writes: they cost what the prompt costs.
        (Api::OpenAi, "gpt-4o", usage(0, 0, 0, 1_000), "1", "0.0025"),
        // At the threshold the usual price, above it all of the request is dearer, cached tokens counted.
        (Api::OpenAi, "gpt-6-sol", usage(272_000, 1_000, 0, 0), "1", "0.554"),
        (Api::OpenAi, "gpt-6-sol", usage(272_001, 1_000, 0, 0), "1", "1.103004"),
        (Api::OpenAi, "gpt-6-sol", usage(1, 0, 272_000, 0), "1", "0.108804"),
        (Api::OpenAi, "gpt-6-sol", usage(0, 0, 0, 300_000), "1", "1.5"),
        // The global profile is cheaper than a geographic one.
        (Api::Bedrock, "us.anthropic.claude-haiku-4-5-20251001-v1:0", usage(1_000_000, 0, 0, 0), "1", "1.1"),
        (Api::Bedrock, "global.anthropic.claude-haiku-4-5-20251001-v1:0", usage(1_000_000, 0, 0, 0), "1", "1"),
        (Api::Bedrock, "us.anthropic.claude-haiku-4-5-20251001-v1:0", usage(1_000_000, 0, 0, 0), "0.88", "0.968"),
        (Api::OpenAi, "global.openai.gpt-6-luna", usage(1_000_000, 0, 0, 0), "1", "0.2"),
        (Api::Bedrock, "amazon.nova-micro-v1:0", usage(3, 1, 1, 0), "1", "0.00000025375"),
        (Api::OpenAi, "gpt-4o", usage(0, 0, 0, 0), "1", "0"),
    ] {
        let cost = catalog.cost(api, model, &usage, Tier::Standard, multiplier.parse().unwrap()).unwrap();
        assert_eq!(cost.to_string(), dollars, "{model} {usage:?}");
    }
    let standard = Tier::Standard;
    assert_eq!(catalog.cost(Api::OpenAi, "unheard-of", &usage(1, 1, 0, 0), standard, Decimal::ONE), None);
    assert!(catalog.cost(Api::OpenAi, "gpt-4o", &usage(u64::MAX, u64::MAX, 0, 0), standard, Decimal::MAX).is_some());
    // Reasoning is part of the output, and billed once.
    let thought = Usage { input: 0, output: 1_000, reasoning: 900, ..Usage::default() };
    let cost = catalog.cost(Api::OpenAi, "gpt-6-sol", &thought, standard, Decimal::ONE).unwrap();
    assert_eq!(cost.to_string(), "0.01");
}

#[test]
fn a_tier_costs_what_is_known_of_it_or_nothing_is_said() {
    let catalog = Catalog::builtin();
    let haiku = "us.anthropic.claude-haiku-4-5-20251001-v1:0";
    for (api, model, usage, tier, dollars) in [
        (Api::OpenAi, "gpt-5.4-mini", usage(1_000_000, 0, 0, 0), "default", Some("0.75")),
        (Api::OpenAi, "gpt-5.4-mini", usage(1_000_000, 100, 0, 0), "flex", Some("0.375225")),
        (Api::OpenAi, "gpt-5.4-mini", usage(1_000_000, 0, 0, 0), "priority", Some("1.5")),
        // Nobody says what cached tokens or long prompts cost there.
        (Api::OpenAi, "gpt-5.4-mini", usage(1_000, 0, 1, 0), "flex", None),
        (Api::OpenAi, "gpt-6-sol", usage(1_000, 0, 0, 1), "flex", None),
        (Api::OpenAi, "gpt-6-sol", usage(272_001, 0, 0, 0), "priority", None),
        (Api::OpenAi, "gpt-5.4-mini", usage(1, 1, 0, 0), "scale", None),
        (Api::OpenAi, "gpt-4o", usage(1, 1, 0, 0), "flex", None),
        (Api::Bedrock, "deepseek.v3.2", usage(1_000_000, 0, 0, 0), "flex", Some("0.31")),
        (Api::Bedrock, "global.amazon.nova-2-lite-v1:0", usage(1_000_000, 0, 0, 0), "priority", Some("0.525")),
        (Api::Bedrock, "global.amazon.nova-2-lite-v1:0", usage(1, 0, 0, 0), "flex", None),
        (Api::Bedrock, haiku, usage(1, 0, 0, 0), "reserved", None),
        (Api::Bedrock, haiku, usage(1_000_000, 0, 0, 0), "auto", Some("1.1")),
    ] {
        let cost = catalog.cost(api, model, &usage, Tier::named(tier), Decimal::ONE);
        assert_eq!(cost.map(|cost| cost.to_string()).as_deref(), dollars, "{model} {tier} {usage:?}");
    }
    let known =
        catalog.overlaid("c", b"openai: { gpt-5.4-mini: { prices: { flex: { cache_read: 0.04 } } } }").0.unwrap();
    let cached = known.cost(Api::OpenAi, "gpt-5.4-mini", &usage(0, 0, 1_000_000, 0), Tier::Flex, Decimal::ONE);
    assert_eq!(cached.unwrap().to_string(), "0.04");
}

#[test]
fn what_a_call_may_cost_is_no_less_than_what_it_does() {
    let catalog = Catalog::builtin();
    let (prompt, output) = (300_000, 4_000);
    for model in catalog.models() {
        for tier in [Tier::Standard, Tier::Flex, Tier::Priority] {
            let most = catalog.cost_at_most(model.api, &model.id, (prompt, output), tier, Decimal::TWO);
            for used in [usage(prompt, output, 0, 0), usage(0, output, prompt, 0), usage(0, 9, 1, prompt - 1)] {
                let cost = catalog.cost(model.api, &model.id, &used, tier, Decimal::TWO);
                assert!(
                    cost.is_none_or(|cost| most.is_some_and(|most| cost <= most)),
                    "{} {tier:?} {used:?}",
                    model.id
                );
            }
        }
    }
    assert_eq!(catalog.cost_at_most(Api::OpenAi, "unheard-of", (1, 1), Tier::Standard, Decimal::ONE), None);
}

#[test]
fn an_operators_file_is_laid_over_field_by_field() {
    let file = "\
openai:
  gpt-4o: { prices: { input: 2 } }
  house-model: { context_window: 8000, prices: { input: 0.5, output: 1 }, lifecycle: { ends: 2027-05-01 } }
bedrock:
  us.anthropic.claude-haiku-5-5: { burndown: 5, refuses: [], lifecycle: ended, substitutes: [gpt-6-luna] }
";
    let builtin = Catalog::builtin();
    let (catalog, diagnostics) = builtin.overlaid("config/catalog.yaml", file.as_bytes());
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let catalog = catalog.unwrap();
    assert_eq!(catalog.models().len(), builtin.models().len() + 1);
    let gpt = catalog.find(Api::OpenAi, "gpt-4o").unwrap();
    let old = builtin.find(Api::OpenAi, "gpt-4o").unwrap().prices.unwrap();
    assert_eq!(gpt.prices.unwrap(), Prices { input: Decimal::TWO, ..old });
    let house = catalog.find(Api::OpenAi, "house-model").unwrap();
    assert_eq!(house.lifecycle, Lifecycle::EndsOn("2027-05-01".parse().unwrap()));
    assert!(house.has_ended("2027-05-01".parse().unwrap()) && !house.has_ended("2027-04-30".parse().unwrap()));
    let haiku = catalog.find(Api::Bedrock, "eu.anthropic.claude-haiku-5-5").unwrap();
    assert_eq!((haiku.burndown, haiku.refuses.len(), haiku.lifecycle), (5, 0, Lifecycle::Ended(None)));
    assert_eq!(haiku.context_window, Some(1_000_000));
    assert_eq!(builtin.overlaid("c", b"").0.unwrap().models(), builtin.models());
}

#[test]
fn a_faulty_file_says_everything_and_changes_nothing() {
    let file = "\
version: 2
openai:
  gpt-4o:
    context_windw: 5
    prices: { input: -1 }
    max_output_tokens: many
    lifecycle: { ends: soon }
    tokenizer: o300k
    refuses_together: [[temperature]]
  new: { prices: { input: 1 } }
  'a b': {}
bedrok: {}
";
    let (catalog, diagnostics) = Catalog::builtin().overlaid("config/catalog.yaml", file.as_bytes());
    assert!(catalog.is_none());
    let found: Vec<_> = diagnostics.iter().map(|found| (found.position.unwrap().line, found.code.as_str())).collect();
    assert_eq!(
        found,
        [
            (1, "out-of-range"),
            (4, "unknown-key"),
            (5, "out-of-range"),
            (6, "wrong-type"),
            (7, "bad-date"),
            (8, "unknown-value"),
            (9, "wrong-length"),
            (10, "missing-key"),
            (11, "bad-model-id"),
            (12, "unknown-key"),
        ],
        "{diagnostics:#?}"
    );
    assert!(diagnostics.iter().all(|found| found.help.is_some()));
    for hostile in [&b"\xff\xfe"[..], b"[", b"openai: 5", b"openai: { gpt-4o: 5 }", b"- 1"] {
        let (catalog, diagnostics) = Catalog::builtin().overlaid("config/catalog.yaml", hostile);
        assert!(catalog.is_none() && !diagnostics.is_empty());
    }
}
