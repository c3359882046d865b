//! What the environment and options say, over what the file says.

use super::*;

#[test]
fn the_environment_wins_over_the_file_and_options_over_both() {
    let variables = [
        ("LANDBRIDGE_LISTEN", "127.0.0.1:1"),
        ("LANDBRIDGE_OPS_LISTEN", "127.0.0.1:2"),
        ("LANDBRIDGE_STORE", "memory:"),
        ("LANDBRIDGE_WATCH__QUIET", "300ms"),
        ("LANDBRIDGE_WATCH__ALLOW_EMPTY", "false"),
        ("LANDBRIDGE_PROVIDERS__OPENAI__BASE_URL", "http://127.0.0.1:9/v1"),
        ("LANDBRIDGE_PROVIDERS__BEDROCK_EU__REGION", "eu-north-1"),
        ("LANDBRIDGE_PROVIDERS__OPENAI__API_KEY__FILE", "/run/key"),
        ("LANDBRIDGE_PROVIDERS__FRESH_ONE", "{ api: openai, organization: \"42\" }"),
        ("LANDBRIDGE_QUOTAS", "[{ provider: fresh-one, model: a, concurrency: 3 }]"),
        ("LANDBRIDGE_PIPELINES", "%odd: #path"),
    ];
    let overrides = [
        Override { option: "--listen".into(), path: "listen".into(), value: "127.0.0.1:3".into() },
        Override { option: "--watch".into(), path: "watch.mode".into(), value: "auto".into() },
    ];
    let file = Path::new("landbridge.yaml");
    let loaded = Settings::read(file, FULL.as_bytes(), &environment(&variables), &overrides);
    let Loaded { settings, warnings } = loaded.unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert_eq!(warnings, []);
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.ops_listen.unwrap().port(), 2);
    assert_eq!(settings.store, StoreSetting::Memory);
    let watch = settings.watch;
    assert_eq!((watch.quiet, watch.allow_empty, watch.mode), (Duration::from_millis(300), false, WatchMode::Auto));
    assert_eq!(watch.apply, ApplyMode::All, "the file's, beside what the environment says");
    let ApiSettings::OpenAi { base_url, api_key, organization, .. } = &settings.providers[&name("openai")].api else {
        panic!()
    };
    assert_eq!(base_url, "http://127.0.0.1:9/v1");
    assert_eq!(*api_key, Some(Secret::File("/run/key".into())), "the higher of two places");
    assert_eq!(organization.as_deref(), Some("org-1"));
    let ApiSettings::Bedrock { region, .. } = &settings.providers[&name("bedrock-eu")].api else { panic!() };
    assert_eq!(region.as_ref().map(Region::as_str), Some("eu-north-1"));
    assert!(settings.providers.contains_key(&name("fresh-one")));
    assert_eq!(settings.quotas.len(), 1, "lists are replaced");
    assert_eq!(settings.pipelines.to_str(), Some("%odd: #path"));
}

