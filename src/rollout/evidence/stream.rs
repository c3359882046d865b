//! Rows in the order of their places, each once.
//!
//! Invariant: rows leave in order, and none leaves that is not later than the last. So it does not matter in which order, how
//! often, or on which side of a restart they come in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row::{Place, Row};

/// Most rows that wait for an earlier one: what a hundred jobs a second dispatch in a quarter of an hour.
pub const MOST_WAITING: usize = 100_000;

/// What became of a row that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is kept until its turn comes.
    Kept,
    /// It is at or before the last row that was counted: nothing changes.
    Known,
    /// Too many rows wait, so a later one was let go. Nothing beyond that row is counted until [`super::Evidence::reread`].
    Full,
}

/// Rows of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream<R> {
    /// The last row that was counted.
    last: Option<Place>,
    #[serde(skip, default = "BTreeMap::new")]
    waiting: BTreeMap<Place, R>,
    /// The first row that was let go.
    #[serde(skip)]
    lost: Option<Place>,
}

impl<R> Default for Stream<R> {
    fn default() -> Self {
        Self { last: None, waiting: BTreeMap::new(), lost: None }
    }
}

impl<R: Row> Stream<R> {
    /// Takes a row in.
    pub fn offer(&mut self, row: R) -> Offered {
        let place = row.place();
        if self.last.is_some_and(|last| place <= last) {
            return Offered::Known;
        }
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.learn(row);
            return Offered::Kept;
        }
        self.waiting.insert(place, row);
        if self.waiting.len() <= MOST_WAITING {
            return Offered::Kept;
        }
        // The latest goes: the earliest are needed first, whatever order they come in.
        if let Some((place, _)) = self.waiting.pop_last() {
            self.lost = Some(self.lost.map_or(place, |lost| lost.min(place)));
        }
        Offered::Full
    }

    /// The next row, if its number is at most `through` and `ready` says so.
    pub fn next(&mut self, through: u64, ready: impl FnOnce(&R) -> bool) -> Option<R> {
        let entry = self.waiting.first_entry()?;
        let place = *entry.key();
        if place.sequence > through || self.lost.is_some_and(|lost| place >= lost) || !ready(entry.get()) {
            return None;
        }
        self.last = Some(place);
        Some(entry.remove())
    }

    /// The last row that was counted: the ledger is read from here after a restart.
    pub fn last(&self) -> Option<Place> {
        self.last
    }

    /// The place of the first row that waits.
    pub fn first(&self) -> Option<Place> {
        self.waiting.first_key_value().map(|(place, _)| *place)
    }

    /// Rows that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets what waits, so that everything after [`Stream::last`] can be handed in again.
    pub fn reread(&mut self) {
        self.waiting.clear();
        self.lost = None;
    }
}
