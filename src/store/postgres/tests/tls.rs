//! Encrypted lines, and whom they trust.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

/// An authority's certificate, and a certificate for `name` from it with its key.
fn certificates(name: &str) -> (String, String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_says_whom_to_believe() {
    let server = Server::start();
    let database = server.database();
    let (authority, certificate, key) = certificates("localhost");
    server.serve_tls(&certificate, &key);
    let mut roots = tempfile::NamedTempFile::new().unwrap();
    roots.write_all(authority.as_bytes()).unwrap();
    let roots = roots.path().display().to_string();
    let try_open = |host: &str, mode: &str| {
        let url = format!("postgres://postgres@{host}:{}/{database}?sslmode={mode}", server.port);
        async move {
            PostgresStore::open(&url, PostgresOptions { connections: Some(1), ..PostgresOptions::default() }).await
        }
    };
    let encrypted = format!(
        "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = '{database}' AND application_name = 'landbridge'"
    );
    for (host, mode, expected) in [
        ("127.0.0.1", "disable".to_owned(), Some("f")),
        ("127.0.0.1", "prefer".to_owned(), Some("t")),
        ("127.0.0.1", "require".to_owned(), Some("t")),
        ("localhost", format!("verify-full&sslrootcert={roots}"), Some("t")),
        ("127.0.0.1", format!("verify-ca&sslrootcert={roots}"), Some("t")),
        ("127.0.0.1", format!("verify-full&sslrootcert={roots}"), None),
        ("localhost", "verify-full".to_owned(), None),
        ("localhost", "verify-ca".to_owned(), None),
        ("localhost", "require&sslrootcert=/nowhere".to_owned(), None),
    ] {
        let opened = try_open(host, &mode).await;
        match expected {
            Some(expected) => {
                let store = opened.unwrap_or_else(|error| panic!("{host} {mode}: {error}"));
                assert_eq!(server.sql("postgres", &encrypted), expected, "{host} {mode}");
                store.now().await.unwrap();
            }
            None => assert!(opened.is_err(), "{host} {mode}"),
        }
        // The store's connection goes with it; the next one must not be counted with it.
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        while server.sql("postgres", &gone) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
