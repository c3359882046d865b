//! `listen` and `ops_listen`: addresses to serve on.

use std::net::SocketAddr;

use crate::yaml::{Findings, Node};

/// Where the API listens when the settings are silent.
pub(in crate::settings) const DEFAULT: &str = "127.0.0.1:4100";

/// Reads an address and a port.
pub(in crate::settings) fn address(what: &str, node: &Node, findings: &mut Findings) -> Option<SocketAddr> {
    let text = node.line(what, 256, findings)?;
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("`{what}` is \"{text}\", not an address and a port");
        findings.error("bad-address", node.position, message, format!("write an address such as {DEFAULT}"));
    }
    address
}
