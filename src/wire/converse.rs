//! The Converse form, as plain data: what the SDK is handed and what it hands back.

/// A Converse request, without model and region.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {}
