//! YAML with positions: bytes that an operator wrote become a tree in which every key and value knows its place, and
//! typed readers turn the tree into values while they collect *every* problem, not the first.
//!
//! Invariant: nothing here knows what a file is about. Reading is bounded (bytes, depth, nodes, aliases), booleans are
//! `true` and `false` alone, and no input panics.
//!
//! How a reader is written:
//!
//! ```
//! use landbridge::yaml::{self, Findings, Keys};
//!
//! const LIMITS: Keys = Keys::new("limits", &["concurrency", "timeout"]).unbuilt(&[("rate", "use `quotas` in the settings")]);
//!
//! let text = b"concurrency: 8\ntimeuot: 3s\n";
//! let document = yaml::parse("limits.yaml", text).unwrap();
//! let mut findings = Findings::new("limits.yaml", &document.text);
//! let section = document.root.section(&LIMITS, &mut findings).unwrap();
//! let concurrency = section.get("concurrency").and_then(|node| node.integer("concurrency", 1..=1000, &mut findings));
//! assert_eq!(concurrency, Some(8));
//! let found = findings.finish();
//! assert_eq!(found[0].help.as_deref(), Some("did you mean `timeout`?"));
//! ```
//!
//! A reader that returns `None` has already said why.

mod align;
mod findings;
mod node;
mod parse;
mod scalar;
mod section;
#[cfg(test)]
mod tests;

pub use findings::Findings;
pub use node::{Document, Entry, Key, Node, Number, Value};
pub use parse::{MAX_BYTES, parse};
pub use section::{Keys, Section, in_backticks, shortened};
