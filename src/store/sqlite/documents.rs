//! Documents and the audit trail: small, rare, and changed together.

use rusqlite::{Connection, params};

use super::{codes, session::Session, trouble::Trouble};
use crate::{
    clock::Timestamp,
    store::{AuditEntry, DocumentChange, DocumentKind, DocumentPage},
};

impl Session {
    /// Changes documents and writes the audit entry.
    pub fn apply(&mut self, changes: &[DocumentChange], audit: Option<&AuditEntry>) -> Result<(), Trouble> {
        for DocumentChange { kind, key, value } in changes {
            match value {
                Some(value) => self.execute(
                    "INSERT OR REPLACE INTO documents (kind, key, value) VALUES (?1, ?2, ?3)",
                    params![kind.to_string(), key, value.to_string()],
                )?,
                None => {
                    self.execute("DELETE FROM documents WHERE kind = ?1 AND key = ?2", params![kind.to_string(), key])?
                }
            };
        }
        if let Some(entry) = audit {
            self.execute(
                "INSERT INTO audit (at, actor, action, subject, reason, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    entry.at.as_micros(),
                    entry.actor,
                    entry.action,
                    entry.subject,
                    entry.reason,
                    entry.detail.to_string()
                ],
            )?;
        }
        Ok(())
    }
}

/// All documents of a kind, by key.
pub fn documents(
    conn: &Connection,
    kind: DocumentKind,
) -> Result<std::collections::BTreeMap<String, serde_json::Value>, Trouble> {
    let mut statement = conn.prepare_cached("SELECT key, value FROM documents WHERE kind = ?1")?;
    let mut rows = statement.query([kind.to_string()])?;
    let mut found = std::collections::BTreeMap::new();
    while let Some(row) = rows.next()? {
        found.insert(row.get(0)?, serde_json::from_str(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?);
    }
    Ok(found)
}

/// One document.
pub fn document(conn: &Connection, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>, Trouble> {
    let mut statement = conn.prepare_cached("SELECT value FROM documents WHERE kind = ?1 AND key = ?2")?;
    let mut rows = statement.query(params![kind.to_string(), key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?))
}

/// Some documents of a kind in the order of their keys.
pub fn page(conn: &Connection, page: &DocumentPage) -> Result<Vec<(String, serde_json::Value)>, Trouble> {
    let sql = match (&page.after, page.descending) {
        (None, false) => "SELECT key, value FROM documents WHERE kind = ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3",
        (None, true) => "SELECT key, value FROM documents WHERE kind = ?1 AND ?2 IS NULL ORDER BY key DESC LIMIT ?3",
        (Some(_), false) => "SELECT key, value FROM documents WHERE kind = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
        (Some(_), true) => "SELECT key, value FROM documents WHERE kind = ?1 AND key < ?2 ORDER BY key DESC LIMIT ?3",
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![page.kind.to_string(), page.after, page.limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, serde_json::from_str(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?));
    }
    Ok(found)
}

/// Audit entries since a moment, oldest first.
pub fn audit(conn: &Connection, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT at, actor, action, subject, reason, detail FROM audit WHERE at >= ?1 ORDER BY at, seq LIMIT ?2",
    )?;
    let mut rows = statement.query(params![since.as_micros(), codes::signed(u64::from(limit))])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: String = row.get(5)?;
        found.push(AuditEntry {
            at: Timestamp::from_micros(row.get(0)?),
            actor: row.get(1)?,
            action: row.get(2)?,
            subject: row.get(3)?,
            reason: row.get(4)?,
            detail: serde_json::from_str(&detail)?,
        });
    }
    Ok(found)
}
