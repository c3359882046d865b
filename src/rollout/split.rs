//! The split: which side of a rollout a key falls to.
//!
//! Invariant: sticky and monotone. Raising a percentage only adds keys to the candidate; lowering it only removes the
//! newest. The published vectors in the tests never change.

use sha2::{Digest, Sha256};

use crate::money::BasisPoints;

/// The bucket of a key, 0 to 9,999: the first 8 bytes, big endian, of SHA-256(`salt` + 0x1f + `key`), scaled.
pub fn bucket(salt: &str, key: &str) -> u16 {
    let digest = Sha256::new().chain_update(salt).chain_update([0x1f]).chain_update(key).finalize();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    let scaled = (u128::from(u64::from_be_bytes(first)) * 10_000) >> 64;
    u16::try_from(scaled).unwrap_or(9_999)
}

/// Whether a bucket falls to the candidate.
pub fn is_candidate(bucket: u16, percent: BasisPoints) -> bool {
    bucket < percent.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        for (key, expected) in [("c-1", 45), ("c-2", 1493), ("c-42", 855), ("customer-0007", 4420), ("ünïcode", 6593)]
        {
            assert_eq!(bucket("ticket-triage/to-bedrock", key), expected, "{key}");
        }
    }
}
