//! The policy: what violates it does not serve, whoever saves it, unless an operator says so.

use super::*;

const POLICY: &str = "\
version: 1
max_increase_percent: 10
required_labels: [team]
forbidden_models: [\"gpt-3.5-*\"]
rules:
  - name: eu stays
    when: { pipelines: [\"eu-*\"] }
    regions: [\"eu-*\"]
    confine: true
";

fn moving(percent: &str, more: &str) -> String {
    format!(
        "version: 1\nname: a\nlabels: {{ team: x }}\ntargets:\n  first: {{ provider: openai, model: m1 }}\n  \
         second: {{ provider: bedrock, model: us.amazon.nova-micro-v1:0, defaults: {{ max_tokens: 100 }} }}\n\
         route:\n  - rollout: move\nrollouts:\n  move: {{ baseline: first, candidate: second, percent: {percent} }}\n{more}"
    )
}

fn straight(to: &str) -> String {
    moving("0", "")
        .replace("  - rollout: move\n", &format!("  - to: {to}\n"))
        .split("rollouts:")
        .next()
        .unwrap()
        .to_owned()
}

fn world(spec: &str) -> World {
    let mut world = World::new(&[("a.yaml", spec)]);
    world.sources.policy = Some(POLICY.as_bytes().to_vec());
    world
}

fn percent(loaded: &Loaded) -> String {
    loaded.snapshot.pipelines[&name("a")]
        .pipeline
        .rollouts
        .first()
        .map_or("none".to_owned(), |it| it.course.to_string())
}

#[test]
fn a_rollout_gains_no_more_than_the_policy_allows_in_one_save() {
    let mut world = world(&moving("5", ""));
    assert_eq!(percent(&world.load()), "5 %", "what nobody served before is no increase");
    for (saved, serves, valid) in
        [("15", "15 %", true), ("25.01", "15 %", false), ("25", "25 %", true), ("3", "3 %", true)]
    {
        let loaded = world.save("a.yaml", &moving(saved, "")).load();
        assert_eq!((percent(&loaded).as_str(), report(&loaded.snapshot, "a.yaml").valid), (serves, valid), "{saved}");
    }
    let loaded = world.save("a.yaml", &moving("50", "")).load();
    let found = said(&loaded.snapshot, "a.yaml");
    let text = found[0].to_string();
    assert!(text.contains("error[policy]") && text.contains("a.yaml:10:56") && text.contains("^^"), "{text}");
    assert!(
        text.contains("from 3 % to 50 %") && text.contains("at most 13 %") && text.contains("--override"),
        "{text}"
    );
    // Over a restart, too.
    assert_eq!(percent(&world.restart().load()), "3 %");
    // By another name, or straight to the candidate: the same step.
    let renamed = moving("50", "").replace("move", "other");
    assert_eq!(percent(&world.save("a.yaml", &renamed).load()), "3 %");
    let loaded = world.save("a.yaml", &straight("second")).load();
    assert_eq!(percent(&loaded), "3 %");
    let found = said(&loaded.snapshot, "a.yaml");
    assert!(found.iter().any(|problem| problem.code == "policy" && problem.message.contains("to 100%")), "{found:?}");
    // Back to the baseline is no increase; coming from everybody on the candidate, neither.
    assert_eq!(percent(&world.save("a.yaml", &straight("first")).load()), "none");
}

#[test]
fn labels_models_regions_and_confinement() {
    let good = moving("5", "");
    for (spec, expected) in [
        (good.replace("labels: { team: x }\n", ""), "the label `team` is missing"),
        (good.replace("model: m1", "model: gpt-3.5-turbo"), "gpt-3.5-turbo is forbidden"),
        (good.replace("name: a", "name: eu-a"), "does not keep its data in eu-*"),
        (good.replace("name: a", "name: eu-a"), "must `confine` its jobs"),
    ] {
        let loaded = world(&spec).load();
        assert!(loaded.snapshot.pipelines.is_empty(), "a cold start serves nothing that violates the policy");
        let found: Vec<String> = said(&loaded.snapshot, "a.yaml").iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|text| text.contains(expected) && text.contains("a.yaml:")), "{expected}: {found:#?}");
    }
    assert_eq!(world(&good).load().snapshot.pipelines.len(), 1);
}

#[test]
fn a_broken_policy_keeps_its_last_good_version_and_a_new_one_takes_nothing_away() {
    let mut world = world(&moving("5", ""));
    world.load();
    world.sources.policy = Some(b"version: 1\nmax_increase: 90\n".to_vec());
    let loaded = world.save("a.yaml", &moving("50", "")).load();
    assert!(!report(&loaded.snapshot, "policy.yaml").valid && percent(&loaded) == "5 %");
    assert_eq!(percent(&world.restart().load()), "5 %");
    // A policy that what serves violates already: it goes on serving, and is told.
    world.sources.policy = Some(b"version: 1\nrequired_labels: [owner]\n".to_vec());
    let loaded = world.save("a.yaml", &moving("5", "")).load();
    assert!(loaded.snapshot.pipelines[&name("a")].stale && codes(&loaded.snapshot, "a.yaml") == ["policy"]);
    // Without a policy, nothing is asked.
    world.sources.policy = None;
    assert_eq!(percent(&world.save("a.yaml", &moving("100", "")).load()), "100 %");
}

#[test]
fn an_override_holds_for_exactly_these_bytes() {
    let mut world = world(&moving("5", ""));
    world.load();
    world.sources.policy = Some(b"version: 1\nmax_increase_percent: 10\nforbidden_models: [m1]\n".to_vec());
    world.save("a.yaml", &moving("5", "description: x\n"));
    assert!(world.load().snapshot.pipelines[&name("a")].stale);
    world.override_policy = true;
    let loaded = world.load();
    assert_eq!(loaded.overridden.len(), 1);
    assert_eq!(codes(&loaded.snapshot, "a.yaml"), ["policy-overridden"]);
    world.override_policy = false;
    for _ in 0..2 {
        let loaded = world.load();
        assert!(!loaded.snapshot.pipelines[&name("a")].stale && loaded.overridden.is_empty());
        world.restart();
    }
    let loaded = world.save("a.yaml", &moving("5", "description: y\n")).load();
    assert_eq!(codes(&loaded.snapshot, "a.yaml"), ["policy"]);
}
