//! The certificate that a listener shows, read again when its files change.
//!
//! Invariant: a certificate that cannot be read, or does not fit its key, never replaces one that works.

use std::{
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::settings::TlsSettings;

/// The files are looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A certificate in force.
pub struct Tls {
    settings: TlsSettings,
    shown: Arc<Shown>,
    server: Arc<ServerConfig>,
}

struct Shown(ArcSwap<CertifiedKey>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// In words, naming the file.
    pub fn load(settings: TlsSettings) -> Result<Self, String> {
        let shown = Arc::new(Shown(ArcSwap::from_pointee(read(&settings)?)));
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| format!("TLS cannot be had: {error}"))?;
        let mut server = builder.with_no_client_auth().with_cert_resolver(shown.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { settings, shown, server: Arc::new(server) })
    }

    /// For one connection.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Follows the files until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.follow_every(LOOK_AGAIN, stop).await;
    }

    async fn follow_every(&self, period: Duration, stop: CancellationToken) {
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            let now = self.stamps();
            if now == seen {
                continue;
            }
            seen = now;
            match read(&self.settings) {
                Ok(key) => {
                    self.shown.0.store(Arc::new(key));
                    tracing::info!(cert = %self.settings.cert.display(), "a new certificate is shown");
                }
                Err(error) => tracing::error!(error, "the new certificate cannot be used; the old one stays"),
            }
        }
    }

    fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        let stamp = |path: &Path| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        [stamp(&self.settings.cert), stamp(&self.settings.key)]
    }
}

fn read(settings: &TlsSettings) -> Result<CertifiedKey, String> {
    let TlsSettings { cert, key } = settings;
    let bytes = |path: &Path| {
        let read: io::Result<Vec<u8>> = std::fs::read(path);
        read.map_err(|error| format!("tls: {} cannot be read: {error}", path.display()))
    };
    let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&bytes(cert)?).collect();
    let certificates = certificates.map_err(|error| format!("tls: {} is not PEM: {error}", cert.display()))?;
    if certificates.is_empty() {
        return Err(format!("tls: {} holds no certificate", cert.display()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .map_err(|_| format!("tls: {} holds no private key in PEM", key.display()))?;
    CertifiedKey::from_der(certificates, secret, &ring::default_provider())
        .map_err(|error| format!("tls: {} and {} do not go together: {error}", cert.display(), key.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(settings: &TlsSettings, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(&settings.cert, made.cert.pem()).unwrap();
        std::fs::write(&settings.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    }

    #[tokio::test]
    async fn a_new_certificate_is_shown_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let settings = TlsSettings { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        assert!(Tls::load(settings.clone()).err().unwrap().contains("cert.pem cannot be read"));
        let first = write(&settings, "one.example");
        let tls = Arc::new(Tls::load(settings.clone()).unwrap());
        let shown = || tls.shown.0.load().cert[0].to_vec();
        assert_eq!(shown(), first);
        let stop = CancellationToken::new();
        let following = tokio::spawn({
            let (tls, stop) = (tls.clone(), stop.clone());
            async move { tls.follow_every(Duration::from_millis(5), stop).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::write(&settings.cert, "nonsense, and of another length").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(shown(), first);
        let second = write(&settings, "another.example");
        for _ in 0..2_000 {
            if shown() == second {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(shown(), second);
        stop.cancel();
        following.await.unwrap();
    }
}
