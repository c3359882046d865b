//! How each provider's model is doing: its quota, its breaker, and whether it waits for an operator.
//!
//! Invariant: kept by provider, model and region, because that is what providers count and break by; shared by all
//! pipelines. Lost at a restart without harm: it is learned again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Engine,
    world::{Lane, World},
};
use crate::{
    catalog::Model,
    clock::Timestamp,
    job::{
        Fault,
        retry::{Availability, Candidate, LONGEST_HINT},
    },
    metrics::{BreakerReading, BreakerState, Metrics, QuotaKind, QuotaReading},
    names::{ProviderName, Region},
    provider::CallError,
    quota::{Admission, Breaker, BreakerPhase, BreakerPolicy, Limiter, Rates},
    settings::{QuotaSetting, Settings},
    spec::{Api, Target, TargetIx},
    usage::Usage,
    wire::Prepared,
};

/// What quotas and breakers are kept by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The provider account.
    pub provider: ProviderName,
    /// The model as the target names it: an inference profile counts apart from its base model.
    pub model: String,
    /// The region called.
    pub region: Option<Region>,
}

impl TargetKey {
    /// A target's.
    pub fn of(target: &Target) -> Self {
        Self { provider: target.provider.clone(), model: target.model.clone(), region: target.region.clone() }
    }
}

/// What a call takes from a quota.
pub use crate::quota::Demand;

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may, now; what it takes is booked.
    Open,
    /// At this time; what it takes is booked.
    Wait(Timestamp),
    /// Not before this time; nothing is booked.
    Later(Timestamp),
    /// The world changed while it waited; nothing is booked.
    Changed,
}

/// A parked target is tried again by one job after this long, and twice as long each time it fails.
const FIRST_PROBE: Duration = Duration::from_mins(1);
/// While somebody else tries a target.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LAST_PROBE: Duration = Duration::from_mins(15);

#[derive(Debug)]
struct Parked {
    probe_at: Timestamp,
    pause: Duration,
}

#[derive(Debug)]
struct Condition {
    breaker: Breaker,
    limiter: Option<Arc<Mutex<Limiter>>>,
    parked: Option<Parked>,
    /// The provider asked us to wait until then.
    throttled_until: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Conditions {
    by_key: HashMap<TargetKey, Condition>,
    quotas: Vec<Quota>,
}

/// A configured quota; `shared` is the one limiter of a pool.
#[derive(Debug)]
struct Quota {
    setting: QuotaSetting,
    models: globset::GlobMatcher,
    shared: Option<Arc<Mutex<Limiter>>>,
}

impl Quota {
    fn new(setting: &QuotaSetting, now: Timestamp) -> Option<Self> {
        let models = globset::Glob::new(&setting.model).ok()?.compile_matcher();
        let mut quota = Self { setting: setting.clone(), models, shared: None };
        if setting.pool {
            quota.shared = Some(quota.limiter(now));
        }
        Some(quota)
    }

    fn covers(&self, key: &TargetKey) -> bool {
        self.setting.provider == key.provider
            && (self.setting.region.is_none() || self.setting.region == key.region)
            && self.models.is_match(&key.model)
    }

    fn limiter(&self, now: Timestamp) -> Arc<Mutex<Limiter>> {
        let rates = Rates {
            requests_per_minute: self.setting.requests_per_minute,
            tokens_per_minute: self.setting.tokens_per_minute,
            concurrency: self.setting.concurrency,
            share: self.setting.share,
        };
        self.shared.clone().unwrap_or_else(|| Arc::new(Mutex::new(Limiter::new(rates, now))))
    }
}

impl Conditions {
    fn limiter_for(&self, key: &TargetKey, now: Timestamp) -> Option<Arc<Mutex<Limiter>>> {
        self.quotas.iter().find(|quota| quota.covers(key)).map(|quota| quota.limiter(now))
    }

    fn of(&mut self, key: &TargetKey, now: Timestamp) -> &mut Condition {
        if !self.by_key.contains_key(key) {
            let limiter = self.limiter_for(key, now);
            let condition = Condition {
                breaker: Breaker::new(BreakerPolicy::default()),
                limiter,
                parked: None,
                throttled_until: None,
            };
            self.by_key.insert(key.clone(), condition);
        }
        // Just inserted when it was missing.
        self.by_key.entry(key.clone()).or_insert_with(|| Condition {
            breaker: Breaker::new(BreakerPolicy::default()),
            limiter: None,
            parked: None,
            throttled_until: None,
        })
    }
}

/// The health of everything that is called.
#[derive(Debug, Default)]
pub struct Health {
    conditions: Mutex<Conditions>,
    /// A parked target answered again: held jobs may decide anew.
    mended: AtomicBool,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts configured quotas in force; what was used of a quota that stays the same stays used.
    pub(super) fn install_quotas(&self, settings: &[QuotaSetting], now: Timestamp) {
        let mut conditions = self.lock();
        let same = conditions.quotas.len() == settings.len()
            && conditions.quotas.iter().zip(settings).all(|(quota, setting)| quota.setting == *setting);
        if same {
            return;
        }
        conditions.quotas = settings.iter().filter_map(|setting| Quota::new(setting, now)).collect();
        let keys: Vec<TargetKey> = conditions.by_key.keys().cloned().collect();
        for key in keys {
            let limiter = conditions.limiter_for(&key, now);
            conditions.of(&key, now).limiter = limiter;
        }
    }

