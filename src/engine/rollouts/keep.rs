//! States and casebooks as documents.
//!
//! Invariant: what is written was made from the document that is named as the condition; who loses the race has changed nothing.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Courses, Which};
use crate::{
    clock::Timestamp,
    engine::{Engine, levers::Act},
    names::{PipelineName, RolloutName},
    rollout::{Casebook, Controller, Transition},
    store::{AuditEntry, Condition, DocumentChange, DocumentKind, StoreError},
};

/// The key of a rollout's documents.
pub(super) fn key_of((pipeline, rollout): &Which) -> String {
    format!("{pipeline}/{rollout}")
}

/// The rollout that a document is about.
pub(super) fn which(key: &str) -> Option<Which> {
    let (pipeline, rollout) = key.split_once('/')?;
    Some((PipelineName::new(pipeline).ok()?, RolloutName::new(rollout).ok()?))
}

/// What a document says; a document that cannot be read is reported and passed over.
pub(super) fn read<T: DeserializeOwned>(kind: DocumentKind, key: &str, value: Value) -> Option<T> {
    serde_json::from_value(value)
        .inspect_err(
            |error| tracing::error!(%kind, key, %error, "this document cannot be read; the rollout stands still"),
        )
        .ok()
}

/// A document to be written.
pub(super) fn change<T: Serialize>(kind: DocumentKind, key: &str, value: &T) -> DocumentChange {
    DocumentChange { kind, key: key.to_owned(), value: serde_json::to_value(value).ok() }
}

/// That a document is still this one.
pub(super) fn unchanged(key: &str, value: Option<Value>) -> Condition {
    Condition::Document { kind: DocumentKind::Rollout, key: key.to_owned(), value }
}

/// The entry of a transition.
pub(super) fn entry(
    key: &str,
    transition: &Transition,
    controller: &Controller,
    act: &Act,
    now: Timestamp,
) -> AuditEntry {
    let by_itself = act.reason.is_none();
    AuditEntry {
        at: now,
        actor: act.actor.clone(),
        action: format!("rollout.{}", transition.change),
        subject: key.to_owned(),
        reason: Some(act.reason.clone().unwrap_or_else(|| transition.reason.clone())),
        detail: json!({
            "from": transition.from,
            "to": transition.to,
            "percent_before": transition.percent_before.to_string(),
            "percent_after": transition.percent_after.to_string(),
            "revision": controller.revision(),
            "what": if by_itself { Value::Null } else { json!(transition.reason) },
        }),
    }
}

impl Engine {
    /// Takes over what became of rollouts elsewhere, or here. Decisions are made anew only where one could tell.
    pub(in crate::engine) async fn follow_courses(&self) -> Result<(), StoreError> {
        let courses = Courses::read(&self.store).await?;
        if courses != *self.world().courses {
            self.install_courses(Arc::new(courses));
        }
        Ok(())
    }

    /// The casebook as it was saved last.
    pub(super) async fn saved_casebook(
        &self,
        key: &str,
        controller: &Controller,
    ) -> Result<Option<Casebook>, StoreError> {
        let saved = self.store.document(DocumentKind::Evidence, key).await?;
        let casebook = saved.and_then(|value| read::<Casebook>(DocumentKind::Evidence, key, value));
        Ok(casebook.filter(|casebook| casebook.revision() == controller.revision()).map(Casebook::resumed))
    }
}