#[test]
fn findings_about_variables_name_the_variable() {
    for (variable, value, expected) in [
        (
            "LANDBRIDGE_WATCH__QUIET",
            "3",
            "environment variable LANDBRIDGE_WATCH__QUIET bad-span: `quiet` has no unit (write `3s` for seconds)",
        ),
        ("LANDBRIDGE_LISTEN", "here", "environment variable LANDBRIDGE_LISTEN bad-address: "),
        (
            "LANDBRIDGE_PROVIDERS__NEW_ONE__REGION",
            "eu",
            "environment variable LANDBRIDGE_PROVIDERS__NEW_ONE__REGION missing-key: the provider `new-one` needs `api`",
        ),
        (
            "LANDBRIDGE_SPEC_SOURCE__KIND",
            "x",
            "environment variable LANDBRIDGE_SPEC_SOURCE__KIND not-in-this-release: `spec_source` is not part",
        ),
        ("LANDBRIDGE_QUOTAS", "[", "environment variable LANDBRIDGE_QUOTAS syntax"),
    ] {
        let found = brief(&read(SMALLEST, &[(variable, value)]).map(|loaded| loaded.settings).expect_err(variable));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{variable}: {found:#?}");
    }
    for (variable, value, expected) in [
        (
            "LANDBRIDGE_LISTN",
            "x",
            "environment variable LANDBRIDGE_LISTN unknown-variable: LANDBRIDGE_LISTN is no setting and changes nothing (did you mean LANDBRIDGE_LISTEN?)",
        ),
        ("LANDBRIDGE_SERVICE_HOST", "10.0.0.1", "environment variable LANDBRIDGE_SERVICE_HOST unknown-variable: "),
        (
            "LANDBRIDGE_STORE",
            " ",
            "environment variable LANDBRIDGE_STORE empty-variable: LANDBRIDGE_STORE is empty and counts as not set (",
        ),
    ] {
        let warnings = brief(&read(SMALLEST, &[(variable, value)]).unwrap().warnings);
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{variable}: {warnings:#?}");
    }
    let others = [("LANDBRIDGE_PAUSE", "true"), ("LANDBRIDGE_URL", "x"), ("FORCE_OPENAI_PROVIDER", "1"), ("PATH", "/")];
    assert_eq!(read(SMALLEST, &others).unwrap().warnings, []);
}

#[test]
fn whatever_the_file_can_say_a_variable_can() {
    for path in super::environment::PATHS {
        let bedrock = ["region", "profile", "role_arn", "endpoint_url"].iter().any(|key| path.ends_with(key));
        let variable =
            format!("LANDBRIDGE_{}", path.replace('*', if bedrock { "b" } else { "openai" }).replace('.', "__"));
        let file = "providers: { openai: { api: openai }, b: { api: bedrock } }\n";
        let found =
            read(file, &[(&variable.to_ascii_uppercase(), "?")]).map_or_else(|found| found, |loaded| loaded.warnings);
        assert!(
            found.iter().all(|found| found.code != "unknown-key" && found.code != "unknown-variable"),
            "{path}: {found:#?}"
        );
    }
    let providers = [sections::providers::OPENAI, sections::providers::BEDROCK];
    for key in providers.iter().flat_map(|keys| keys.known) {
        let path = format!("providers.*.{key}");
        assert!(super::environment::PATHS.iter().any(|known| known.starts_with(&path)), "{path}");
    }
}

#[test]
fn the_environment_sets_flags() {
    let providers = read(FULL, &[]).unwrap().settings.provider_facts();
    let variables = environment(&[
        ("FORCE_OPENAI_PROVIDER", "TRUE"),
        ("FORCE_BEDROCK_EU_PROVIDER", "0"),
        ("FORCE_BEDROCK_PROVIDER", ""),
        ("FORCE_BEDRCK_PROVIDER", "true"),
        ("FORCE_COLOR", "1"),
        ("LANDBRIDGE_PAUSE", "true"),
        ("LANDBRIDGE_DISABLE_FALLBACK", "ture"),
    ]);
    let (flags, found) = environment_flags(&variables, &providers);
    let said: Vec<String> = flags.0.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
    assert_eq!(said, ["FORCE_BEDROCK_EU_PROVIDER=false", "FORCE_OPENAI_PROVIDER=true", "PAUSE=true"]);
    assert_eq!(
        brief(&found),
        [
            "environment variable FORCE_BEDRCK_PROVIDER unknown-provider: FORCE_BEDRCK_PROVIDER names no configured provider \
             and changes nothing (did you mean FORCE_BEDROCK_PROVIDER?)",
            "environment variable LANDBRIDGE_DISABLE_FALLBACK bad-flag: LANDBRIDGE_DISABLE_FALLBACK is neither true nor \
             false (write true or false)",
        ]
    );
    assert_eq!(found.iter().map(Diagnostic::is_error).collect::<Vec<_>>(), [false, true]);
}