    /// The operator changed something: parked targets are tried again at once.
    pub(super) fn something_changed(&self) {
        for condition in self.lock().by_key.values_mut() {
            condition.parked = None;
        }
    }

    /// Whether a parked target answered since this was last asked.
    pub(super) fn take_mended(&self) -> bool {
        self.mended.swap(false, Ordering::AcqRel)
    }

    /// Whether a target waits for an operator; a probe that is due does not change that.
    pub fn is_parked(&self, target: &Target, _now: Timestamp) -> bool {
        self.lock().by_key.get(&TargetKey::of(target)).is_some_and(|condition| condition.parked.is_some())
    }

    /// Whether one job may try if a parked target is mended.
    fn probe_is_due(&self, key: &TargetKey, now: Timestamp) -> bool {
        let conditions = self.lock();
        let parked = conditions.by_key.get(key).and_then(|condition| condition.parked.as_ref());
        parked.is_some_and(|parked| parked.probe_at <= now)
    }

    fn availability(&self, key: &TargetKey, now: Timestamp) -> Availability {
        let mut conditions = self.lock();
        let condition = conditions.of(key, now);
        if condition.parked.as_ref().is_some_and(|parked| parked.probe_at > now) {
            return Availability::Parked;
        }
        let throttled = condition.throttled_until.filter(|until| *until > now);
        match (condition.breaker.not_before(now), throttled) {
            (Some(until), _) => Availability::NotBefore(until),
            (None, Some(until)) => Availability::Throttled(until),
            (None, None) => Availability::Ready,
        }
    }

    /// Books a call's slot.
    pub(super) fn reserve(&self, key: &TargetKey, demand: Demand, now: Timestamp) -> Gate {
        let mut conditions = self.lock();
        let condition = conditions.of(key, now);
        if let Some(parked) = &mut condition.parked {
            // This call is the probe; the next has to wait.
            parked.pause = (parked.pause * 2).min(LAST_PROBE);
            parked.probe_at = now + parked.pause;
        }
        if !condition.breaker.on_call(now) {
            // Another call is trying whether the target is well again.
            return Gate::Later(condition.breaker.not_before(now).unwrap_or(now + TRY_AGAIN));
        }
        let Some(limiter) = condition.limiter.clone() else { return Gate::Open };
        drop(conditions);
        match limiter.lock().unwrap_or_else(PoisonError::into_inner).reserve(now, demand) {
            Admission::Now => Gate::Open,
            Admission::At(until) => Gate::Wait(until),
            Admission::Later(until) => Gate::Later(until),
        }
    }

    /// Nothing was sent: gives a slot back.
    pub(super) fn unsent(&self, key: &TargetKey, demand: Demand) {
        self.with_limiter(key, |limiter| limiter.refund(demand));
    }

    /// A call ended; `actual` tokens are charged instead of those reserved, where known.
    pub(super) fn settled(&self, key: &TargetKey, demand: Demand, actual: Option<u64>) {
        self.with_limiter(key, |limiter| limiter.settle(demand, actual));
    }

