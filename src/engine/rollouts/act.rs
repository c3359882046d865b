//! What operators do to a rollout: on any daemon, whoever leads.
//!
//! Invariant: a change is made from the state that is read here, and written only over that; audit and state are one write.

use std::str::FromStr;

use super::{
    RolloutView, Which,
    keep::{change, entry, key_of, read, unchanged},
};
use crate::{
    engine::{Engine, levers::Act},
    names::{PipelineName, RolloutName, nearest},
    rollout::{Controller, Event, Readings},
    store::{DocumentKind, StoreError},
};

/// Tries against daemons that change the same state.
const TRIES: usize = 10;

/// What an operator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RolloutAct {
    /// To the next step.
    Promote,
    /// The step may be left.
    Approve,
    /// It stands, for now.
    Pause,
    /// It goes on, and gates that failed and hold are lived with.
    Resume,
    /// Everybody goes to the baseline.
    Abort,
    /// It begins again after a rollback or an abort.
    Retry,
}

impl RolloutAct {
    /// The act of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::from_str(name).ok()
    }
}

/// Why a rollout did not move.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// No such pipeline or rollout.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done where the rollout stands.
    #[error("{0}")]
    Refused(String),
    /// The store did not take it; nothing changed.
    #[error("nothing changed: {0}")]
    Store(#[from] StoreError),
}

impl Engine {
    /// Moves a rollout with steps.
    ///
    /// # Errors
    /// [`RolloutError`]; nothing changed then.
    pub async fn move_rollout(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
        what: RolloutAct,
        act: &Act,
    ) -> Result<RolloutView, RolloutError> {
        self.with_steps(pipeline, rollout)?;
        let which = (pipeline.clone(), rollout.clone());
        let key = key_of(&which);
        for _ in 0..TRIES {
            let Some(written) = self.store.document(DocumentKind::Rollout, &key).await? else {
                return Err(RolloutError::Refused(format!("rollout {key} is about to begin; ask again in a second")));
            };
            let Some(controller) = read::<Controller>(DocumentKind::Rollout, &key, written.clone()) else {
                return Err(RolloutError::Refused(format!("the state of rollout {key} cannot be read; see the log")));
            };
            let readings = self.readings_of(&which, &controller).await?;
            let head = self.store.last_observation(pipeline, rollout).await?;
            let event = match what {
                RolloutAct::Promote => Event::Promote(&readings),
                RolloutAct::Approve => Event::Approve,
                RolloutAct::Pause => Event::Pause,
                RolloutAct::Resume => Event::Resume(&readings),
                RolloutAct::Abort => Event::Abort,
                RolloutAct::Retry => Event::Retry(head),
            };
            let now = self.clock.now();
            let turn = controller.on(event, now).map_err(|refusal| RolloutError::Refused(refusal.to_string()))?;
            if let Some(transition) = &turn.transition {
                let audit = entry(&key, transition, &turn.controller, act, now);
                let changes = vec![change(DocumentKind::Rollout, &key, &turn.controller)];
                if !self.store.apply_if(vec![unchanged(&key, Some(written))], changes, Some(audit)).await? {
                    continue;
                }
                tracing::warn!(rollout = key, actor = %act.actor, reason = ?act.reason, "{}", transition.reason);
                self.follow_courses().await?;
            }
            return self.rollout_view(pipeline, rollout).await;
        }
        Err(RolloutError::Refused(format!("rollout {key} is being changed by others; ask again in a moment")))
    }

    /// What the evidence says, as far as it is known here: in hand while this daemon leads, or as it was saved.
    async fn readings_of(&self, which: &Which, controller: &Controller) -> Result<Readings, StoreError> {
        if let Some(book) = self.rollouts.desk.lock().await.books.get(which)
            && book.casebook.revision() == controller.revision()
        {
            return Ok(book.casebook.readings());
        }
        let saved = self.saved_casebook(&key_of(which), controller).await?;
        Ok(saved.map(|casebook| casebook.readings()).unwrap_or_default())
    }

    /// Says why a rollout has no steps to be moved along.
    pub(super) fn with_steps(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Result<(), RolloutError> {
        let world = self.world();
        let Some(lane) = world.lane(pipeline) else {
            let hint = nearest(pipeline.as_str(), world.lanes().map(|(name, _)| name.as_str()));
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(RolloutError::Unknown(format!("there is no pipeline {pipeline}{hint}")));
        };
        let rollouts = &lane.loaded.pipeline.rollouts;
        match rollouts.iter().find(|known| known.name == *rollout) {
            None => {
                let hint = nearest(rollout.as_str(), rollouts.iter().map(|known| known.name.as_str()));
                let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                Err(RolloutError::Unknown(format!("pipeline {pipeline} has no rollout {rollout}{hint}")))
            }
            Some(known) if known.gated().is_none() => Err(RolloutError::Refused(format!(
                "rollout {pipeline}/{rollout} follows the `percent` in {}: change it there, or give the rollout `steps`",
                lane.loaded.file
            ))),
            Some(_) => Ok(()),
        }
    }
}
