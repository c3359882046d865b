//! How far the rollouts with steps have come: what routing asks of their state.
//!
//! Invariant: a course is the state in the store as it was last read; nothing here moves it. A rollout whose targets are no
//! longer those of its state stands nowhere until its state has followed: nobody goes to a target that no evidence is about.

use std::{collections::BTreeMap, sync::Arc};

use super::keep::{read, which};
use crate::{
    names::{PipelineName, RolloutName},
    rollout::{Controller, State},
    routing::{Standing, Standings},
    snapshot::{Begun, Fixed},
    spec::Pipeline,
    store::{DocumentKind, Store, StoreError},
};

/// The courses of all rollouts with steps that have begun.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Courses(BTreeMap<PipelineName, BTreeMap<RolloutName, Arc<Controller>>>);

impl Courses {
    /// One rollout's course.
    pub fn get(&self, pipeline: &PipelineName, rollout: &RolloutName) -> Option<&Arc<Controller>> {
        self.0.get(pipeline)?.get(rollout)
    }

    /// Every course.
    pub fn iter(&self) -> impl Iterator<Item = (&PipelineName, &RolloutName, &Arc<Controller>)> {
        self.0.iter().flat_map(|(pipeline, rollouts)| {
            rollouts.iter().map(move |(rollout, controller)| (pipeline, rollout, controller))
        })
    }

    /// The courses as the store has them.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn read(store: &Arc<dyn Store>) -> Result<Self, StoreError> {
        let mut courses = Self::default();
        for (key, value) in store.documents(DocumentKind::Rollout).await? {
            if let Some((pipeline, rollout)) = which(&key)
                && let Some(controller) = read::<Controller>(DocumentKind::Rollout, &key, value)
            {
                courses.0.entry(pipeline).or_default().insert(rollout, Arc::new(controller));
            }
        }
        Ok(courses)
    }

    /// What may no longer change of them.
    pub fn begun(&self) -> Begun {
        let fixed = |controller: &Controller| {
            let identity = &controller.plan().identity;
            Fixed { key: identity.key.clone(), salt: identity.salt.clone() }
        };
        self.iter()
            .map(|(pipeline, rollout, controller)| ((pipeline.clone(), rollout.clone()), fixed(controller)))
            .collect()
    }

    /// Where a pipeline's rollouts stand.
    pub fn standings(&self, pipeline: &Pipeline) -> Standings {
        Standings::of(pipeline, |rollout| {
            let controller = self.get(&pipeline.name, &rollout.name)?;
            let same = rollout.gated().is_some_and(|gated| gated.plan.identity == controller.plan().identity);
            let counts = matches!(controller.state(), State::Running | State::Paused | State::Held);
            same.then(|| Standing { percent: controller.percent(), revision: controller.revision(), counts })
        })
    }

    /// Whether a decision could tell these from others.
    pub(in crate::engine) fn steers_like(&self, other: &Self) -> bool {
        let steering = |courses: &Self| -> Vec<_> {
            courses
                .iter()
                .map(|(pipeline, rollout, controller)| {
                    let place = (controller.percent(), controller.revision(), controller.state());
                    (pipeline.clone(), rollout.clone(), place, controller.plan().identity.clone())
                })
                .collect()
        };
        steering(self) == steering(other)
    }
}