    fn with_limiter(&self, key: &TargetKey, work: impl FnOnce(&mut Limiter)) {
        let limiter = self.lock().by_key.get(key).and_then(|condition| condition.limiter.clone());
        if let Some(limiter) = limiter {
            work(&mut limiter.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// A call was answered.
    pub(super) fn succeeded(&self, key: &TargetKey, demand: Demand, charge: Option<u64>, now: Timestamp) {
        self.settled(key, demand, charge);
        let mut conditions = self.lock();
        let condition = conditions.of(key, now);
        condition.breaker.on_success(now);
        condition.throttled_until = None;
        if condition.parked.take().is_some() {
            tracing::info!(provider = %key.provider, model = key.model, "a parked target answers again");
            self.mended.store(true, Ordering::Release);
        }
    }

    /// A call failed.
    pub(super) fn failed(&self, key: &TargetKey, demand: Demand, error: &CallError, now: Timestamp) {
        self.settled(key, demand, None);
        let mut conditions = self.lock();
        let condition = conditions.of(key, now);
        condition.breaker.on_fault(now, error.fault);
        match error.fault {
            Fault::Misconfigured => {
                let pause = condition.parked.as_ref().map_or(FIRST_PROBE, |parked| parked.pause);
                condition.parked = Some(Parked { probe_at: now + pause, pause });
            }
            Fault::Throttled => {
                if let Some(pause) = error.retry_after {
                    let until = now + pause.min(LONGEST_HINT);
                    condition.throttled_until = condition.throttled_until.max(Some(until));
                    if let Some(limiter) = &condition.limiter {
                        limiter.lock().unwrap_or_else(PoisonError::into_inner).penalise(now, until);
                    }
                }
            }
            _ => {}
        }
    }

    /// Sets the gauges of quotas and breakers.
    pub(super) fn observe(&self, metrics: &Metrics, now: Timestamp) {
        let mut conditions = self.lock();
        let mut breakers = Vec::new();
        let mut quotas = Vec::new();
        for (key, condition) in &mut conditions.by_key {
            let state = match condition.breaker.phase(now) {
                BreakerPhase::Closed => BreakerState::Closed,
                BreakerPhase::HalfOpen => BreakerState::HalfOpen,
                BreakerPhase::Open => BreakerState::Open,
            };
            breakers.push((key.clone(), state));
            if let Some(limiter) = &condition.limiter {
                let used = limiter.lock().unwrap_or_else(PoisonError::into_inner).utilization(now);
                let kinds = [
                    (QuotaKind::RequestsPerMinute, used.requests),
                    (QuotaKind::TokensPerMinute, used.tokens),
                    (QuotaKind::Concurrency, used.concurrency),
                ];
                quotas.extend(kinds.into_iter().filter_map(|(kind, used)| Some((key.clone(), kind, used?))));
            }
        }
        drop(conditions);
        metrics.set_breakers(breakers.iter().map(|(key, state)| BreakerReading {
            provider: &key.provider,
            model: &key.model,
            region: key.region.as_ref(),
            state: *state,
        }));
        metrics.set_quotas(quotas.iter().map(|(key, kind, used)| QuotaReading {
            provider: &key.provider,
            model: &key.model,
            region: key.region.as_ref(),
            kind: *kind,
            used: *used,
        }));
    }

    fn counts_tokens(&self, key: &TargetKey, now: Timestamp) -> bool {
        let mut conditions = self.lock();
        let limiter = conditions.of(key, now).limiter.clone();
        drop(conditions);
        limiter.is_some_and(|limiter| limiter.lock().unwrap_or_else(PoisonError::into_inner).counts_tokens())
    }
}

impl Engine {
    /// Puts quotas and prices of the settings in force.
    pub(super) fn install_quotas(&self, settings: &Settings) {
        self.health.install_quotas(&settings.quotas, self.clock.now());
        let prices = settings.prices.iter().map(|(name, price)| (name.clone(), price.multiplier)).collect();
        self.prices.store(Arc::new(prices));
        self.retention.store(Arc::new(settings.retention));
    }

    /// The targets of a chain as things stand.
    pub(super) fn candidates(&self, world: &World, lane: &Lane, chain: &[TargetIx], now: Timestamp) -> Vec<Candidate> {
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
    pub(super) fn probe_is_due(&self, lane: &Lane) -> bool {
        let now = self.clock.now();
        lane.loaded.pipeline.targets.iter().any(|target| self.health.probe_is_due(&TargetKey::of(target), now))
    }

    /// What a call reserves, by the provider's own rule: Bedrock counts the input and the whole output bound, OpenAI the
    /// larger of the two.
    pub(super) fn demand(&self, target: &Target, prepared: &Prepared, prompt_tokens: u64) -> Demand {
        if !self.health.counts_tokens(&TargetKey::of(target), self.clock.now()) {
            return Demand { requests: 1, tokens: 0 };
        }
        let output = prepared.max_output_tokens.unwrap_or(0);
        let tokens = match target.api {
            Api::Bedrock => prompt_tokens.saturating_add(output),
            Api::OpenAi => prompt_tokens.max(output),
        };
        Demand { requests: 1, tokens }
    }
}

/// What a call is charged in the end, by the provider's own rule: Bedrock gives back what was reserved and counts input,
/// cache writes and output times the model's burndown; OpenAI's charge at admission stands.
pub(super) fn charge(target: &Target, model: Option<&Model>, usage: &Usage) -> Option<u64> {
    let burndown = u64::from(model.map_or(1, |model| model.burndown));
    let output = usage.output.saturating_mul(burndown);
    (target.api == Api::Bedrock).then(|| usage.input.saturating_add(usage.cache_write).saturating_add(output))
}
