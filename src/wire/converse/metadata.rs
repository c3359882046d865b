//! Bookkeeping that Converse keeps as request metadata.
//!
//! Invariant: what goes out fits the service's rules for keys and values, so that bookkeeping never fails a call.

use super::Request;
use crate::{
    job::FidelityAction,
    wire::{Refusal, fidelity::Ledger, parameters::Effective},
};

/// Pairs that a request may carry.
pub(super) const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 256;

impl Request {
    /// Adds a pair if the service would take it. Returns whether it did.
    pub fn tag(&mut self, key: &str, value: &str) -> bool {
        let fits = self.request_metadata.len() < MAX_PAIRS
            && !key.is_empty()
            && key.len() <= MAX_KEY
            && value.len() <= MAX_VALUE
            && key.chars().chain(value.chars()).all(is_allowed)
            && !self.request_metadata.contains_key(key);
        if fits {
            self.request_metadata.insert(key.to_owned(), value.to_owned());
        }
        fits
    }
}

fn is_allowed(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == ' ' || ":_@$#=/+,-.".contains(letter)
}

pub(super) fn carry(effective: &Effective<'_>, ledger: &mut Ledger<'_>, request: &mut Request) -> Result<(), Refusal> {
    if let Some(metadata) = effective.get("metadata") {
        let Some(pairs) = metadata.as_object() else {
            return Err(Refusal::of("metadata", "metadata: must be an object of strings"));
        };
        for (key, value) in pairs {
            if !value.as_str().is_some_and(|value| request.tag(key, value)) {
                ledger.inexact(
                    format!("metadata.{key}"),
                    FidelityAction::Dropped,
                    "Bedrock takes 16 pairs of up to 256 letters, digits, spaces and : _ @ $ # = / + , - . each",
                )?;
            }
        }
    }
    for name in ["user", "safety_identifier"] {
        let Some(value) = effective.get(name) else { continue };
        if value.as_str().is_some_and(|value| request.tag(name, value)) {
            ledger.inexact(name, FidelityAction::Emulated, "goes as request metadata of the same name")?;
        } else {
            ledger.inexact(name, FidelityAction::Dropped, "Converse has no such parameter")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_service_takes_is_tagged() {
        let mut request = Request::default();
        assert!(request.tag("job", "job_01"));
        for (key, value) in [("", "x"), ("job", "twice"), ("k", "ü"), ("k", &"x".repeat(257)), ("k\n", "x")] {
            assert!(!request.tag(key, value), "{key:?} {value:?}");
        }
        for n in 0..20 {
            request.tag(&format!("k{n}"), "");
        }
        assert_eq!(request.request_metadata.len(), MAX_PAIRS);
    }
}
