//! Documents, the audit trail, and who leads.

use std::time::Duration;

use super::table::Table;
use crate::{
    clock::Timestamp,
    ids::NodeId,
    store::{AuditEntry, Condition, DocumentChange, Lead},
};

impl Table {
    pub fn apply_if(
        &mut self,
        conditions: &[Condition],
        changes: Vec<DocumentChange>,
        audit: Option<AuditEntry>,
        now: Timestamp,
    ) -> bool {
        if !conditions.iter().all(|condition| self.holds(condition, now)) {
            return false;
        }
        for change in changes {
            self.write_document(change);
        }
        self.audit.extend(audit);
        self.revision += 1;
        true
    }

    fn holds(&self, condition: &Condition, now: Timestamp) -> bool {
        match condition {
            Condition::Document { kind, key, value } => {
                self.documents.get(kind).and_then(|documents| documents.get(key)) == value.as_ref()
            }
            Condition::Leads(Lead { name, token }) => {
                self.leads.get(name).is_some_and(|(current, _, until)| current == token && *until > now)
            }
        }
    }

    pub fn lead(&mut self, name: &str, node: NodeId, lease: Duration, now: Timestamp) -> Option<Lead> {
        let nobody = (0, node, Timestamp::from_micros(0));
        let (token, leader, until) = self.leads.entry(name.to_owned()).or_insert(nobody);
        if *until > now && *leader != node {
            return None;
        }
        if *until <= now {
            *token += 1;
        }
        (*leader, *until) = (node, now + lease);
        Some(Lead { name: name.to_owned(), token: *token })
    }

    pub fn resign(&mut self, lead: &Lead) {
        if let Some((token, _, until)) = self.leads.get_mut(&lead.name)
            && *token == lead.token
        {
            *until = Timestamp::from_micros(0);
        }
    }
}
