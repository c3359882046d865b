//! A key's text and its hash.
//!
//! Invariant: the text has no `Display` and its `Debug` says nothing. A key made here has 256 bits of chance in it, so
//! one round of SHA-256 is as hard to undo as guessing it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a key made here begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "lbk_";

/// The text of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new key from chance.
    pub fn from_chance(bytes: [u8; 32]) -> Self {
        use base64::Engine as _;
        Self(format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text itself, for the one time it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its hash.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a key's text; written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

/// Why a text is not a hash. The text is not repeated: it may be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the SHA-256 of a key: expected 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them")]
pub struct InvalidHash;

impl KeyHash {
    /// Of a key's text.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Compares without telling by its time how much was alike.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for KeyHash {}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyHash {
    type Err = InvalidHash;

    /// Reads what [`fmt::Display`] writes, or a line of `sha256sum`.
    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let word = text.split_ascii_whitespace().next().unwrap_or_default();
        let digits = word.strip_prefix("sha256:").unwrap_or(word);
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidHash);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidHash)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_as_written_and_as_sha256sum_prints_them() {
        let token = Token::from_chance([7; 32]);
        assert!(token.expose().starts_with("lbk_") && token.expose().len() == 47, "{}", token.expose());
        let hash = token.hash();
        let text = hash.to_string();
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(format!("{}  -\n", &text[7..]).parse(), Ok(hash));
        assert_ne!(KeyHash::of("other"), hash);
        assert!(!format!("{token:?}{hash:?}").contains("lbk_"));
        for bad in ["", "sha256:", "abc", &"g".repeat(64), &"é".repeat(32), &"+f".repeat(32)] {
            assert_eq!(bad.parse::<KeyHash>(), Err(InvalidHash), "{bad}");
        }
    }
}
