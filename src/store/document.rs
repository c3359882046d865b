//! Documents: small durable state of operators and daemons, by kind and key.

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum DocumentKind {
    /// Runtime flags, by `SCOPE/NAME`.
    Flag,
    /// Rollbacks in force, by pipeline.
    Rollback,
    /// The last good version of each spec file, by path.
    Spec,
    /// How long each pipeline has been held, by pipeline.
    HoldClock,
    /// Counters of the daemon, such as the generation.
    Counter,
    /// Quotas: what was learned, by `learned NAME`, and what operators set, by `set NAME`.
    Quota,
    /// Keys, by id.
    Key,
    /// Files, by id.
    File,
    /// Batches, by id.
    Batch,
    /// What tells a batch asked for twice, by caller and key.
    BatchRequest,
    /// Notices that receivers have not got yet, or never will, by id.
    Callback,
    /// When each notice is due, by time and id.
    CallbackDue,
    /// Sets of files that were in force, by generation.
    Generation,
    /// Texts of those files, by hash.
    ConfigText,
    /// What holds files at an earlier version.
    Pin,
    /// How far a rollout with steps has come, by `PIPELINE/ROLLOUT`.
    Rollout,
    /// What its leader has read of its observations, by `PIPELINE/ROLLOUT`.
    Evidence,
}

/// Some documents of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentPage {
    /// The kind.
    pub kind: DocumentKind,
    /// Behind this key, in the order asked for.
    pub after: Option<String>,
    /// The largest key first.
    pub descending: bool,
    /// At most.
    pub limit: u32,
}

/// A change of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentChange {
    /// Its kind.
    pub kind: DocumentKind,
    /// Its key.
    pub key: String,
    /// Its new value; `None` deletes it.
    pub value: Option<serde_json::Value>,
}
