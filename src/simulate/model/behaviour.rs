//! What becomes of a call: the rules put together.
//!
//! Invariant: quotas are asked first, then faults in the order of their rules; a call that a quota turned away takes
//! nothing from any bucket.

use std::{collections::HashMap, time::Duration};

use super::{
    chance::Chance,
    fault::{FaultKind, FaultRule},
    latency::Latency,
    quota::{Exceeded, Meters, Quota, Rates},
    rule::Scoped,
};
use crate::{clock::Timestamp, spec::Api};

/// Models in regions whose buckets are kept; full ones are forgotten first.
const MOST_METERS: usize = 4_096;

/// The rules of behaviour.
#[derive(Debug, Clone, PartialEq)]
pub struct BehaviourConfig {
    /// Where chance starts.
    pub seed: u64,
    /// How much refill a bucket of a minute holds.
    pub burst: Duration,
    /// The last rule that covers a call holds; none: no latency.
    pub latency: Vec<Scoped<Latency>>,
    /// The last rule that covers a call holds, with buckets of its own for each model and region; none: no quota.
    pub quotas: Vec<Scoped<Quota>>,
    /// The first rule that strikes holds.
    pub faults: Vec<Scoped<FaultRule>>,
}

impl Default for BehaviourConfig {
    fn default() -> Self {
        Self { seed: 1, burst: Duration::from_secs(1), latency: Vec::new(), quotas: Vec::new(), faults: Vec::new() }
    }
}

/// What behaviour depends on.
#[derive(Debug, Clone, Copy)]
pub struct CallFacts<'a> {
    /// Whose rules count.
    pub api: Api,
    /// The model as the caller names it.
    pub model: &'a str,
    /// The region, where the protocol has one.
    pub region: Option<&'a str>,
    /// The prompt, estimated.
    pub input_tokens: u64,
    /// What the caller asked for at most, if it did.
    pub max_output_tokens: Option<u64>,
    /// The longest answer of the model.
    pub model_max_output_tokens: u64,
    /// How many times an output token counts against Bedrock's quota.
    pub burndown: u32,
    /// The answer is to come in pieces.
    pub streamed: bool,
}

impl CallFacts<'_> {
    /// What admission takes, by the provider's own rule.
    fn reserved(&self) -> u64 {
        match self.api {
            Api::OpenAi => self.max_output_tokens.unwrap_or(0).max(self.input_tokens),
            Api::Bedrock => {
                self.input_tokens.saturating_add(self.max_output_tokens.unwrap_or(self.model_max_output_tokens))
            }
        }
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// It is answered.
    Answer,
    /// A quota turns it away.
    Throttle(Exceeded),
    /// A fault strikes it.
    Fault(FaultKind),
}

/// What a call holds of a quota until it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a reservation that is not settled is held for good"]
pub struct Reservation {
    key: String,
    tokens: u64,
    burndown: u32,
}

/// A call's fate and when it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The call's place in the order of calls, from 0.
    pub number: u64,
    /// How long it takes.
    pub latency: Duration,
    /// How it ends.
    pub fate: Fate,
    /// To be settled when it has ended. Bedrock's calls under a quota have one.
    pub reservation: Option<Reservation>,
    /// What the provider's headers tell.
    pub rates: Rates,
}

#[derive(Debug)]
struct Order {
    rule: Scoped<FaultRule>,
    since: Timestamp,
    struck: u64,
}

/// A provider's behaviour, as far as it has gone.
#[derive(Debug)]
pub struct Behaviour {
    config: BehaviourConfig,
    meters: HashMap<String, Meters>,
    orders: Vec<Order>,
    calls: u64,
}

impl Behaviour {
    /// At the beginning: buckets full, no call made.
    pub fn new(config: BehaviourConfig, now: Timestamp) -> Self {
        let mut behaviour =
            Self { config: BehaviourConfig::default(), meters: HashMap::new(), orders: Vec::new(), calls: 0 };
        behaviour.configure(config, now);
        behaviour
    }

