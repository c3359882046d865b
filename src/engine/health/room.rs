//! What lets calls go: the allowance of each quota, the breaker and the parking of each target, and the pipelines' own
//! bounds.
//!
//! Invariant: a call that goes has taken from all of them at once; one that may not has taken nothing. Quotas are kept by
//! account, region, reach and model; breakers by target, because that is what breaks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::TargetKey;
use crate::{
    clock::Timestamp,
    engine::spending::{NoMoney, Payers, Spending},
    ids::JobId,
    money::Usd,
    quota::{
        Allowance, Blocked, Breaker, BreakerPhase, BreakerPolicy, Demand, Gate, Grant, Learned, Limit, LineIx,
        ProfileClass, QuotaKey, Reservation, TicketIx,
    },
    settings::QuotaSetting,
};

/// While somebody else tries a target.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);
/// For bounds that only a call's end moves: who waits is asked then, and now and then.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
const LAST_PROBE: Duration = Duration::from_mins(15);

/// A target that waits for an operator; one call tries it now and then.
#[derive(Debug)]
pub(super) struct Parked {
    pub probe_at: Timestamp,
    pub pause: Duration,
}

/// How one target stands.
#[derive(Debug)]
pub(super) struct Condition {
    pub breaker: Breaker,
    pub parked: Option<Parked>,
    pub line: LineIx,
}

/// A way to go: a target, and what a call to it takes.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Way {
    pub key: TargetKey,
    pub demand: Demand,
    /// Calls at once to this target, of this pipeline.
    pub most: Option<u32>,
    /// The most that the call may cost, where that is known.
    pub most_cost: Option<Usd>,
}

/// Who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub job: JobId,
    pub flow: Arc<str>,
    /// Calls at once of the pipeline.
    pub most: u32,
    pub payers: Box<Payers>,
    pub ways: SmallVec<[Way; 1]>,
    pub held: Option<(usize, LineIx, Reservation)>,
    pub go: oneshot::Sender<super::Pass>,
}

/// A quota as configured, or as set by an operator.
#[derive(Debug)]
pub(super) struct Quota {
    pub setting: QuotaSetting,
    models: globset::GlobMatcher,
}

impl Quota {
    pub(super) fn new(setting: &QuotaSetting) -> Option<Self> {
        let models = globset::Glob::new(&setting.model).ok()?.compile_matcher();
        Some(Self { setting: setting.clone(), models })
    }

    fn covers(&self, key: &TargetKey, class: ProfileClass) -> bool {
        let Self { setting, models } = self;
        setting.provider == key.provider
            && (setting.region.is_none() || setting.region == key.region)
            && setting.profile.is_none_or(|profile| profile == class)
            && models.is_match(&key.model)
    }
}

/// What a line is of: one model's quota, or a pool's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum LineKey {
    Own(QuotaKey),
    Pool(String),
}

/// An allowance, and what it is called where it is written down.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    pub allowance: Allowance,
    /// What was written down last.
    pub written: Learned,
}

/// Everything that decides whether a call may go.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub conditions: HashMap<TargetKey, Condition>,
    pub accounts: Vec<Account>,
    pub quotas: Vec<Quota>,
    pub waiters: HashMap<TicketIx, Waiter>,
    /// Calls in flight by pipeline, and by pipeline and target.
    flying: HashMap<Arc<str>, u32>,
    flying_to: HashMap<(Arc<str>, TargetKey), u32>,
    /// Provider accounts that want heavy traffic to grow slowly.
    pub ramps: Vec<crate::names::ProviderName>,
    /// What an earlier life learned, until somebody asks for it.
    pub remembered: HashMap<String, Learned>,
    lines: HashMap<LineKey, LineIx>,
    /// Who pays what.
    pub spending: Arc<Spending>,
    /// Jobs, and pipelines, that wait for a turn that their budgets do not allow.
    pub poor: (Vec<TicketIx>, Vec<Arc<str>>),
    /// Questions so far, for tests that nothing spins.
    #[cfg(test)]
    pub questions: u64,
}

impl Room {
    /// Nobody called, nobody waits.
    pub(super) fn new(spending: Arc<Spending>) -> Self {
        Self { spending, ..Self::default() }
    }

    /// How a target stands; well, until something else is known.
    pub(super) fn of(&mut self, key: &TargetKey, now: Timestamp) -> &mut Condition {
        if !self.conditions.contains_key(key) {
            let line = self.line_for(key, now);
            self.conditions.insert(key.clone(), Condition::well(line));
        }
        // Just inserted when it was missing.
        self.conditions.entry(key.clone()).or_insert_with(|| Condition::well(LineIx(0)))
    }

    /// The allowance of a line.
    pub(super) fn allowance(&mut self, line: LineIx) -> Option<&mut Allowance> {
        self.accounts.get_mut(line.0 as usize).map(|account| &mut account.allowance)
    }

    /// Puts other quotas in force; the lines that targets now count against. Whether any target changed lines.
    pub(super) fn set_quotas(&mut self, quotas: Vec<Quota>, now: Timestamp) -> bool {
        self.quotas = quotas;
        let keys: Vec<TargetKey> = self.conditions.keys().cloned().collect();
        let mut moved = false;
        for key in keys {
            let line = self.line_for(&key, now);
            if let Some(condition) = self.conditions.get_mut(&key) {
                moved |= condition.line != line;
                condition.line = line;
            }
        }
        moved
    }

