//! Making a request ready for a target: connected, translated, and of a size that fits.
//!
//! Invariant: an equal target is asked only where the rule's confinement and the flags permit it, so spilling leads
//! nowhere that routing would not.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Carried;
use crate::{
    catalog::{Fit, Model},
    engine::{
        health::{TargetKey, Way, demand},
        size::Size,
        unfit::Unfit,
        world::Lane,
    },
    money::Usd,
    provider::Provider,
    routing::Decision,
    snapshot::Snapshot,
    spec::{Pipeline, Target, TargetIx},
    wire::{self, Prepared, Refusal},
};

/// A request as a target would get it.
pub(super) struct Ready<'s> {
    pub ix: TargetIx,
    pub target: Arc<Target>,
    pub provider: Arc<dyn Provider>,
    pub model: Option<&'s Model>,
    pub prepared: Prepared,
    pub size: Size,
    /// The most that the call may cost.
    pub most_cost: Option<Usd>,
}

impl Ready<'_> {
    /// The place in line that it needs.
    pub(super) fn way(&self, spec: &Pipeline) -> Way {
        Way {
            key: TargetKey::of(&self.target),
            demand: demand(&self.target, &self.prepared, self.size.prompt.most),
            most: spec.sharing.concurrency.get(&self.ix).copied(),
            most_cost: self.most_cost,
        }
    }
}

impl Carried<'_> {
    /// Makes the request ready for one target.
    pub(super) async fn ready<'s>(
        &mut self,
        lane: &Lane,
        snapshot: &'s Snapshot,
        ix: TargetIx,
    ) -> Result<Ready<'s>, Unfit> {
        let target = lane.loaded.pipeline.target(ix).clone();
        let Some(provider) = self.engine.providers.get(&target.provider).cloned() else {
            let message = format!(
                "provider {} of target {} is not connected; restart the daemon after adding it",
                target.provider, target.name
            );
            return Err(Unfit::Refused(Refusal { param: None, message }));
        };
        let model = snapshot.catalog.find(target.api, &target.model);
        let prepared = wire::prepare(&target, model, &self.body).map_err(|refusal| {
            tracing::info!(job = self.id, target = %target.name, %refusal, "this target cannot carry the request");
            Unfit::Refused(refusal)
        })?;
        let size = self.sizes.of(&self.body, &target, model, prepared.max_output_tokens).await;
        if let Fit::TooLong(limit) = size.fit {
            let unfit = Unfit::too_long(&target, limit, size.prompt);
            tracing::info!(job = self.id, target = %target.name, %unfit, "this request does not fit the target");
            return Err(unfit);
        }
        let most_cost = self.engine.most_cost(snapshot, &target, (&size, &prepared, &self.body), model);
        Ok(Ready { ix, target, provider, model, prepared, size, most_cost })
    }

    /// The request as targets equal to the one at `ix` would get it; those that cannot take it are left out.
    pub(super) async fn equals<'s>(
        &mut self,
        lane: &Lane,
        snapshot: &'s Snapshot,
        decision: &Decision,
        ix: TargetIx,
    ) -> SmallVec<[Ready<'s>; 1]> {
        let spec = &lane.loaded.pipeline;
        let confinement =
            decision.rule.and_then(|rule| spec.route.get(usize::from(rule))).and_then(|rule| rule.confine.as_ref());
        let mut equals = SmallVec::new();
        for equal in spec.sharing.equivalents.get(&ix).into_iter().flatten() {
            let permitted = (lane.flags.forced.is_empty()
                || lane.flags.permitted.get(equal.get()).copied().unwrap_or(false))
                && confinement.is_none_or(|confinement| confinement.permits(*equal));
            if permitted && let Ok(ready) = self.ready(lane, snapshot, *equal).await {
                equals.push(ready);
            }
        }
        equals
    }
}
