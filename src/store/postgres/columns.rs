//! What rows hold, and what becomes of Rust values on their way into columns.
//!
//! Invariant: any text comes back as it went in. PostgreSQL's `text` holds no NUL, so what callers give is kept as bytes;
//! texts that are only for people lose their NULs.

use std::{borrow::Cow, collections::BTreeMap};

use sha2::{Digest, Sha256};
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use super::trouble::Trouble;
use crate::{
    clock::Timestamp,
    ids::{JobId, NodeId},
    job::{HoldReason, State},
    store::codes,
};

/// A job's id as the column holds it.
pub fn uuid(id: JobId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// A node's id as the column holds it.
pub fn node(id: NodeId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// The id that a column holds.
pub fn job_id(id: Uuid) -> JobId {
    JobId::from_bytes(*id.as_bytes())
}

/// A number that stands for a text of any length in an index: half of its SHA-256.
pub fn hash(text: &str) -> Uuid {
    let digest = Sha256::digest(text.as_bytes());
    let mut half = [0; 16];
    for (place, byte) in half.iter_mut().zip(digest) {
        *place = byte;
    }
    Uuid::from_bytes(half)
}

/// A text for people as a `text` column can hold it.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A caller's text from the bytes that it is kept as.
pub fn text(bytes: Vec<u8>) -> Result<String, Trouble> {
    String::from_utf8(bytes).map_err(|_| Trouble::Row("a text is not UTF-8".to_owned()))
}

/// Metadata as the column holds it; empty is NULL.
pub fn metadata(text: Option<&str>) -> Result<BTreeMap<String, String>, Trouble> {
    Ok(text.map(serde_json::from_str).transpose()?.unwrap_or_default())
}

/// A state as the column holds it.
pub fn state_code(state: State) -> i16 {
    i16::try_from(codes::state_code(state)).unwrap_or(i16::MAX)
}

/// The state in a column.
pub fn state(row: &Row, place: usize) -> Result<State, Trouble> {
    let code: i16 = row.try_get(place)?;
    Ok(codes::state(i64::from(code))?)
}

/// A column.
pub fn get<'a, T: FromSql<'a>>(row: &'a Row, place: usize) -> Result<T, Trouble> {
    Ok(row.try_get(place)?)
}

/// A moment in a column.
pub fn time(row: &Row, place: usize) -> Result<Timestamp, Trouble> {
    Ok(Timestamp::from_micros(row.try_get(place)?))
}

/// A moment in a column, if there is one.
pub fn some_time(row: &Row, place: usize) -> Result<Option<Timestamp>, Trouble> {
    Ok(row.try_get::<_, Option<i64>>(place)?.map(Timestamp::from_micros))
}

/// A job's live row, as far as its steps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub id: JobId,
    pub pipeline: i32,
    pub state: State,
    pub fence: i64,
    pub expiry_key: i64,
    pub run_at: Option<i64>,
    pub hold: Option<HoldReason>,
    pub held_at: Option<i64>,
    pub node: Option<Uuid>,
    pub batch: Option<Uuid>,
    pub crashes: i32,
    pub suspect: bool,
    pub assigned: bool,
    /// Its caller waits for it at its daemon.
    pub live: bool,
    /// Somebody is told of its end.
    pub calls_back: bool,
}

/// The columns of [`Standing`].
macro_rules! standing {
    () => {
        "id, pipeline, state, fence, expiry_key, run_at, hold, held_at, node, batch, crashes, suspect, \
         assignment IS NOT NULL, live, calls_back"
    };
}
pub(super) use standing;

impl Standing {
    /// From a row of `standing!`.
    pub fn read(row: &Row) -> Result<Self, Trouble> {
        Ok(Self {
            id: job_id(get(row, 0)?),
            pipeline: get(row, 1)?,
            state: state(row, 2)?,
            fence: get(row, 3)?,
            expiry_key: get(row, 4)?,
            run_at: get(row, 5)?,
            hold: get::<Option<&str>>(row, 6)?.map(codes::parse).transpose()?,
            held_at: get(row, 7)?,
            node: get(row, 8)?,
            batch: get(row, 9)?,
            crashes: get(row, 10)?,
            suspect: get(row, 11)?,
            assigned: get(row, 12)?,
            live: get(row, 13)?,
            calls_back: get(row, 14)?,
        })
    }
}
