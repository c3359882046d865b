//! Contents: bytes too many for a row, in pieces, where every daemon finds them.
//!
//! Invariant: pieces follow one another without a gap; a content is read only when it is sealed, and never changes then.

use bytes::{Bytes, BytesMut};

use super::{
    columns::get,
    link::{Link, Pace, Tx, params},
    trouble::Trouble,
};
use crate::store::codes;

/// Bytes of one piece: a row that the server moves in some milliseconds.
const PIECE: usize = 1 << 20;

async fn standing(tx: &Tx<'_>, id: &str) -> Result<Option<(u64, bool)>, Trouble> {
    let sql = "SELECT size, sealed FROM landbridge.shelf WHERE id = $1 FOR UPDATE";
    let row = tx.query_opt(sql, params![id => TEXT]).await?;
    row.map(|row| Ok((codes::unsigned(get(&row, 0)?), get(&row, 1)?))).transpose()
}

/// Writes a piece behind the `at` bytes that a content has; the first piece makes it.
pub async fn write(link: &Link, id: &str, at: u64, bytes: &Bytes) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let making = "INSERT INTO landbridge.shelf (id, size, sealed) VALUES ($1, 0, false) ON CONFLICT DO NOTHING";
    if at == 0 {
        tx.execute(making, params![id => TEXT]).await?;
    }
    let (size, sealed) = standing(&tx, id).await?.unwrap_or((0, true));
    if size != at || sealed {
        tx.undo().await?;
        return Err(Trouble::Row(format!("content {id} has {size} bytes, and a piece came for byte {at}")));
    }
    let mut place = at;
    for piece in bytes.chunks(PIECE) {
        let sql = "INSERT INTO landbridge.pieces (id, at, bytes) VALUES ($1, $2, $3)";
        tx.execute(sql, params![id => TEXT, codes::signed(place) => INT8, piece => BYTEA]).await?;
        place += piece.len() as u64;
    }
    let sql = "UPDATE landbridge.shelf SET size = $2 WHERE id = $1";
    tx.execute(sql, params![id => TEXT, codes::signed(place) => INT8]).await?;
    tx.commit().await
}

/// Makes a content whole.
pub async fn seal(link: &Link, id: &str) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let sql = "INSERT INTO landbridge.shelf (id, size, sealed) VALUES ($1, 0, true) \
               ON CONFLICT (id) DO UPDATE SET sealed = true";
    tx.execute(sql, params![id => TEXT]).await?;
    tx.commit().await
}

/// Bytes of a sealed content.
pub async fn read(link: &Link, id: &str, at: u64, most: usize) -> Result<Option<Bytes>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT size FROM landbridge.shelf WHERE id = $1 AND sealed";
    let Some(row) = tx.query_opt(sql, params![id => TEXT]).await? else {
        tx.done().await?;
        return Ok(None);
    };
    let size = codes::unsigned(get(&row, 0)?);
    let end = at.saturating_add(most as u64).min(size);
    let mut bytes = BytesMut::new();
    if at < end {
        let first = codes::signed(at.saturating_sub(PIECE as u64));
        let sql = "SELECT at, bytes FROM landbridge.pieces WHERE id = $1 AND at >= $2 AND at < $3 ORDER BY at";
        for row in tx.query(sql, params![id => TEXT, first => INT8, codes::signed(end) => INT8]).await? {
            let (place, piece): (i64, &[u8]) = (get(&row, 0)?, get(&row, 1)?);
            let place = codes::unsigned(place);
            let from = usize::try_from(at.saturating_sub(place)).unwrap_or(usize::MAX).min(piece.len());
            let to = usize::try_from(end.saturating_sub(place)).unwrap_or(usize::MAX).min(piece.len());
            bytes.extend_from_slice(piece.get(from..to).unwrap_or_default());
        }
        if bytes.len() as u64 != end - at {
            return Err(Trouble::Row(format!("content {id} is not whole behind byte {at}")));
        }
    }
    tx.done().await?;
    Ok(Some(bytes.freeze()))
}

/// Deletes a content.
pub async fn delete(link: &Link, id: &str) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Long).await?;
    tx.execute("DELETE FROM landbridge.shelf WHERE id = $1", params![id => TEXT]).await?;
    tx.execute("DELETE FROM landbridge.pieces WHERE id = $1", params![id => TEXT]).await?;
    tx.commit().await
}

/// The ids of all contents.
pub async fn ids(link: &Link) -> Result<Vec<String>, Trouble> {
    let tx = link.look().await?;
    let rows = tx.query("SELECT id FROM landbridge.shelf ORDER BY id", &[]).await?;
    tx.done().await?;
    rows.iter().map(|row| get(row, 0)).collect()
}
