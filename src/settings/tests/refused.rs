//! Settings that are refused or doubted: where, why, and what to write instead.

use super::*;

/// Bad files: after the lines of the smallest good one, what is wrong from line 2 on.
#[test]
fn every_problem_has_a_place_and_advice() {
    for (lines, expected) in [
        ("lisen: 127.0.0.1:1", &["2:1 unknown-key: unknown key `lisen` (did you mean `listen`?)"][..]),
        (
            "keys:\n  - { name: ci, scopes: [submit, oprate], hash: { env: CI_KEY } }\n  - { name: ci, scopes: [], hash: sha256 }",
            &[
                "3:34 unknown-value: `scopes` cannot be \"oprate\" (did you mean `operate`?)",
                "4:25 no-scope: a key without scopes opens nothing (write `scopes: [submit]`)",
                "4:35 literal-secret: `hash` says where the secret is, and never holds it (write `{ env: NAME }` or `{ file: PATH }`, and withdraw the secret if this file was shared)",
            ],
        ),
        ("tls: { cert: a.pem }", &["2:6 missing-key: `tls` needs `key` (add `key: …`)"]),
        (
            "batches: { max_requests: 0 }",
            &[
                "2:26 out-of-range: `max_requests` is 0, outside 1 to 10000000 (write a whole number from 1 to 10000000)",
            ],
        ),
        (
            "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2",
            &["3:1 duplicate-key: `listen` stands here twice; the first is in line 2 (keep one of the two)"],
        ),
        (
            "watch: { mode: poll, mode: poll }",
            &["2:22 duplicate-key: `mode` stands here twice; the first is in line 2 (keep one of the two)"],
        ),
        (
            "listen: localhost:80",
            &[
                "2:9 bad-address: `listen` is \"localhost:80\", not an address and a port (write an address such as 127.0.0.1:4100)",
            ],
        ),
        (
            "listen: 127.0.0.1:65536",
            &[
                "2:9 bad-address: `listen` is \"127.0.0.1:65536\", not an address and a port (write an address such as 127.0.0.1:4100)",
            ],
        ),
        (
            "listen: 127.0.0.1:7\nops_listen: 127.0.0.1:7",
            &[
                "3:13 same-address: `ops_listen` is 127.0.0.1:7, which `listen` takes already (give it a port of its own, or remove it)",
            ],
        ),
        ("pipelines: ''", &["2:12 no-value: `pipelines` is empty (write some text, or remove the key)"]),
        (
            "store: oracle:x",
            &[
                "2:8 bad-store: `store` is of no known kind (write `sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `memory:` or `{ env: NAME }`)",
            ],
        ),
        (
            "store: memory",
            &[
                "2:8 bad-store: `store` is of no known kind (write `sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `memory:` or `{ env: NAME }`)",
            ],
        ),
        ("store: 'sqlite:'", &["2:8 bad-store: `store` names no file (write `sqlite:data/landbridge.db`)"]),
        (
            "store: 'sqlite::memory:'",
            &["2:8 bad-store: `store: sqlite::memory:` is spelled otherwise here (write `memory:`)"],
        ),
        (
            "store: sqlite://data/x.db",
            &[
                "2:8 bad-store: `store` has slashes before its path (write the path right after the colon: `sqlite:PATH`)",
            ],
        ),
        (
            "store: postgres://me:hunter2@db/x",
            &[
                "2:8 literal-secret: `store` holds a password, which does not stand in a settings file or a command (put the address into an environment variable and write `store: { env: DATABASE_URL }`, and change the password if this file was shared)",
            ],
        ),
        (
            "store: postgres://db/x?sslmode=maybe",
            &[
                "2:8 bad-store: `store`: the store cannot be used: the database address of `store` cannot be read: `sslmode` is none of disable, prefer, require, verify-ca, verify-full (write `sqlite:PATH`, `postgres://USER@HOST/DATABASE`, `memory:` or `{ env: NAME }`)",
            ],
        ),
        (
            "store_direct: postgres://db/x",
            &[
                "2:15 bad-store: `store_direct` is the way past a pooler to a `store` on PostgreSQL, and `store` is none (remove it)",
            ],
        ),
        (
            "store: { env: NO_SUCH }",
            &[
                "2:15 not-set: `store` is to be read from the environment variable NO_SUCH, which is not set (set it where the daemon is started, or write `sqlite:PATH`)",
            ],
        ),
        ("lease: 30", &["2:8 bad-span: `lease` has no unit (write `30s` for seconds)"]),
        ("lease: 100ms", &["2:8 out-of-range: `lease` is 100ms, outside 1s to 1h (write a span from 1s to 1h)"]),
        (
            "watch: { quiet: 1ms, apply: some }",
            &[
                "2:17 out-of-range: `quiet` is 1ms, outside 10ms to 10s (write a span from 10ms to 10s)",
                "2:29 unknown-value: `apply` cannot be \"some\" (write one of `per_file`, `all`)",
            ],
        ),
        (
            "watch: { allow_empty: yes }",
            &["2:23 wrong-type: `allow_empty` must be true or false, not text (write `true`, without quotes)"],
        ),
        (
            "prices: { opnai: { multiplier: 1 } }",
            &["2:11 unknown-provider: there is no provider `opnai` (did you mean `openai`?)"],
        ),
        (
            "prices: { openai: { multiplier: 0 } }",
            &[
                "2:33 out-of-range: `multiplier` is 0, not a number from 0.0001 to 10 (write a decimal number from 0.0001 to 10)",
            ],
        ),
        ("prices: { openai: {} }", &["2:19 missing-key: a price needs `multiplier` (add `multiplier: …`)"]),
        (
            "quotas: [{ provider: openai, model: 'a[', concurrency: 1 }]",
            &[
                "2:37 bad-glob: `model` is not a pattern: unclosed character class; missing ']' (write a model's name, with * for any characters)",
            ],
        ),
        (
            "quotas:\n  - { provider: openai, model: a, requests_per_minute: 0 }\n  - { provider: openai, model: b, tokens_per_minute: -5 }\n  - { provider: openai, model: c, tokens_per_day: 99999999999999999999 }\n  - { provider: openai, source: aws, requests_per_minute: 5 }\n  - { provider: openai, source: oracle }",
            &[
                "3:56 out-of-range: `requests_per_minute` is 0, outside 1 to 1000000000 (write a whole number from 1 to 1000000000)",
                "4:54 out-of-range: `tokens_per_minute` is -5, outside 1 to 1000000000000 (write a whole number from 1 to 1000000000000)",
                "5:51 out-of-range: `tokens_per_day` is 99999999999999999999, not a whole number from 1 to 1000000000000000 (write a whole number from 1 to 1000000000000000)",
                "6:17 no-effect: provider `openai` is no `api: bedrock`: AWS Service Quotas does not know it (write the limits instead of `source: aws`)",
                "6:59 conflict: `requests_per_minute` stands beside `source: aws`, which tells it (leave one of the two out)",
                "7:33 unknown-value: `source` cannot be \"oracle\" (write one of `aws`)",
            ],
        ),
        (
            "quotas: [{ provider: other, model: a }]",
            &[
                "2:10 empty-quota: this quota limits nothing (add `requests_per_minute`, `tokens_per_minute`, `tokens_per_day` or `concurrency`)",
                "2:22 unknown-provider: there is no provider `other` (the providers are openai)",
            ],
        ),
        (
            "quotas: [{ provider: openai, model: a, concurrency: 1, share: 0% }]",
            &["2:63 out-of-range: `share` is nothing at all (write a share such as 60%)"],
        ),
        (
            "media: { allow: ['ftp://x', 'https://a?b'], max_bytes: 4GB, timeout: 1h, private: yes, size: 1 }",
            &[
                "2:18 bad-url: `allow` cannot be read: `ftp` is neither https nor http (write an address such as https://images.example.com, or a host such as *.example.com)",
                "2:29 bad-url: `allow` cannot be read: it holds more than a scheme, a host, a port and the beginning of a path (write an address such as https://images.example.com, or a host such as *.example.com)",
                "2:56 bad-size: `max_bytes` is no size from 1 byte to 25MB (write a number of bytes, or a size such as 500kB, 4MB or 4MiB, up to 25MB)",
                "2:70 out-of-range: `timeout` is 1h, outside 100ms to 2m (write a span from 100ms to 2m)",
                "2:83 wrong-type: `private` must be true or false, not text (write `true`, without quotes)",
                "2:88 unknown-key: unknown key `size` (`media` has the keys `allow`, `max_bytes`, `timeout`, `private`)",
            ],
        ),
        (
            "callbacks: { secret: whsec_abc, allow: ['ftp://x', 10.0.0.0/99], timeout: 1h, retries: 3 }",
            &[
                "2:22 literal-secret: `secret` says where the secret is, and never holds it (write `{ env: NAME }` or `{ file: PATH }`, and withdraw the secret if this file was shared)",
                "2:41 bad-url: `allow` cannot be read: `ftp` is neither https nor http (write an address such as https://images.example.com, or a network such as 10.0.0.0/8)",
                "2:52 bad-url: `allow` cannot be read: \"10.0.0.0/99\" is no network: invalid IP address syntax (write an address such as https://images.example.com, or a network such as 10.0.0.0/8)",
                "2:75 out-of-range: `timeout` is 1h, outside 1s to 1m (write a span from 1s to 1m)",
                "2:79 unknown-key: unknown key `retries` (`callbacks` has the keys `secret`, `allow`, `timeout`)",
            ],
        ),
        (
            "callbacks: { secret: [], timeout: 2s }",
            &[
                "2:12 missing-key: `callbacks` needs `allow` (add `allow: …`)",
                "2:22 no-secret: `secret` names no place, so nothing could be signed (write `secret: { file: PATH }`)",
            ],
        ),
        (
            "quotas: [{ provider: openai, model: a, concurrency: 1, share: 60 }]",
            &[
                "2:63 out-of-range: `share` is 60, not a number from 0.0001 to 1 (write a decimal number from 0.0001 to 1)",
            ],
        ),
        (
            "quotas: [{ provider: openai, model: a, concurrency: 1 }, { provider: openai, model: a, concurrency: 2 }]",
            &[
                "2:58 duplicate-quota: this quota stands here twice: same provider, model, region and profile (keep one of the two)",
            ],
        ),
    ] {
        let found = read(&format!("{SMALLEST}{lines}\n"), &[]).map(|loaded| loaded.settings).expect_err(lines);
        assert_eq!(brief(&found), expected, "{lines}");
    }
}

