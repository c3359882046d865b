//! Settings through the front door: files, environments and options in, settings or findings out.

mod refused;
mod variables;

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::diagnostic::Diagnostic;

const SMALLEST: &str = "providers: { openai: { api: openai } }\n";

const FULL: &str = r#"
listen: 127.0.0.1:4200
ops_listen: 0.0.0.0:4201
pipelines: specs
models: models
store: sqlite:elsewhere/jobs.db
providers:
  openai:  { api: openai, base_url: "https://api.openai.com/v1/", api_key: { env: OPENAI_API_KEY }, organization: org-1, project: proj-1 }
  bedrock: { api: bedrock, region: us-east-1, profile: work, role_arn: "arn:aws:iam::123456789012:role/landbridge" }
  bedrock-eu: { api: bedrock, region: eu-central-1, family: bedrock, endpoint_url: "http://127.0.0.1:9000" }
  local: { api: openai, base_url: "http://[::1]:8080", api_key: { file: /run/secrets/key }, data_regions: [eu-west-1] }
  native: { api: openai, auth: aws, base_url: "https://bedrock-mantle.us-west-2.api.aws/openai/v1", profile: work }
  keyed: { api: openai, base_url: "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", api_key: { env: KEY } }
quotas:
  - { provider: openai, model: gpt-5.4-mini, requests_per_minute: 5000, tokens_per_minute: 2000000 }
  - { provider: bedrock, model: "us.anthropic.claude-haiku-*", region: us-east-1, tokens_per_minute: 5000000, share: 60%, pool: true }
  - { provider: local, model: "*", concurrency: 8, share: 0.25 }
prices: { bedrock: { multiplier: 0.88 } }
lease: 10s
drain: 0s
retention: { ledger: 30d }
watch: { mode: poll, quiet: 200ms, rescan: 1m, apply: all, allow_empty: true }
media: { allow: ["https://images.example.com", "*.example.org"], max_bytes: 2MB, timeout: 3s, private: true }
callbacks: { secret: [{ env: NEW }, { file: /run/old }], allow: ["https://hooks.example.com", 10.0.0.0/8], timeout: 7s }
"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Vec<Diagnostic>> {
    Settings::read(Path::new("config/landbridge.yaml"), text.as_bytes(), &environment(variables), &[])
}

fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// `line:column code: message (help)` of each finding.
fn brief(found: &[Diagnostic]) -> Vec<String> {
    let place = |found: &Diagnostic| match found.position {
        Some(at) => format!("{}:{}", at.line, at.column),
        None => found.file.clone(),
    };
    found
        .iter()
        .map(|found| {
            format!(
                "{} {}: {} ({})",
                place(found),
                found.code,
                found.message,
                found.help.as_deref().unwrap_or("no advice")
            )
        })
        .collect()
}

fn name(text: &str) -> ProviderName {
    text.parse().unwrap()
}