    /// The line of a target, under the quotas in force.
    fn line_for(&mut self, key: &TargetKey, now: Timestamp) -> LineIx {
        let own = QuotaKey::of(key.provider.clone(), key.region.clone(), &key.model);
        let ramp = self.ramps.contains(&key.provider);
        let covering = self.quotas.iter().find(|quota| quota.covers(key, own.class));
        let grant = covering.map_or(Grant { ramp, ..Grant::UNKNOWN }, |quota| quota.setting.grant(ramp));
        let name = match covering {
            Some(Quota { setting, .. }) if setting.pool => {
                let region = setting.region.as_ref().map_or("*", |region| region.as_str());
                let class = setting.profile.map_or("*".to_owned(), |class| class.to_string());
                format!("pool {}/{region}/{class}/{}", setting.provider, setting.model)
            }
            _ => own.to_string(),
        };
        let line_key = if covering.is_some_and(|quota| quota.setting.pool) {
            LineKey::Pool(name.clone())
        } else {
            LineKey::Own(own)
        };
        if let Some(line) = self.lines.get(&line_key).copied() {
            if let Some(allowance) = self.allowance(line)
                && *allowance.grant() != grant
            {
                allowance.set_grant(grant, now);
            }
            return line;
        }
        let line = LineIx(u32::try_from(self.accounts.len()).unwrap_or(u32::MAX));
        let mut allowance = Allowance::new(grant, now);
        let written = self.remembered.remove(&name).unwrap_or_default();
        allowance.restore(now, &written);
        self.accounts.push(Account { name, allowance, written });
        self.lines.insert(line_key, line);
        line
    }

    /// A call has ended, or was not sent: its places are free again.
    pub(super) fn landed(&mut self, flow: &Arc<str>, key: &TargetKey) {
        less(&mut self.flying, flow);
        less(&mut self.flying_to, &(flow.clone(), key.clone()));
    }

    /// Calls of a pipeline in flight.
    pub(super) fn flying(&self, flow: &str) -> u32 {
        self.flying.get(flow).copied().unwrap_or(0)
    }
}

impl Room {
    /// Sets aside what a job's call may cost. Where a budget is spent, and where a key's is reserved, waiting in line would
    /// only keep others from their places.
    fn pay(&mut self, now: Timestamp, ticket: TicketIx, most: Usd) -> Result<(), Blocked> {
        let gone = Blocked { by: Limit::Turn, until: now + TRY_AGAIN };
        let waiter = self.waiters.get(&ticket).ok_or(gone)?;
        match self.spending.reserve(now, &waiter.payers, most) {
            Ok(()) => Ok(()),
            Err(NoMoney::Pipeline(short)) => {
                if short.is_spent() {
                    self.poor.1.push(waiter.flow.clone());
                }
                Err(Blocked { by: Limit::Budget, until: now + NOW_AND_THEN })
            }
            Err(NoMoney::Key(_)) => {
                self.poor.0.push(ticket);
                Err(Blocked { by: Limit::KeyBudget, until: now + TRY_AGAIN })
            }
        }
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Condition {
    fn well(line: LineIx) -> Self {
        Self { breaker: Breaker::new(BreakerPolicy::default()), parked: None, line }
    }

    /// Before when its breaker lets nothing through; soon, while another call tries.
    pub(super) fn broken_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.breaker.not_before(now)?;
        Some(if self.breaker.phase(now) == BreakerPhase::HalfOpen { until.min(now + TRY_AGAIN) } else { until })
    }
}

impl Gate for Room {
    fn admit(&mut self, now: Timestamp, ticket: TicketIx, option: usize) -> Result<(), Blocked> {
        #[cfg(test)]
        {
            self.questions += 1;
        }
        let gone = Blocked { by: Limit::Turn, until: now + TRY_AGAIN };
        let waiter = self.waiters.get(&ticket).ok_or(gone)?;
        let way = waiter.ways.get(option).ok_or(gone)?.clone();
        let flow = waiter.flow.clone();
        if self.flying(&flow) >= waiter.most {
            return Err(Blocked { by: Limit::PipelineConcurrency, until: now + NOW_AND_THEN });
        }
        let to = (flow.clone(), way.key.clone());
        if way.most.is_some_and(|most| self.flying_to.get(&to).copied().unwrap_or(0) >= most) {
            return Err(Blocked { by: Limit::TargetConcurrency, until: now + NOW_AND_THEN });
        }
        let condition = self.of(&way.key, now);
        if let Some(parked) = condition.parked.as_ref().filter(|parked| parked.probe_at > now) {
            return Err(Blocked { by: Limit::Breaker, until: parked.probe_at });
        }
        if let Some(until) = condition.broken_until(now) {
            return Err(Blocked { by: Limit::Breaker, until });
        }
        let line = condition.line;
        self.allowance(line).ok_or(gone)?.check(now, way.demand)?;
        let money = way.most_cost.unwrap_or_default();
        self.pay(now, ticket, money)?;
        let condition = self.of(&way.key, now);
        if !condition.breaker.on_call(now) {
            if let Some(waiter) = self.waiters.get(&ticket) {
                self.spending.settle(now, &waiter.payers, money, Usd::ZERO);
            }
            return Err(Blocked { by: Limit::Breaker, until: now + TRY_AGAIN });
        }
        if let Some(parked) = &mut condition.parked {
            // This call is the probe; the next has to wait.
            parked.pause = (parked.pause * 2).min(LAST_PROBE);
            parked.probe_at = now + parked.pause;
        }
        let reservation = self.allowance(line).ok_or(gone)?.take(now, way.demand);
        *self.flying.entry(flow).or_default() += 1;
        *self.flying_to.entry(to).or_default() += 1;
        if let Some(waiter) = self.waiters.get_mut(&ticket) {
            waiter.held = Some((option, line, reservation));
        }
        Ok(())
    }
}
