//! Names that rows hold as small numbers: pipelines, nodes, batches.
//!
//! Invariant: a number that a transaction made is forgotten when the transaction is.

use std::{collections::HashMap, hash::Hash};

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::{codes, trouble::Trouble};
use crate::{ids::NodeId, names::PipelineName};

/// Batches whose numbers are kept in memory. More are looked up.
const BATCHES_KEPT: usize = 1_024;

/// The numbers of one kind of name.
#[derive(Debug)]
struct Numbers<K> {
    known: HashMap<K, i64>,
    fresh: Vec<K>,
    find: &'static str,
    add: &'static str,
}

impl<K: Clone + Eq + Hash> Numbers<K> {
    fn new(find: &'static str, add: &'static str) -> Self {
        Self { known: HashMap::new(), fresh: Vec::new(), find, add }
    }

    fn number(&mut self, conn: &Connection, name: &K, column: &dyn ToSql) -> Result<i64, Trouble> {
        if let Some(number) = self.known.get(name) {
            return Ok(*number);
        }
        let found: Option<i64> = conn.prepare_cached(self.find)?.query_row([column], |row| row.get(0)).optional()?;
        let number = if let Some(number) = found {
            number
        } else {
            conn.prepare_cached(self.add)?.execute([column])?;
            conn.last_insert_rowid()
        };
        self.known.insert(name.clone(), number);
        self.fresh.push(name.clone());
        Ok(number)
    }

    fn forget_fresh(&mut self) {
        for name in self.fresh.drain(..) {
            self.known.remove(&name);
        }
    }
}

/// All numbers that the writer knows.
#[derive(Debug)]
pub struct Names {
    pipelines: Numbers<PipelineName>,
    nodes: Numbers<NodeId>,
    batches: Numbers<String>,
    /// The way back, for what is published.
    by_number: HashMap<i64, PipelineName>,
}

impl Names {
    /// Reads pipelines and nodes; batches come as they are needed.
    pub fn load(conn: &Connection) -> Result<Self, Trouble> {
        let mut names = Self {
            pipelines: Numbers::new(
                "SELECT id FROM pipelines WHERE name = ?1",
                "INSERT INTO pipelines (name) VALUES (?1)",
            ),
            nodes: Numbers::new("SELECT id FROM nodes WHERE node = ?1", "INSERT INTO nodes (node) VALUES (?1)"),
            batches: Numbers::new("SELECT id FROM batches WHERE name = ?1", "INSERT INTO batches (name) VALUES (?1)"),
            by_number: HashMap::new(),
        };
        let mut rows = conn.prepare("SELECT id, name FROM pipelines")?;
        for row in rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))? {
            let (number, name) = row?;
            let name: PipelineName = codes::parse(&name)?;
            names.by_number.insert(number, name.clone());
            names.pipelines.known.insert(name, number);
        }
        Ok(names)
    }

    /// The number of a pipeline, made when it has none.
    pub fn pipeline(&mut self, conn: &Connection, name: &PipelineName) -> Result<i64, Trouble> {
        let number = self.pipelines.number(conn, name, &name.as_str())?;
        self.by_number.entry(number).or_insert_with(|| name.clone());
        Ok(number)
    }

    /// The number of a pipeline that any job ever named.
    pub fn known_pipeline(&self, name: &PipelineName) -> Option<i64> {
        self.pipelines.known.get(name).copied()
    }

    /// The name of a pipeline.
    pub fn pipeline_name(&self, number: i64) -> Option<&PipelineName> {
        self.by_number.get(&number)
    }

    /// All pipelines that any job ever named.
    pub fn pipelines(&self) -> Vec<(PipelineName, i64)> {
        self.pipelines.known.iter().map(|(name, number)| (name.clone(), *number)).collect()
    }

    /// The number of a node, made when it has none.
    pub fn node(&mut self, conn: &Connection, node: NodeId) -> Result<i64, Trouble> {
        self.nodes.number(conn, &node, node.as_bytes())
    }

    /// The number of a batch, made when it has none.
    pub fn batch(&mut self, conn: &Connection, name: &String) -> Result<i64, Trouble> {
        if self.batches.known.len() >= BATCHES_KEPT && !self.batches.known.contains_key(name) {
            self.batches.known.clear();
        }
        self.batches.number(conn, name, name)
    }

    /// A batch's row was deleted.
    pub fn forget_batch(&mut self, number: i64) {
        self.batches.known.retain(|_, known| *known != number);
    }

    /// The transaction is durable.
    pub fn keep_fresh(&mut self) {
        self.pipelines.fresh.clear();
        self.nodes.fresh.clear();
        self.batches.fresh.clear();
    }

    /// The transaction is undone.
    pub fn forget_fresh(&mut self) {
        for name in &self.pipelines.fresh {
            if let Some(number) = self.pipelines.known.get(name) {
                self.by_number.remove(number);
            }
        }
        self.pipelines.forget_fresh();
        self.nodes.forget_fresh();
        self.batches.forget_fresh();
        // What a rolled-back prune forgot comes back by itself; a number it freed must not be remembered.
        self.batches.known.clear();
    }
}
