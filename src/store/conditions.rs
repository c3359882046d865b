//! Changes under conditions: compare-and-set of documents, and the lead of something that one daemon does for all.
//!
//! Invariant: conditions are judged by the store, in the transaction of the change.

use super::DocumentKind;

/// What must hold for documents to be changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A document has this value; with `None`, it is not there.
    Document {
        /// Its kind.
        kind: DocumentKind,
        /// Its key.
        key: String,
        /// What it must be.
        value: Option<serde_json::Value>,
    },
    /// This lead is in force.
    Leads(Lead),
}

/// The lead of something that one daemon does for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lead {
    /// Of what.
    pub name: String,
    /// Higher than that of every lead of this name before.
    pub token: u64,
}