#[test]
fn every_key_is_read() {
    let Loaded { settings, warnings } = read(FULL, &[]).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(warnings, []);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:4200");
    assert_eq!(settings.ops_listen.map(|address| address.to_string()).as_deref(), Some("0.0.0.0:4201"));
    assert_eq!((settings.pipelines.to_str(), settings.models.to_str()), (Some("specs"), Some("models")));
    assert_eq!(settings.flags_file.to_str(), Some("config/flags.yaml"));
    assert_eq!(settings.catalog_file.to_str(), Some("config/catalog.yaml"));
    assert_eq!(settings.store, StoreSetting::Sqlite("elsewhere/jobs.db".into()));
    let openai = &settings.providers[&name("openai")];
    assert_eq!(
        openai.api,
        ApiSettings::OpenAi {
            base_url: "https://api.openai.com/v1".into(),
            api_key: Some(Secret::Env("OPENAI_API_KEY".into())),
            organization: Some("org-1".into()),
            project: Some("proj-1".into()),
            region: None,
            aws: None,
        }
    );
    let ApiSettings::OpenAi { region, aws: Some(aws), .. } = &settings.providers[&name("native")].api else { panic!() };
    assert_eq!((region.as_ref().map(Region::as_str), aws.service), (Some("us-west-2"), "bedrock-mantle"));
    assert_eq!((aws.profile.as_deref(), aws.anonymous), (Some("work"), false));
    let ApiSettings::OpenAi { region, aws: None, .. } = &settings.providers[&name("keyed")].api else { panic!() };
    assert_eq!(region.as_ref().map(Region::as_str), Some("eu-west-1"));
    let facts = settings.provider_facts();
    assert_eq!(facts[&name("native")].region.as_ref().map(Region::as_str), Some("us-west-2"));
    let media = &settings.media;
    assert_eq!((media.allow.len(), media.max_bytes, media.private), (2, 2_000_000, true));
    assert_eq!(media.timeout, Duration::from_secs(3));
    let callbacks = settings.callbacks.as_ref().unwrap();
    assert_eq!(callbacks.secrets, [Secret::Env("NEW".to_owned()), Secret::File("/run/old".into())]);
    assert_eq!((callbacks.allow.len(), callbacks.timeout), (2, Duration::from_secs(7)));
    let eu = &settings.providers[&name("bedrock-eu")];
    assert_eq!(eu.family, Some(name("bedrock")));
    let ApiSettings::Bedrock { region, endpoint_url, .. } = &eu.api else { panic!("{eu:?}") };
    assert_eq!(region.as_ref().map(Region::as_str), Some("eu-central-1"));
    assert_eq!(endpoint_url.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(settings.providers[&name("local")].data_regions, ["eu-west-1".parse().unwrap()]);
    let shares: Vec<String> = settings.quotas.iter().map(|quota| quota.share.to_string()).collect();
    assert_eq!(shares, ["1", "0.6", "0.25"]);
    assert_eq!(settings.quotas[1].region.as_ref().map(Region::as_str), Some("us-east-1"));
    assert_eq!((settings.quotas[1].pool, settings.quotas[2].concurrency), (true, Some(8)));
    assert_eq!(settings.prices[&name("bedrock")].multiplier.to_string(), "0.88");
    assert_eq!((settings.lease, settings.drain), (Duration::from_secs(10), Duration::ZERO));
    assert_eq!(settings.retention.ledger, Duration::from_hours(30 * 24));
    assert_eq!(settings.retention.audit, Duration::from_hours(400 * 24));
    let watch = settings.watch;
    assert_eq!((watch.mode, watch.apply, watch.allow_empty), (WatchMode::Poll, ApplyMode::All, true));
    assert_eq!((watch.quiet, watch.rescan), (Duration::from_millis(200), Duration::from_mins(1)));
}

#[test]
fn simulation_takes_every_kind_of_provider() {
    let Loaded { mut settings, .. } = read(FULL, &[]).unwrap_or_else(|found| panic!("{}", shown(&found)));
    settings.point_at("http://127.0.0.1:1/v1", "http://127.0.0.1:1");
    for (provider, address) in [
        ("openai", "http://127.0.0.1:1/v1"),
        ("local", "http://127.0.0.1:1/v1"),
        ("native", "http://127.0.0.1:1/openai/v1"),
        ("keyed", "http://127.0.0.1:1/openai/v1"),
    ] {
        let ApiSettings::OpenAi { base_url, api_key, aws, .. } = &settings.providers[&name(provider)].api else {
            panic!()
        };
        assert_eq!((base_url.as_str(), api_key), (address, &None), "{provider}");
        let own = |aws: &AwsAuth| !aws.anonymous || aws.profile.is_some() || aws.role_arn.is_some();
        assert!(!aws.as_ref().is_some_and(own), "{provider}: no credentials of one's own go to a simulation");
    }
    for provider in ["bedrock", "bedrock-eu"] {
        let ApiSettings::Bedrock { endpoint_url, anonymous, .. } = &settings.providers[&name(provider)].api else {
            panic!()
        };
        assert_eq!((endpoint_url.as_deref(), *anonymous), (Some("http://127.0.0.1:1"), true), "{provider}");
    }
    // Where data may go stays what it is.
    assert_eq!(settings.provider_facts()[&name("native")].region.as_ref().map(Region::as_str), Some("us-west-2"));
}

#[test]
fn what_is_left_out_has_a_default() {
    let Loaded { settings, warnings } = read(SMALLEST, &[]).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(warnings, []);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:4100");
    assert_eq!(settings.ops_listen, None);
    assert_eq!((settings.pipelines.to_str(), settings.models.to_str()), (Some("pipelines"), Some("config/models")));
    assert_eq!(settings.store, StoreSetting::Sqlite("data/landbridge.db".into()));
    assert_eq!((settings.lease, settings.drain), (Duration::from_secs(30), Duration::from_mins(1)));
    assert_eq!(settings.watch, WatchSettings::default());
    assert_eq!((settings.quotas.len(), settings.prices.len()), (0, 0));
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let load = |path: &Path| Settings::load(path, &Environment::new(), &[]);
    let found = load(&dir.path().join("none.yaml")).unwrap_err();
    assert!(found[0].help.as_deref().unwrap().contains("landbridge init"));
    assert_eq!(load(dir.path()).unwrap_err()[0].code, "unreadable");
    let path = dir.path().join("landbridge.yaml");
    std::fs::write(&path, SMALLEST).unwrap();
    assert_eq!(load(&path).unwrap().settings.flags_file, dir.path().join("flags.yaml"));
}

#[test]
fn a_change_is_hot_or_needs_a_restart() {
    let base = read(SMALLEST, &[]).unwrap().settings;
    assert!(diff(&base, &base).is_empty());
    for (lines, hot, restart) in [
        ("listen: 127.0.0.1:1", None, Some("listen")),
        ("ops_listen: 127.0.0.1:1", None, Some("ops_listen")),
        ("pipelines: p", None, Some("pipelines")),
        ("models: m", None, Some("models")),
        ("store: 'memory:'", None, Some("store")),
        ("quotas: [{ provider: openai, model: m, concurrency: 1 }]", Some("quotas"), None),
        ("prices: { openai: { multiplier: 0.5 } }", Some("prices"), None),
        ("lease: 5s", None, Some("lease")),
        ("drain: 5s", Some("drain"), None),
        ("retention: { audit: 5d }", Some("retention"), None),
        ("keys: [{ name: k, scopes: [read], hash: { env: K } }]", Some("keys"), None),
        ("live: { deadline: 5s }", Some("live"), None),
        ("batches: { max_requests: 5 }", Some("batches"), None),
        ("tls: { cert: c, key: k }", None, Some("tls")),
        ("watch: { mode: poll }", None, Some("watch.mode")),
        ("watch: { quiet: 1s }", None, Some("watch.quiet")),
        ("watch: { rescan: 1s }", None, Some("watch.rescan")),
        ("watch: { apply: all }", Some("watch.apply"), None),
        ("watch: { allow_empty: true }", Some("watch.allow_empty"), None),
    ] {
        let new = read(&format!("{SMALLEST}{lines}\n"), &[]).unwrap().settings;
        let found = diff(&base, &new);
        assert_eq!((found.hot.first().copied(), found.restart.first().copied()), (hot, restart), "{lines}");
        assert_eq!(found.hot.len() + found.restart.len(), 1, "{lines}");
        let taken_over = base.with_hot_parts_of(&new);
        assert_eq!(diff(&taken_over, &new), SettingsDiff { hot: vec![], restart: found.restart }, "{lines}");
    }
    let other = read("providers: { openai: { api: openai, project: p } }", &[]).unwrap().settings;
    assert_eq!(diff(&base, &other).restart, ["providers"]);
}

proptest! {
    #[test]
    fn no_bytes_and_no_variables_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        tail in ".{0,60}",
        rest in "[A-Z_]{0,30}",
        value in ".{0,60}",
    ) {
        let path = Path::new("landbridge.yaml");
        let variables = environment(&[(&format!("LANDBRIDGE_{rest}"), &value), ("LANDBRIDGE_STORE", &value)]);
        let _ = Settings::read(path, &bytes, &variables, &[]);
        let _ = Settings::read(path, format!("{FULL}{tail}").as_bytes(), &variables, &[]);
    }

    #[test]
    fn two_providers_never_shout_alike(one in "[a-z0-9][a-z0-9-]{0,6}", other in "[a-z0-9][a-z0-9-]{0,6}") {
        prop_assert_eq!(one == other, name(&one).shouted() == name(&other).shouted());
    }
}

#[test]
fn the_shipped_file_is_good_as_it_is_and_with_all_that_it_comments_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/landbridge.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let is_key = |line: &str| {
        line.starts_with("  - {")
            || line.split_once(':').is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let mut taken_in = 0;
    let mut whole = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix("# ").filter(|rest| is_key(rest)) {
            Some(rest) => {
                taken_in += 1;
                whole.push_str(&line[..indent]);
                whole.push_str(rest);
            }
            None => whole.push_str(line),
        }
        whole.push('\n');
    }
    assert!(taken_in >= 9, "only {taken_in} settings are commented out:\n{whole}");
    for text in [&text, &whole] {
        let loaded = read(text, &[]).unwrap_or_else(|found| panic!("{}", shown(&found)));
        assert_eq!(loaded.warnings, [], "{text}");
    }
}
