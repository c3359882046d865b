//! Notices of ends: the callbacks of the jobs that a change ends, read under its locks and written with it.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    change::Change,
    columns::{get, job_id, uuid},
    link::{Param, Tx, params},
    trouble::Trouble,
};
use crate::{
    job::State,
    store::{Notice, codes},
};

const CALLBACKS: &str = "SELECT c.id, c.callback, p.name FROM unnest($1::uuid[], $2::int[]) AS u (id, pipeline) \
    JOIN landbridge.contents c ON c.id = u.id JOIN landbridge.pipelines p ON p.id = u.pipeline \
    WHERE c.id = ANY($1) AND c.callback IS NOT NULL";

const POST: &str = "INSERT INTO landbridge.documents (kind, key, value) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) \
    ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value";

/// Documents to be written, column by column.
#[derive(Debug, Default)]
pub struct Posts {
    kinds: Vec<String>,
    keys: Vec<String>,
    values: Vec<String>,
}

impl Posts {
    /// The notices of the jobs that a change ends. Most changes end none that somebody is told of, and ask nothing.
    pub async fn of(tx: &Tx<'_>, change: &Change) -> Result<Self, Trouble> {
        let ended: HashMap<Uuid, (i32, State)> = change
            .live
            .values()
            .map(|held| &held.row)
            .filter(|row| row.calls_back && row.state.is_terminal())
            .map(|row| (uuid(row.id), (row.pipeline, row.state)))
            .collect();
        let mut posts = Self::default();
        if ended.is_empty() {
            return Ok(posts);
        }
        let (ids, pipelines): (Vec<Uuid>, Vec<i32>) = ended.iter().map(|(id, (pipeline, _))| (*id, *pipeline)).unzip();
        for row in tx.query(CALLBACKS, params![ids => UUID_ARRAY, pipelines => INT4_ARRAY]).await? {
            let id: Uuid = get(&row, 0)?;
            let Some((_, state)) = ended.get(&id) else { continue };
            let pipeline = codes::parse(get(&row, 2)?)?;
            let (id, notice) = Notice::of_job(job_id(id), &pipeline, *state, get(&row, 1)?, change.now);
            for document in notice.posting(&id) {
                posts.kinds.push(document.kind.to_string());
                posts.keys.push(document.key);
                posts.values.push(document.value.unwrap_or_default().to_string());
            }
        }
        Ok(posts)
    }

    /// The statement that writes them, if there are any.
    pub fn statement(&self) -> Option<(&'static str, Vec<Param<'_>>)> {
        let Self { kinds, keys, values } = self;
        let params = params![*kinds => TEXT_ARRAY, *keys => TEXT_ARRAY, *values => TEXT_ARRAY];
        (!kinds.is_empty()).then(|| (POST, params.to_vec()))
    }
}
