//! Floating-point numbers of a saved state, as their 64 bits.
//!
//! Invariant: what is read back is what was written, to the last bit. Decimal text would be one rounding away from that,
//! and a verdict refolded after a restart would no longer be the verdict that was reached.

use serde::{Deserialize, Deserializer, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(number.to_bits())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    u64::deserialize(deserializer).map(f64::from_bits)
}