#[test]
fn providers_are_checked() {
    for (provider, expected) in [
        ("p: {}", "1:14 missing-key: the provider `p` needs `api` (add `api: openai` or `api: bedrock`)"),
        ("p: { api: opnai }", "1:24 unknown-value: `api` cannot be \"opnai\" (did you mean `openai`?)"),
        ("p: { api: openai, auth: aws }", "1:17 no-region: `auth: aws` needs a region, and `base_url` names none ("),
        ("p: { api: openai, auth: gcp, region: us-east-1 }", "1:38 unknown-value: `auth` cannot be \"gcp\" ("),
        (
            "p: { api: openai, auth: aws, base_url: 'https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1', region: eu-west-1 }",
            "1:122 wrong-region: `base_url` is of us-east-1, not of eu-west-1 (",
        ),
        (
            "p: { api: openai, auth: aws, region: us-east-1, data_regions: [us-east-1] }",
            "1:62 unknown-key: unknown key `data_regions` (",
        ),
        (
            "p: { api: openai, region: us-east-1 }",
            "1:32 unknown-key: unknown key `region` (an `api: openai` provider has the keys ",
        ),
        ("p: { api: bedrock, base_url: x }", "1:33 unknown-key: unknown key `base_url` ("),
        ("P: { api: bedrock }", "1:14 bad-name: a provider cannot be named \"P\" (write `p`"),
        ("p: { api: bedrock, family: p }", "1:41 own-family: `family` names the provider itself ("),
        ("p: { api: bedrock, family: q }", "1:41 unknown-provider: there is no provider `q` (did you mean `p`?)"),
        ("p: { api: bedrock, region: US }", "1:41 bad-name: "),
        ("p: { api: bedrock, role_arn: admin }", "1:43 bad-arn: `role_arn` is not the ARN of a role ("),
        (
            "p: { api: bedrock, endpoint_url: 'ftp://x' }",
            "1:47 bad-url: `endpoint_url` is not the address of a server (",
        ),
        ("p: { api: openai, base_url: api.openai.com }", "1:42 bad-url: "),
        ("p: { api: openai, base_url: 'https://x/?a=1' }", "1:42 bad-url: "),
        ("p: { api: openai, api_key: { } }", "1:41 missing-key: `api_key` says neither (write either `env` or `file`)"),
        (
            "p: { api: openai, api_key: { env: A, file: b } }",
            "1:57 conflict: `api_key` says both (write either `env` or `file`)",
        ),
        (
            "p: { api: openai, api_key: { vault: A } }",
            "1:43 unknown-key: unknown key `vault` (a secret has the keys `env`, `file`)",
        ),
        ("", "1:12 no-provider: `providers` has 0 entries; one to 100 are needed ("),
    ] {
        let found =
            read(&format!("providers: {{ {provider} }}\n"), &[]).map(|loaded| loaded.settings).expect_err(provider);
        let found = brief(&found);
        assert!(found.iter().any(|found| found.starts_with(expected)), "{provider}: {found:#?}");
    }
    for (text, expected) in [
        ("", "the settings file needs `providers`"),
        ("# nothing\n", "the settings file needs `providers`"),
        ("- a\n", "`the settings file` must be a mapping, not a list"),
        ("a: [", "syntax"),
        ("\u{0}", "syntax"),
    ] {
        let found = read(text, &[]).expect_err(text);
        assert!(brief(&found)[0].contains(expected), "{text}: {found:#?}");
    }
}

