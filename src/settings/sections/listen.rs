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

/// Reads the API's address: loopback alone.
pub(in crate::settings) fn loopback(what: &str, node: &Node, findings: &mut Findings) -> Option<SocketAddr> {
    let address = address(what, node, findings)?;
    if address.ip().is_loopback() {
        return Some(address);
    }
    let message = format!(
        "`{what}` is {address}, beyond this machine: access keys are not part of this release, and without them \
         anybody who reaches that address could send jobs at your cost"
    );
    let help = format!("listen on {DEFAULT}, and let a proxy that asks for credentials stand before it");
    findings.error("open-listener", node.position, message, help);
    None
}