    /// The rules in force.
    pub fn config(&self) -> &BehaviourConfig {
        &self.config
    }

    /// Replaces the rules. Buckets go on if the quotas are the same; so do the counts and windows of faults that stay.
    pub fn configure(&mut self, config: BehaviourConfig, now: Timestamp) {
        if config.quotas != self.config.quotas || config.burst != self.config.burst {
            self.meters.clear();
        }
        let mut kept = std::mem::take(&mut self.orders);
        self.orders = config
            .faults
            .iter()
            .map(|rule| match kept.iter().position(|order| order.rule == *rule) {
                Some(place) => kept.swap_remove(place),
                None => Order { rule: rule.clone(), since: now, struck: 0 },
            })
            .collect();
        self.config = config;
    }

    /// Back to the beginning, under the same rules.
    pub fn reset(&mut self, now: Timestamp) {
        *self = Self::new(std::mem::take(&mut self.config), now);
    }

    /// Decides a call.
    pub fn plan(&mut self, call: &CallFacts<'_>, now: Timestamp) -> Plan {
        let number = self.calls;
        self.calls = self.calls.wrapping_add(1);
        let mut chance = Chance::of_call(self.config.seed, number);
        let latency = Scoped::last_covering(&self.config.latency, call.api, call.model)
            .map_or(Duration::ZERO, |latency| latency.draw(&mut chance));
        let mut plan = Plan { number, latency, fate: Fate::Answer, reservation: None, rates: Rates::default() };
        if let Err(exceeded) = self.admit(call, now, &mut plan) {
            return Plan { latency: Duration::ZERO, fate: Fate::Throttle(exceeded), ..plan };
        }
        if let Some(kind) = self.strike(call, now, &mut chance) {
            plan.fate = Fate::Fault(kind);
            if !kind.takes_time() {
                plan.latency = Duration::ZERO;
            }
        }
        plan
    }

    fn admit(&mut self, call: &CallFacts<'_>, now: Timestamp, plan: &mut Plan) -> Result<(), Exceeded> {
        let Some(quota) = Scoped::last_covering(&self.config.quotas, call.api, call.model) else {
            return Ok(());
        };
        let key = format!("{}/{}/{}", call.api, call.region.unwrap_or_default(), call.model);
        if self.meters.len() >= MOST_METERS && !self.meters.contains_key(&key) {
            self.meters.retain(|_, meters| !meters.are_full(now));
            if self.meters.len() >= MOST_METERS {
                self.meters.clear();
            }
        }
        let burst = self.config.burst;
        let meters = self.meters.entry(key.clone()).or_insert_with(|| Meters::full(quota, burst, now));
        let tokens = call.reserved();
        let taken = meters.take(tokens, now);
        plan.rates = meters.rates(now);
        taken?;
        // OpenAI corrects nothing at the end; its headers have told the charge already.
        if call.api == Api::Bedrock {
            plan.reservation = Some(Reservation { key, tokens, burndown: call.burndown });
        }
        Ok(())
    }

    fn strike(&mut self, call: &CallFacts<'_>, now: Timestamp, chance: &mut Chance) -> Option<FaultKind> {
        for order in &mut self.orders {
            let Scoped { scope, value: rule } = &order.rule;
            if rule.kind.is_of_streams() && !call.streamed {
                continue;
            }
            if scope.covers(call.api, call.model) && rule.strikes(now.since(order.since), order.struck, chance) {
                order.struck += 1;
                return Some(rule.kind);
            }
        }
        None
    }

    /// Ends a call: gives back what it reserved and charges what it used.
    pub fn settle(&mut self, reservation: Reservation, input_tokens: u64, output_tokens: u64, now: Timestamp) {
        let charged = input_tokens.saturating_add(output_tokens.saturating_mul(u64::from(reservation.burndown)));
        if let Some(meters) = self.meters.get_mut(&reservation.key) {
            meters.settle(reservation.tokens, charged, now);
        }
    }
}
