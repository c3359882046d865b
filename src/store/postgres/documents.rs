//! Documents, the audit trail, and who leads: small, rare, and changed together.
//!
//! Invariant: changes of documents come one after another, so a condition that holds when it is looked at still holds when
//! the change is made.

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::{
    columns::{clean, get, node as column, time},
    link::{Link, Pace, Tx, params},
    trouble::Trouble,
};
use crate::{
    clock::Timestamp,
    ids::NodeId,
    store::{AuditEntry, Condition, DocumentChange, DocumentKind, DocumentPage, Lead, codes},
};

/// Changes documents and writes the audit entry, if all conditions hold; whether they did.
pub async fn apply(
    link: &Link,
    conditions: &[Condition],
    changes: &[DocumentChange],
    audit: Option<&AuditEntry>,
) -> Result<bool, Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    // Locks the one row that every change goes through.
    tx.execute("UPDATE landbridge.revision SET number = number + 1", &[]).await?;
    for condition in conditions {
        if !holds(&tx, condition).await? {
            tx.undo().await?;
            return Ok(false);
        }
    }
    for DocumentChange { kind, key, value } in changes {
        let (kind, key) = (kind.to_string(), clean(key));
        if let Some(value) = value {
            let sql = "INSERT INTO landbridge.documents (kind, key, value) VALUES ($1, $2, $3) \
                       ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value";
            tx.execute(sql, params![kind => TEXT, key => TEXT, value.to_string() => TEXT]).await?;
        } else {
            let sql = "DELETE FROM landbridge.documents WHERE kind = $1 AND key = $2";
            tx.execute(sql, params![kind => TEXT, key => TEXT]).await?;
        }
    }
    if let Some(entry) = audit {
        let reason = entry.reason.as_deref().map(clean);
        let sql =
            "INSERT INTO landbridge.audit (at, actor, action, subject, reason, detail) VALUES ($1, $2, $3, $4, $5, $6)";
        tx.execute(
            sql,
            params![
                entry.at.as_micros() => INT8, clean(&entry.actor) => TEXT, clean(&entry.action) => TEXT,
                clean(&entry.subject) => TEXT, reason => TEXT, entry.detail.to_string() => TEXT,
            ],
        )
        .await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn holds(tx: &Tx<'_>, condition: &Condition) -> Result<bool, Trouble> {
    match condition {
        Condition::Document { kind, key, value } => {
            let sql = "SELECT value FROM landbridge.documents WHERE kind = $1 AND key = $2";
            let found = tx.query_opt(sql, params![kind.to_string() => TEXT, clean(key) => TEXT]).await?;
            let found: Option<serde_json::Value> =
                found.map(|row| Ok::<_, Trouble>(serde_json::from_str(get(&row, 0)?)?)).transpose()?;
            Ok(found == *value)
        }
        Condition::Leads(lead) => {
            let sql = "SELECT 1 FROM landbridge.leads WHERE name = $1 AND token = $2 AND until > $3 FOR UPDATE";
            let token = codes::signed(lead.token);
            let now = tx.now.as_micros();
            Ok(tx.query_opt(sql, params![lead.name => TEXT, token => INT8, now => INT8]).await?.is_some())
        }
    }
}

/// All documents of a kind, by key.
pub async fn documents(link: &Link, kind: DocumentKind) -> Result<BTreeMap<String, serde_json::Value>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT key, value FROM landbridge.documents WHERE kind = $1";
    let rows = tx.query(sql, params![kind.to_string() => TEXT]).await?;
    tx.done().await?;
    rows.iter().map(|row| Ok((get(row, 0)?, serde_json::from_str(get(row, 1)?)?))).collect()
}

/// One document.
pub async fn document(link: &Link, kind: DocumentKind, key: &str) -> Result<Option<serde_json::Value>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT value FROM landbridge.documents WHERE kind = $1 AND key = $2";
    let row = tx.query_opt(sql, params![kind.to_string() => TEXT, clean(key) => TEXT]).await?;
    tx.done().await?;
    row.map(|row| Ok(serde_json::from_str(get(&row, 0)?)?)).transpose()
}

