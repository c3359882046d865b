//! A stream that ends before its answer does.

use crate::{job::Fault, wire::faults::Classified};

/// The code of such a fault.
pub const ENDED_EARLY: &str = "stream_ended_early";

/// The fault: part of the answer was made, so it may have been billed; it must not be taken for the whole.
pub fn ended_early(what_is_missing: &str) -> Classified {
    let message = format!("the provider's stream ended early: {what_is_missing}");
    Classified::billed(Fault::Unknown, message).with_code(ENDED_EARLY).with_status(200)
}