#[test]
fn no_secret_is_ever_repeated() {
    const SECRET: &str = "sk-verysecret";
    for text in [
        "providers: { openai: { api: openai, api_key: sk-verysecret, tpyo: 1 } }",
        "providers: { openai: { api: openai, api_key: [sk-verysecret] } }",
        "providers: { openai: { api: openai, api_key: { env: sk-verysecret } } }",
        "providers: { openai: { api: openai, base_url: 'https://me:sk-verysecret@x/' , tpyo: 1 } }",
        "providers:\n  openai:\n    api: openai\n    api_key: \"sk-verysecret\n",
        "providers:\n  openai:\n    api: openai\n    api_key: sk-verysecret: x\n",
        "providers: { openai: { api: openai } }\nstore: postgres://me:sk-verysecret@x/db",
        "providers: { openai: { api: openai } }\nstore: { env: sk-verysecret }",
        "providers: { openai: { api: openai } }\nstore: { env: DB }\ntypo: 1",
    ] {
        let found =
            read(text, &[("DB", "postgres://me:sk-verysecret@x/db")]).map(|loaded| loaded.settings).expect_err(text);
        let shown = format!("{}{found:?}", shown(&found));
        assert!(!shown.contains(SECRET), "{text}: {shown}");
    }
    for (variable, value) in [
        ("LANDBRIDGE_PROVIDERS__OPENAI__API_KEY", SECRET),
        ("LANDBRIDGE_PROVIDERS__OPENAI__API_KEY", "{ sk-verysecret"),
        ("LANDBRIDGE_PROVIDERS__OPENAI__API_KEY", "{ env: sk-verysecret }"),
        ("LANDBRIDGE_PROVIDERS__OPENAI__BASE_URL", "https://sk-verysecret@x"),
        ("LANDBRIDGE_STORE", "postgres://me:sk-verysecret@x:y/db"),
    ] {
        let found = read(SMALLEST, &[(variable, value)]).map(|loaded| loaded.settings).expect_err(value);
        let shown = format!("{}{found:?}", shown(&found));
        assert!(shown.contains(variable) && !shown.contains(SECRET), "{shown}");
    }
    for (text, variable) in [("store: { env: DB }", "DB"), ("store: memory:", "LANDBRIDGE_STORE")] {
        let text = format!("providers: {{ openai: {{ api: openai }} }}\n{text}\n").replace("memory:", "'memory:'");
        let loaded = read(&text, &[(variable, "postgres://me:sk-verysecret@x/db")]).expect(variable);
        let url = DatabaseUrl::Secret(Secret::Env(variable.to_owned()));
        assert_eq!(loaded.settings.store, StoreSetting::Postgres { url, direct: None });
    }
    let refused = brief(&read("providers: { openai: { api: openai, api_key: x } }", &[]).unwrap_err());
    assert_eq!(
        refused,
        ["1:46 literal-secret: `api_key` says where the secret is, and never holds it \
          (write `{ env: NAME }` or `{ file: PATH }`, and withdraw the secret if this file was shared)"]
    );
}

#[test]
fn a_key_on_an_open_wire_is_a_warning() {
    let plain = |url: &str| {
        let text = format!("providers: {{ p: {{ api: openai, base_url: '{url}', api_key: {{ env: K }} }} }}\n");
        read(&text, &[]).unwrap().warnings.iter().map(|warning| warning.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(plain("http://models.example/v1"), ["plain-http"]);
    for fine in ["https://models.example", "http://127.0.0.1:1", "http://localhost", "http://[::1]:3"] {
        assert!(plain(fine).is_empty(), "{fine}");
    }
}
