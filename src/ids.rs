//! Identifiers that landbridge makes: jobs, attempts, nodes.
//!
//! Invariant: ids of one kind sort by the time they were made (UUID version 7), so that a store can append.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: expected {prefix}_ followed by 32 hexadecimal digits")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Uuid);

        impl $type {
            /// A new id, later in order than all made before it in this process.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id from the 16 bytes that a store keeps.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes that a store keeps.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .filter(|hex| hex.len() == 32)
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId {
                        text: text.chars().take(80).collect(),
                        kind: $kind,
                        prefix: $prefix,
                    })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": concat!("^", $prefix, "_[0-9a-f]{32}$") })
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A job.
    JobId, "job", "a job id"
);
id!(
    /// One call to one target for one job.
    AttemptId, "att", "an attempt id"
);
id!(
    /// One daemon on one store; a daemon that restarts on the same store keeps its node id.
    NodeId, "node", "a node id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_sort_by_age() {
        let older = JobId::generate();
        let newer = JobId::generate();
        assert!(older < newer);
        assert_eq!(older.to_string().parse::<JobId>().unwrap(), older);
        assert_eq!(JobId::from_bytes(*older.as_bytes()), older);
        for bad in
            ["", "job_", "job_12", "att_00000000000000000000000000000000", "job_zz000000000000000000000000000000"]
        {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
