//! Documents, the audit trail, and who leads: small, rare, and changed together.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{codes, session::Session, trouble::Trouble};
use crate::{
    clock::Timestamp,
    ids::NodeId,
    store::{AuditEntry, Condition, DocumentChange, DocumentKind, DocumentPage, Lead},
};

impl Session {
    /// Changes documents and writes the audit entry, if all conditions hold; whether they did.
    pub fn apply(
        &mut self,
        conditions: &[Condition],
        changes: &[DocumentChange],
        audit: Option<&AuditEntry>,
    ) -> Result<bool, Trouble> {
        for condition in conditions {
            if !self.holds(condition)? {
                return Ok(false);
            }
        }
        self.write_documents(changes)?;
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
        self.documents_changed();
        Ok(true)
    }

    fn holds(&self, condition: &Condition) -> Result<bool, Trouble> {
        match condition {
            Condition::Document { kind, key, value } => {
                let found: Option<String> = self
                    .conn
                    .prepare_cached("SELECT value FROM documents WHERE kind = ?1 AND key = ?2")?
                    .query_row(params![kind.to_string(), key], |row| row.get(0))
                    .optional()?;
                let found: Option<serde_json::Value> = found.as_deref().map(serde_json::from_str).transpose()?;
                Ok(found == *value)
            }
            Condition::Leads(lead) => {
                let now = self.now();
                Ok(self.read_lead(&lead.name)?.is_some_and(|kept| kept.token == lead.token && kept.until > now))
            }
        }
    }

    /// Takes the lead, or keeps it.
    pub fn lead(&mut self, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>, Trouble> {
        let now = self.now();
        let before = self.read_lead(name)?;
        let held = before.as_ref().filter(|kept| kept.until > now);
        if held.is_some_and(|kept| kept.node != node) {
            return Ok(None);
        }
        let token = before.as_ref().map_or(0, |kept| kept.token) + u64::from(held.is_none());
        self.write_lead(name, &KeptLead { token, node, until: now + lease })?;
        Ok(Some(Lead { name: name.to_owned(), token }))
    }

    /// Gives a lead back, if it is still this one.
    pub fn resign(&mut self, lead: &Lead) -> Result<(), Trouble> {
        match self.read_lead(&lead.name)? {
            Some(kept) if kept.token == lead.token => {
                self.write_lead(&lead.name, &KeptLead { until: Timestamp::from_micros(0), ..kept })
            }
            _ => Ok(()),
        }
    }

    /// What a node led, it leads no more.
    pub fn resign_all(&mut self, node: NodeId) -> Result<(), Trouble> {
        let names: Vec<String> = {
            let mut statement = self.conn.prepare_cached("SELECT substr(key, 6) FROM meta WHERE key GLOB 'lead:*'")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        for name in names {
            if let Some(kept) = self.read_lead(&name)?
                && kept.node == node
            {
                self.write_lead(&name, &KeptLead { until: Timestamp::from_micros(0), ..kept })?;
            }
        }
        Ok(())
    }

    fn read_lead(&self, name: &str) -> Result<Option<KeptLead>, Trouble> {
        let found: Option<String> = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
            .query_row([format!("lead:{name}")], |row| row.get(0))
            .optional()?;
        Ok(found.as_deref().map(serde_json::from_str).transpose()?)
    }

    fn write_lead(&self, name: &str, lead: &KeptLead) -> Result<(), Trouble> {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        self.execute(sql, params![format!("lead:{name}"), serde_json::to_string(lead)?]).map(drop)
    }

    /// Changes documents.
    pub fn write_documents(&self, changes: &[DocumentChange]) -> Result<(), Trouble> {
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
        Ok(())
    }
}

/// A lead as the file keeps it.
#[derive(Serialize, Deserialize)]
struct KeptLead {
    token: u64,
    node: NodeId,
    until: Timestamp,
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
