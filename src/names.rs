//! Names that operators give to things: pipelines, targets, providers, rollouts, regions.
//!
//! Invariant: a value of one of these types has been checked; a name cannot hold whitespace, control
//! characters or upper case. This floor knows nothing of what the names stand for.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest accepted name, in characters: fits a DNS label and a Prometheus label comfortably.
pub const MAX_NAME_LENGTH: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a name: use 1 to {MAX_NAME_LENGTH} characters of a-z, 0-9 and '-', starting with a letter or digit"
)]
pub struct InvalidName {
    /// The text as given, cut to a printable length.
    pub text: String,
}

/// Checks the common form of names: `[a-z0-9][a-z0-9-]{0,62}`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_LENGTH
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks and wraps a text.
            ///
            /// # Errors
            /// [`InvalidName`] when the text is not of the form `[a-z0-9][a-z0-9-]{0,62}`.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(InvalidName { text: text.chars().take(80).collect() })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" })
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A pipeline: one kind of work, one spec.
    PipelineName
);
name!(
    /// A target inside a pipeline: a named provider and model.
    TargetName
);
name!(
    /// A configured provider account, such as `openai` or `bedrock-eu`.
    ProviderName
);
name!(
    /// A rollout inside a pipeline.
    RolloutName
);
name!(
    /// A cloud region, such as `eu-central-1`.
    Region
);

impl ProviderName {
    /// The name as flags and environment variables spell it: upper case, `-` as `_`.
    pub fn shouted(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

/// The known name nearest to `given`, if one is near enough to be a likely slip of the pen.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = given.chars().count();
    known
        .into_iter()
        .filter_map(|candidate| {
            let own = candidate.chars().count();
            let most = 1 + own / 4;
            // The lengths alone bound the distance from below: long texts cost nothing.
            let distance = (length.abs_diff(own) <= most).then(|| strsim::damerau_levenshtein(given, candidate))?;
            (distance <= most).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "ticket-triage", "0", "a-1"] {
            assert!(PipelineName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "a_b", "ü", &"x".repeat(64)] {
            assert!(PipelineName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(nearest("bedrok", ["openai", "bedrock"]), Some("bedrock"));
        assert_eq!(nearest("zzz", ["openai", "bedrock"]), None);
        assert_eq!(ProviderName::new("bedrock-openai").unwrap().shouted(), "BEDROCK_OPENAI");
    }
}
