//! Days: which table a job's contents, history and ledger rows are in.
//!
//! Ids begin with the millisecond they were made in, so a range of ids is a span of time, and a row is found by its id
//! alone. `contents` and `history` are cut by day, the ledger by thirty days.
//!
//! Invariant: a table is dropped only when every row in it is past its time and no live job belongs to it. Ids of days that
//! have no table of their own go to the `_rest` tables, which never grow unless nobody looks after the days.

use uuid::Uuid;

use super::{
    link::{Link, Pace, Tx, params},
    trouble::Trouble,
};
use crate::clock::Timestamp;

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// Marks the transactions that cut.
const CUTTING: i64 = 0x6c62_7271_0004;

/// Days cut ahead: as long as nobody may be there to cut.
const AHEAD: i64 = 7;

/// One table that is cut, and how wide its pieces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The whole table.
    pub table: &'static str,
    /// Days of one piece.
    pub days: i64,
}

/// Contents of jobs.
pub const CONTENTS: Cut = Cut { table: "contents", days: 1 };
/// Ended jobs.
pub const HISTORY: Cut = Cut { table: "history", days: 1 };
/// Ended attempts.
pub const LEDGER: Cut = Cut { table: "attempts", days: 30 };

const CUTS: [Cut; 3] = [CONTENTS, HISTORY, LEDGER];

/// One piece of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its table, without schema.
    pub name: String,
    /// The first id in it.
    pub from: Uuid,
    /// The first id after it.
    pub to: Uuid,
}

impl Cut {
    fn piece(self, number: i64) -> Piece {
        let name = format!("{}_{}", self.table, number * self.days);
        Piece { name, from: first_id(number * self.days), to: first_id((number + 1) * self.days) }
    }

    /// The piece that this table's name means.
    fn named(self, name: &str) -> Option<Piece> {
        let day: i64 = name.strip_prefix(self.table)?.strip_prefix('_')?.parse().ok()?;
        (day >= 0 && day % self.days == 0).then(|| self.piece(day / self.days))
    }
}

/// The least id of a day since 1970.
fn first_id(day: i64) -> Uuid {
    let millis = u64::try_from(day.saturating_mul(DAY / 1_000)).unwrap_or(0);
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(millis.to_be_bytes().into_iter().skip(2)) {
        *place = byte;
    }
    Uuid::from_bytes(bytes)
}

/// Sees to it that yesterday, today and the days to come have their tables.
pub async fn cut_ahead(link: &Link) -> Result<(), Trouble> {
    cut_days(link, -1, AHEAD).await
}

/// Sees to it that days have their tables, counted from today.
pub async fn cut_days(link: &Link, first: i64, last: i64) -> Result<(), Trouble> {
    // Ids are made by daemons' clocks, whatever clock the store lives by.
    let today = jiff::Timestamp::now().as_microsecond().div_euclid(DAY);
    for cut in CUTS {
        let look = link.look().await?;
        let there = pieces(&look, cut).await?;
        look.done().await?;
        let wanted = (today + first).div_euclid(cut.days)..=(today + last).div_euclid(cut.days);
        for piece in wanted.map(|number| cut.piece(number)).filter(|piece| !there.contains(piece)) {
            let tx = link.begin(Pace::Long).await?;
            // One daemon at a time: `IF NOT EXISTS` alone does not keep two from making the same table.
            tx.execute("SELECT pg_advisory_xact_lock($1)", params![CUTTING => INT8]).await?;
            let Piece { name, from, to } = &piece;
            tx.batch(&format!(
                "CREATE TABLE IF NOT EXISTS landbridge.{name} PARTITION OF landbridge.{} \
                 FOR VALUES FROM ('{from}') TO ('{to}')",
                cut.table
            ))
            .await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// The pieces of a table, oldest first.
pub async fn pieces(tx: &Tx<'_>, cut: Cut) -> Result<Vec<Piece>, Trouble> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
               WHERE i.inhparent = to_regclass('landbridge.' || $1)";
    let mut found = Vec::new();
    for row in tx.query(sql, params![cut.table => TEXT]).await? {
        let name: String = row.try_get(0)?;
        found.extend(cut.named(&name));
    }
    found.sort_by_key(|piece| piece.from);
    Ok(found)
}

/// Whether all ids in a piece were made before a moment.
pub fn is_past(piece: &Piece, moment: Timestamp) -> bool {
    let day = moment.as_micros().div_euclid(DAY);
    piece.to <= first_id(day.max(0))
}

/// Whether all ids in a piece were made on days after a moment's.
pub fn begins_after(piece: &Piece, moment: Timestamp) -> bool {
    let day = moment.as_micros().div_euclid(DAY);
    piece.from > first_id(day.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_days_first_id_is_below_all_ids_of_the_day() {
        let today = jiff::Timestamp::now().as_microsecond().div_euclid(DAY);
        let id = Uuid::now_v7();
        for cut in CUTS {
            let piece = cut.piece(today.div_euclid(cut.days));
            assert!(piece.from <= id && id < piece.to, "{piece:?}");
            assert_eq!(cut.named(&piece.name), Some(piece));
        }
        assert_eq!(HISTORY.named("history_rest"), None);
        assert_eq!(LEDGER.named("attempts_7"), None);
        assert_eq!(first_id(0), Uuid::nil());
    }

    #[test]
    fn a_day_is_past_when_its_last_moment_is() {
        let piece = HISTORY.piece(100);
        assert!(!is_past(&piece, Timestamp::from_micros(101 * DAY - 1)));
        assert!(is_past(&piece, Timestamp::from_micros(101 * DAY)));
    }
}
