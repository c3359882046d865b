//! The casebook of a rollout: its observations, read in order, on their way into the evidence and to the breaker.
//!
//! Invariant: reading the same observations again, from wherever, changes nothing; so a casebook that was saved, however long
//! ago, goes on from [`Casebook::floor`] and comes to the same verdicts. It never asks when anybody looks: only the order of
//! observations and the times written in them count.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    breaker::Breaker,
    controller::{Controller, Readings},
    evidence::{Arm, End, Ended, Evidence, Horizon, Leg, MOST_WAITING, Observed, Offered, Outcome, Place, Score},
    gate::InvalidGate,
};
use crate::{clock::Timestamp, ids::JobId};

/// Buckets of keys.
const BUCKETS: f64 = 10_000.0;
/// From so many distinct keys on, a split by keys is as good as one by jobs.
pub const ENOUGH_KEYS: u64 = 2_000;

/// What has been read of one rollout, from one launch on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Casebook {
    revision: u32,
    evidence: Evidence,
    breaker: Option<Breaker>,
    /// The breaker has heard of everything up to this number.
    heard: u64,
    /// Which buckets were seen, a bit each.
    buckets: Vec<u64>,
    /// Where reading begins anew after a restart.
    floor: u64,
    /// How far it has read.
    #[serde(skip)]
    read: u64,
    /// When the last thing it has read was written.
    #[serde(skip)]
    at: Option<Timestamp>,
    /// Jobs whose first leg has not ended, by number.
    #[serde(skip)]
    open: BTreeMap<u64, Outcome>,
    #[serde(skip)]
    numbers: HashMap<JobId, u64>,
    /// Some were let go for want of room, and must be read again.
    #[serde(skip)]
    full: bool,
    #[serde(skip)]
    tripped: Option<u32>,
}

impl Casebook {
    /// The casebook of a launch, from its beginning.
    ///
    /// # Errors
    /// [`InvalidGate`] if no test can be made of a gate's bounds.
    pub fn new(controller: &Controller) -> Result<Self, InvalidGate> {
        let plan = controller.plan();
        let by_job = plan.identity.key == "job.id";
        let after = controller.after();
        Ok(Self {
            revision: controller.revision(),
            evidence: Evidence::new(plan.outcome_within, after, controller.counting(), by_job)?,
            breaker: plan.breaker.map(Breaker::new),
            heard: after,
            buckets: Vec::new(),
            floor: after,
            read: after,
            at: None,
            open: BTreeMap::new(),
            numbers: HashMap::new(),
            full: false,
            tripped: None,
        })
    }

