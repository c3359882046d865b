//! What calls take and are charged, by each provider's own rule; and how targets look to whoever chooses between them.

use std::sync::Arc;

use super::TargetKey;
use crate::{
    catalog::Model,
    clock::Timestamp,
    engine::{
        Engine,
        world::{Lane, World},
    },
    job::retry::Candidate,
    names::ProviderName,
    quota::Demand,
    settings::{ApiSettings, Settings},
    spec::{Api, Target, TargetIx},
    usage::Usage,
    wire::Prepared,
};

/// The provider that wants heavy traffic to grow slowly, by its address.
const WANTS_RAMPS: &str = "://api.openai.com";

impl Engine {
    /// Puts quotas and prices of the settings in force.
    pub(in crate::engine) fn install_quotas(&self, settings: &Settings) {
        let ramps: Vec<ProviderName> = settings
            .providers
            .iter()
            .filter(|(_, provider)| match &provider.api {
                ApiSettings::OpenAi { base_url, .. } => base_url.contains(WANTS_RAMPS),
                ApiSettings::Bedrock { .. } => false,
            })
            .map(|(name, _)| name.clone())
            .collect();
        self.configure_quotas(&settings.quotas, ramps);
        let prices = settings.prices.iter().map(|(name, price)| (name.clone(), price.multiplier)).collect();
        self.prices.store(Arc::new(prices));
        self.retention.store(Arc::new(settings.retention));
    }

    /// The targets of a chain as things stand.
    pub(in crate::engine) fn candidates(
        &self,
        world: &World,
        lane: &Lane,
        chain: &[TargetIx],
        now: Timestamp,
    ) -> Vec<Candidate> {
        chain
            .iter()
            .map(|ix| {
                let target = lane.loaded.pipeline.target(*ix);
                let model = world.snapshot.catalog.find(target.api, &target.model);
                Candidate {
                    name: target.name.clone(),
                    availability: self.health.availability(&TargetKey::of(target), now),
                    context_window: model.and_then(|model| model.context_window),
                }
            })
            .collect()
    }

    /// Whether a parked target of a pipeline may be tried by one job.
    pub(in crate::engine) fn probe_is_due(&self, lane: &Lane) -> bool {
        let now = self.clock.now();
        lane.loaded.pipeline.targets.iter().any(|target| self.health.probe_is_due(&TargetKey::of(target), now))
    }
}

/// What a call reserves, by the provider's own rule: Bedrock counts the input and the whole output bound, OpenAI the
/// larger of the two.
pub(in crate::engine) fn demand(target: &Target, prepared: &Prepared, prompt_tokens: u64) -> Demand {
    let output = prepared.max_output_tokens.unwrap_or(0);
    let tokens = match target.api {
        Api::Bedrock => prompt_tokens.saturating_add(output),
        Api::OpenAi => prompt_tokens.max(output),
    };
    Demand { requests: 1, tokens }
}

/// What a call is charged in the end, by the provider's own rule: Bedrock gives back what was reserved and counts input,
/// cache writes and output times the model's burndown; OpenAI's charge at admission stands.
pub(in crate::engine) fn charge(target: &Target, model: Option<&Model>, usage: &Usage) -> Option<u64> {
    let burndown = u64::from(model.map_or(1, |model| model.burndown));
    let output = usage.output.saturating_mul(burndown);
    (target.api == Api::Bedrock).then(|| usage.input.saturating_add(usage.cache_write).saturating_add(output))
}
