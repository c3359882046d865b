//! `tls`: the certificate that the API shows.

use crate::{
    settings::TlsSettings,
    yaml::{Findings, Keys, Node},
};

const KEYS: Keys = Keys::new("`tls`", &["cert", "key"]);

/// Reads where certificate and key are; both are PEM files, read again when they change.
pub(in crate::settings) fn read(node: &Node, findings: &mut Findings) -> Option<TlsSettings> {
    let section = node.section(&KEYS, findings)?;
    let mut path = |key: &str| {
        let node = section.require(key, findings)?;
        node.line(key, 4_096, findings).map(std::path::PathBuf::from)
    };
    let (cert, key) = (path("cert"), path("key"));
    Some(TlsSettings { cert: cert?, key: key? })
}