    /// Goes on with a casebook that was saved: what waited is read again.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.read = self.floor;
        self
    }

    /// Goes on under what the controller says now: another launch begins anew, another plan where it must.
    ///
    /// # Errors
    /// [`InvalidGate`] if no test can be made of a gate's bounds; then nothing has changed.
    pub fn follow(&mut self, controller: &Controller) -> Result<(), InvalidGate> {
        if controller.revision() != self.revision {
            *self = Self::new(controller)?;
            return Ok(());
        }
        let plan = controller.plan();
        let within_before = self.evidence.outcome_within();
        let counts_already =
            controller.counting().iter().eq(self.evidence.gates().iter().map(super::gate::Gate::counting));
        if within_before != plan.outcome_within || !counts_already {
            self.evidence.follow(plan.outcome_within, controller.counting())?;
        }
        if self.breaker.as_ref().map(Breaker::rule) != plan.breaker {
            self.breaker = plan.breaker.map(Breaker::new);
        }
        Ok(())
    }

    /// Reads one observation. Those before [`Casebook::read_to`] are known.
    pub fn read(&mut self, number: u64, at: Timestamp, job: Option<JobId>, what: &Observed) {
        if number <= self.read {
            return;
        }
        self.read = number;
        self.at = Some(at);
        match (what, job) {
            (Observed::Dispatched { revision, arm, share, bucket }, Some(job)) if *revision == self.revision => {
                let leg = Leg { dispatched_at: at, end: None };
                let place = Place { sequence: number, job };
                self.see_bucket(*bucket);
                self.dispatched(Outcome { place, arm: *arm, share: *share, leg, dropped: false });
            }
            (Observed::Ended(ended), Some(job)) => self.ended(number, at, job, ended),
            (Observed::Withdrawn, Some(job)) => {
                if let Some(number) = self.numbers.get(&job).copied() {
                    self.withdraw(number, at);
                }
            }
            (Observed::Switched, _) => {
                let open: Vec<u64> = self.open.keys().copied().collect();
                for number in open {
                    self.withdraw(number, at);
                }
            }
            (Observed::Scored { name, value, revision, sequence, arm, share }, Some(job))
                if *revision == self.revision =>
            {
                let posted = Place { sequence: number, job };
                let score =
                    Score { posted, sequence: *sequence, name: name.clone(), arm: *arm, share: *share, value: *value };
                self.full |= self.evidence.score(score) == Offered::Full;
            }
            _ => {}
        }
        self.heard = self.heard.max(number);
    }

    fn dispatched(&mut self, row: Outcome) {
        match self.evidence.outcome(row) {
            Offered::Kept => {
                self.numbers.insert(row.place.job, row.place.sequence);
                self.open.insert(row.place.sequence, row);
            }
            Offered::Known => {}
            Offered::Full => self.full = true,
        }
    }

    fn ended(&mut self, number: u64, at: Timestamp, job: JobId, ended: &Ended) {
        let Some(row) = self.numbers.remove(&job).and_then(|number| self.open.remove(&number)) else { return };
        let end = End {
            at,
            failed: ended.failed,
            invalid: ended.invalid,
            latency: ended.micros.map(Duration::from_micros),
            cost: ended.cost.map(crate::money::Usd::approximate),
        };
        self.evidence.outcome(Outcome { leg: Leg { end: Some(end), ..row.leg }, ..row });
        if row.arm == Arm::Candidate
            && number > self.heard
            && let Some(breaker) = &mut self.breaker
        {
            self.tripped = self.tripped.or(breaker.note(ended.failed));
        }
    }

    /// Takes a job out of the evidence; but one that was late by then had failed, whoever looked or did not.
    fn withdraw(&mut self, number: u64, at: Timestamp) {
        let within = self.evidence.outcome_within();
        if let Some(row) = self.open.get(&number).copied()
            && at <= row.leg.dispatched_at + within
        {
            self.open.remove(&number);
            self.numbers.remove(&row.place.job);
            self.evidence.outcome(Outcome { dropped: true, ..row });
        }
    }

    /// Counts what can be counted, when everything that was written up to `known_until` has been read.
    pub fn fold(&mut self, known_until: Timestamp) {
        self.evidence.fold(Horizon { sequence: self.read, ends: known_until, posted: self.read });
        let counted = self.evidence.last().0.map_or(0, |last| last.sequence);
        while let Some(first) = self.open.first_entry().filter(|first| *first.key() <= counted) {
            self.numbers.remove(&first.remove().place.job);
        }
        if self.full && self.evidence.waiting() < MOST_WAITING / 2 {
            self.evidence.reread();
            self.open.clear();
            self.numbers.clear();
            self.full = false;
            self.read = counted.max(self.evidence_after());
        }
        self.floor = match self.evidence.oldest_waiting() {
            Some(oldest) if !self.full => oldest.saturating_sub(1),
            Some(_) => counted.max(self.evidence_after()),
            None => self.read,
        };
    }

    fn evidence_after(&self) -> u64 {
        self.evidence.after()
    }

    /// How many of the candidate's last jobs failed, if that is too many; said once.
    pub fn take_trip(&mut self) -> Option<u32> {
        self.tripped.take()
    }

    /// The evidence as the controller asks for it.
    pub fn readings(&self) -> Readings {
        Readings::of(self.revision, &self.evidence)
    }

    /// The evidence.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The launch that it is about.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The number of the last observation that it has read.
    pub fn read_to(&self) -> u64 {
        self.read
    }

    /// When that was written.
    pub fn last_at(&self) -> Option<Timestamp> {
        self.at
    }

    /// Observations up to this number are counted for good: whoever has saved this casebook needs them no more.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// About how many distinct keys were seen, going by their buckets.
    pub fn keys(&self) -> u64 {
        let seen: u32 = self.buckets.iter().map(|word| word.count_ones()).sum();
        let free = 1.0 - f64::from(seen) / BUCKETS;
        let estimate = if free > 0.0 { -BUCKETS * free.ln() } else { f64::from(u32::MAX) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0, at most 2^32")]
        let rounded = estimate.round() as u64;
        rounded
    }

    fn see_bucket(&mut self, bucket: Option<u16>) {
        let Some(bucket) = bucket.map(usize::from) else { return };
        if self.buckets.len() <= bucket / 64 {
            self.buckets.resize(bucket / 64 + 1, 0);
        }
        if let Some(word) = self.buckets.get_mut(bucket / 64) {
            *word |= 1 << (bucket % 64);
        }
    }
}

#[cfg(test)]
mod tests;