/// Some documents of a kind in the order of their keys.
pub async fn page(link: &Link, page: &DocumentPage) -> Result<Vec<(String, serde_json::Value)>, Trouble> {
    let sql = match (&page.after, page.descending) {
        (None, false) => "SELECT key, value FROM landbridge.documents WHERE kind = $1 ORDER BY key LIMIT $3",
        (None, true) => "SELECT key, value FROM landbridge.documents WHERE kind = $1 ORDER BY key DESC LIMIT $3",
        (Some(_), false) => {
            "SELECT key, value FROM landbridge.documents WHERE kind = $1 AND key > $2 ORDER BY key LIMIT $3"
        }
        (Some(_), true) => {
            "SELECT key, value FROM landbridge.documents WHERE kind = $1 AND key < $2 ORDER BY key DESC LIMIT $3"
        }
    };
    let tx = link.look().await?;
    let after = page.after.as_deref().map(clean);
    let rows =
        tx.query(sql, params![page.kind.to_string() => TEXT, after => TEXT, i64::from(page.limit) => INT8]).await?;
    tx.done().await?;
    rows.iter().map(|row| Ok((get(row, 0)?, serde_json::from_str(get(row, 1)?)?))).collect()
}

/// Counts changes of documents.
pub async fn revision(link: &Link) -> Result<u64, Trouble> {
    let tx = link.look().await?;
    let row = tx.query_opt("SELECT number FROM landbridge.revision", &[]).await?;
    tx.done().await?;
    Ok(codes::unsigned(row.map(|row| get(&row, 0)).transpose()?.unwrap_or(0)))
}

/// Audit entries since a moment, oldest first.
pub async fn audit(link: &Link, since: Timestamp, limit: u32) -> Result<Vec<AuditEntry>, Trouble> {
    let tx = link.look().await?;
    let sql = "SELECT at, actor, action, subject, reason, detail FROM landbridge.audit WHERE at >= $1 ORDER BY at, seq LIMIT $2";
    let rows = tx.query(sql, params![since.as_micros() => INT8, i64::from(limit) => INT8]).await?;
    tx.done().await?;
    rows.iter()
        .map(|row| {
            Ok(AuditEntry {
                at: time(row, 0)?,
                actor: get(row, 1)?,
                action: get(row, 2)?,
                subject: get(row, 3)?,
                reason: get(row, 4)?,
                detail: serde_json::from_str(get(row, 5)?)?,
            })
        })
        .collect()
}

/// Takes the lead, or keeps it.
pub async fn lead(link: &Link, name: &str, node: NodeId, lease: Duration) -> Result<Option<Lead>, Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let now = tx.now.as_micros();
    let until = (tx.now + lease).as_micros();
    let who = column(node);
    let sql = "INSERT INTO landbridge.leads AS l (name, token, node, until) VALUES ($1, 1, $2, $4) \
        ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until, \
        token = l.token + CASE WHEN l.node = excluded.node AND l.until > $3 THEN 0 ELSE 1 END \
        WHERE l.until <= $3 OR l.node = excluded.node RETURNING token";
    let row = tx.query_opt(sql, params![name => TEXT, who => UUID, now => INT8, until => INT8]).await?;
    let Some(row) = row else {
        tx.done_without_receipt().await?;
        return Ok(None);
    };
    let token = codes::unsigned(get(&row, 0)?);
    tx.commit().await?;
    Ok(Some(Lead { name: name.to_owned(), token }))
}

/// Gives the lead back, if it is still this one.
pub async fn resign(link: &Link, lead: &Lead) -> Result<(), Trouble> {
    let tx = link.begin(Pace::Quick).await?;
    let sql = "UPDATE landbridge.leads SET until = 0 WHERE name = $1 AND token = $2";
    tx.execute(sql, params![lead.name => TEXT, codes::signed(lead.token) => INT8]).await?;
    tx.commit().await
}

/// What a node led, it leads no more.
pub async fn resign_all(tx: &Tx<'_>, node: Uuid) -> Result<(), Trouble> {
    tx.execute("UPDATE landbridge.leads SET until = 0 WHERE node = $1 AND until > 0", params![node => UUID])
        .await
        .map(drop)
}

/// The daemons that the store has heard of, and when last; `None` for one that stopped, or was given up.
pub async fn nodes(link: &Link) -> Result<BTreeMap<NodeId, Option<Timestamp>>, Trouble> {
    let tx = link.look().await?;
    let rows = tx.query("SELECT node, seen_at FROM landbridge.nodes", &[]).await?;
    tx.done().await?;
    rows.iter()
        .map(|row| {
            let node: Uuid = get(row, 0)?;
            Ok((NodeId::from_bytes(*node.as_bytes()), super::columns::some_time(row, 1)?))
        })
        .collect()
}
