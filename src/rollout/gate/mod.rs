//! Gates: one requirement of a rollout each, and what the evidence says about it.
//!
//! Invariant: a verdict is reached at an observation, never at a look; so it does not matter when or how often anybody looks.
//! Both conclusions latch; if both were reached, fail wins. The error rates belong to the moment the gate's evidence began.

mod figures;
#[cfg(test)]
mod tests;
mod verdict;

pub use verdict::{Outlook, Unit, Verdict};

pub use crate::spec::rollout::{CostOf, Criterion, GateSpec, InvalidGate, LatencyOf, OnFail, Source};

use serde::{Deserialize, Serialize};

use super::{
    bits,
    evidence::{Arm, Block, Counted, Latency},
    process::{Betting, BlockTest, Levels, Margin, MeanSequence, Proportion, QuantileSequence, Restarted, Side},
};
use crate::money::BasisPoints;

/// Blocks before a latency is judged by its asymptotic sequence.
const LATENCY_BURN_IN: u32 = 100;

/// Blocks before a capped cost is.
const COST_BURN_IN: u32 = 200;

/// Before so many there is no outlook.
const EARLY: u64 = 20;

/// From when on, and with what error rate, a gate's evidence counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counting {
    /// What is measured, and its bound.
    pub criterion: Criterion,
    /// Jobs dispatched after this number count.
    pub after: u64,
    /// The rollout's error rate.
    #[serde(with = "bits")]
    pub alpha: f64,
    /// How many gates share it.
    pub gates: u32,
}

/// The test behind a criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Instrument {
    /// Rates of the arms, block by block.
    Blocks(Restarted<BlockTest>),
    /// Which arm each failure hit.
    Hits(Restarted<Proportion>),
    /// Pairs: of those that differ, or of all, the share that counts against the candidate.
    Share(Restarted<Proportion>),
    /// Bounded differences.
    Bets(Restarted<Betting>),
    /// Unbounded differences of blocks.
    Mean(MeanSequence),
    /// A quantile of the arms.
    Quantile(QuantileSequence),
}

/// One gate at work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    counting: Counting,
    instrument: Instrument,
    /// Jobs of the candidate, pairs, or scores.
    seen: u64,
    /// Of these, what the instrument was told.
    told: u64,
    /// The highest share so far; a higher one begins a new step.
    share: BasisPoints,
    /// How many had been seen when it failed.
    failed: Option<u64>,
    /// How many had been seen when it passed.
    passed: Option<u64>,
}

impl Gate {
    /// A gate without evidence.
    ///
    /// # Errors
    /// [`InvalidGate`] if no test can be made of its bounds.
    pub fn new(counting: Counting) -> Result<Self, InvalidGate> {
        GateSpec { criterion: counting.criterion.clone(), on_fail: OnFail::Hold }.check()?;
        let instrument = instrument(&counting.criterion).ok_or_else(|| InvalidGate {
            gate: counting.criterion.to_string(),
            fault: "no test can be made of its bounds",
        })?;
        Ok(Self { counting, instrument, seen: 0, told: 0, share: BasisPoints::NONE, failed: None, passed: None })
    }

    /// From when on and with what error rate its evidence counts.
    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    /// The gate's name.
    pub fn name(&self) -> String {
        self.counting.criterion.to_string()
    }

    /// A job of the split, in the order of dispatch.
    pub fn outcome(&mut self, sequence: u64, arm: Arm, share: BasisPoints, counted: &Counted) {
        let criterion = &self.counting.criterion;
        if sequence <= self.counting.after || criterion.is_paired() || matches!(criterion, Criterion::Score { .. }) {
            return;
        }
        self.stage(share);
        let candidate = arm == Arm::Candidate;
        self.seen += u64::from(candidate);
        match &mut self.instrument {
            Instrument::Hits(test) => {
                let Some(ratio) = ratio(&self.counting.criterion) else { return };
                let bad = bad(&self.counting.criterion, counted.failed, counted.invalid);
                let split = share != BasisPoints::NONE && share != BasisPoints::ALL;
                if !bad || !split {
                    return;
                }
                let limit = Proportion::failure_limit(f64::from(share.get()) / 10_000.0, ratio);
                test.each(|test| {
                    test.limit(limit);
                    test.observe(candidate);
                });
            }
            Instrument::Quantile(test) => {
                let value = match counted.latency {
                    Latency::Took(latency) => latency.as_secs_f64().max(1e-6),
                    Latency::Beyond(_) => f64::INFINITY,
                    Latency::Unknown => return,
                };
                test.observe(candidate, value);
                if !candidate {
                    return;
                }
            }
            Instrument::Blocks(_) | Instrument::Share(_) | Instrument::Bets(_) | Instrument::Mean(_) => return,
        }
        self.told += 1;
        self.latch();
    }

    /// A complete block of jobs, in the order of dispatch.
    pub fn block(&mut self, block: &Block) {
        if block.earliest <= self.counting.after {
            return;
        }
        let criterion = &self.counting.criterion;
        let (candidate, baseline) = (&block.candidate, &block.baseline);
        match &mut self.instrument {
            Instrument::Blocks(test) => {
                let (y, s) = match criterion {
                    Criterion::InvalidOutput { .. } => (candidate.invalid, baseline.invalid),
                    _ => (candidate.failed, baseline.failed),
                };
                test.each(|test| test.observe(y > 0, baseline.outcomes, s));
            }
            Instrument::Mean(test) => {
                let difference = match criterion {
                    Criterion::Cost { max_ratio, .. } => {
                        difference(candidate.cost.mean(), baseline.cost.mean(), *max_ratio)
                    }
                    _ => difference(candidate.ln_latency.mean(), baseline.ln_latency.mean(), 1.0),
                };
                let Some(difference) = difference else { return };
                test.observe(difference);
            }
            _ => return,
        }
        self.told += 1;
        self.latch();
    }

    /// A complete block of scores, in the order of posting.
    pub fn scores(&mut self, block: &Block, share: BasisPoints) {
        let Criterion::Score { lowest, highest, max_decrease, .. } = &self.counting.criterion else { return };
        if block.earliest <= self.counting.after {
            return;
        }
        let range = highest - lowest;
        let Some(decrease) = difference(block.baseline.score.mean(), block.candidate.score.mean(), 1.0) else { return };
        let y = (decrease - max_decrease) / (range + max_decrease);
        self.stage(share);
        if let Instrument::Bets(test) = &mut self.instrument {
            test.each(|test| test.observe(y));
        }
        self.seen += 1;
        self.told += 1;
        self.latch();
    }

    /// A pair, in the order of dispatch: both legs, and whether the answers agree where this gate looks.
    pub fn pair(
        &mut self,
        sequence: u64,
        share: BasisPoints,
        candidate: &Counted,
        baseline: &Counted,
        agrees: Option<bool>,
    ) {
        if sequence <= self.counting.after || !self.counting.criterion.is_paired() {
            return;
        }
        self.stage(share);
        self.seen += 1;
        let criterion = &self.counting.criterion;
        let told = match &mut self.instrument {
            Instrument::Share(test) => {
                let against = if let Criterion::Agreement { .. } = criterion {
                    agrees.map(|agrees| !agrees)
                } else {
                    let c = bad(criterion, candidate.failed, candidate.invalid);
                    let b = bad(criterion, baseline.failed, baseline.invalid);
                    (c != b).then_some(c)
                };
                against.map(|against| test.each(|test| test.observe(against)))
            }
            Instrument::Bets(test) => {
                let y = match criterion {
                    Criterion::Failure { margin, .. } | Criterion::InvalidOutput { margin, .. } => {
                        let c = f64::from(u8::from(bad(criterion, candidate.failed, candidate.invalid)));
                        let b = f64::from(u8::from(bad(criterion, baseline.failed, baseline.invalid)));
                        Some(match margin {
                            Margin::Points(points) => (c - b - points) / (1.0 + points),
                            Margin::Ratio(ratio) => (c - ratio * b) / ratio,
                        })
                    }
                    Criterion::Cost { max_ratio, .. } => {
                        candidate.cost.zip(baseline.cost).and_then(|(c, b)| Betting::relative(c, b, *max_ratio))
                    }
                    Criterion::Latency { max_ratio, .. } => seconds(candidate.latency)
                        .zip(seconds(baseline.latency))
                        .and_then(|(c, b)| Betting::relative(c, b, *max_ratio)),
                    Criterion::Agreement { .. } | Criterion::Score { .. } => None,
                };
                y.map(|y| test.each(|test| test.observe(y)))
            }
            _ => None,
        };
        if told.is_some() {
            self.told += 1;
            self.latch();
        }
    }

    /// What the gate says.
    pub fn verdict(&self) -> Verdict {
        if self.failed.is_some() {
            Verdict::Fail
        } else if self.passed.is_some() {
            Verdict::Pass
        } else {
            Verdict::Undecided(self.outlook())
        }
    }

    /// After how many jobs, pairs or scores of the candidate the verdict was reached.
    pub fn decided_after(&self) -> Option<u64> {
        self.failed.or(self.passed)
    }

    fn levels(&self) -> Levels {
        Levels::new(self.counting.alpha, self.counting.gates)
    }

    fn unit(&self) -> Unit {
        match &self.counting.criterion {
            Criterion::Score { .. } => Unit::Scores,
            criterion if criterion.is_paired() => Unit::Pairs,
            _ => Unit::Jobs,
        }
    }

    fn outlook(&self) -> Outlook {
        let unit = self.unit();
        if self.seen < EARLY || self.told == 0 {
            return Outlook::TooEarly { unit, seen: self.seen };
        }
        let levels = self.levels();
        let remaining = match &self.instrument {
            Instrument::Blocks(test) => test.remaining(levels),
            Instrument::Hits(test) | Instrument::Share(test) => test.remaining(levels),
            Instrument::Bets(test) => test.remaining(levels),
            Instrument::Mean(test) => test.remaining(levels),
            Instrument::Quantile(test) => test.remaining(levels),
        };
        // Not every job tells something: failures may be rare, pairs mostly alike.
        let each = self.seen as f64 / self.told as f64;
        remaining.map_or(Outlook::Open, |(side, more)| Outlook::about(unit, more * each, side))
    }

    /// With a higher share a new step begins, and with it another process for regressions that begin there.
    fn stage(&mut self, share: BasisPoints) {
        if share <= self.share {
            return;
        }
        self.share = share;
        if self.told == 0 {
            return;
        }
        match &mut self.instrument {
            Instrument::Blocks(test) => test.restart(),
            Instrument::Hits(test) | Instrument::Share(test) => test.restart(),
            Instrument::Bets(test) => test.restart(),
            Instrument::Mean(_) | Instrument::Quantile(_) => {}
        }
    }

    fn latch(&mut self) {
        let levels = self.levels();
        let reached = |ln_e: &dyn Fn(Side) -> f64, side: Side| ln_e(side) >= levels.ln_threshold(side);
        let both = |ln_e: &dyn Fn(Side) -> f64| (reached(ln_e, Side::Fail), reached(ln_e, Side::Pass));
        let proved = |side: Option<Side>| (side == Some(Side::Fail), side == Some(Side::Pass));
        let (fail, pass) = match &mut self.instrument {
            Instrument::Blocks(test) => both(&|side| test.ln_e(side)),
            Instrument::Hits(test) | Instrument::Share(test) => both(&|side| test.ln_e(side)),
            Instrument::Bets(test) => both(&|side| test.ln_e(side)),
            Instrument::Mean(test) => proved(test.proves(levels)),
            Instrument::Quantile(test) => proved(test.proves(levels)),
        };
        if fail && self.failed.is_none() {
            self.failed = Some(self.seen);
        }
        if pass && self.passed.is_none() {
            self.passed = Some(self.seen);
        }
    }
}

fn instrument(criterion: &Criterion) -> Option<Instrument> {
    let bets = || Some(Instrument::Bets(Restarted::new(Betting::default())));
    match criterion {
        Criterion::Failure { margin, of } | Criterion::InvalidOutput { margin, of } => match (of, margin) {
            (Source::Arms, Margin::Points(_)) => {
                BlockTest::new(*margin).map(|test| Instrument::Blocks(Restarted::new(test)))
            }
            // The limit comes with the first failure's share.
            (Source::Arms, Margin::Ratio(_)) => Proportion::new(0.5).map(|test| Instrument::Hits(Restarted::new(test))),
            // No margin at all: pairs in which both sides did the same say nothing about which is worse.
            (Source::Pairs, Margin::Points(0.0) | Margin::Ratio(1.0)) => {
                Proportion::new(0.5).map(|test| Instrument::Share(Restarted::new(test)))
            }
            (Source::Pairs, _) => bets(),
        },
        Criterion::Agreement { min, .. } => {
            Proportion::new(1.0 - min).map(|test| Instrument::Share(Restarted::new(test)))
        }
        Criterion::Score { .. } => bets(),
        Criterion::Latency { of: LatencyOf::Pairs, .. } | Criterion::Cost { of: CostOf::Pairs, .. } => bets(),
        Criterion::Latency { of: LatencyOf::GeometricMean, max_ratio } => {
            MeanSequence::new(max_ratio.ln(), LATENCY_BURN_IN).map(Instrument::Mean)
        }
        Criterion::Latency { of: LatencyOf::Quantile(p), max_ratio } => {
            QuantileSequence::new(*p, *max_ratio).map(Instrument::Quantile)
        }
        Criterion::Cost { of: CostOf::Capped(_), .. } => MeanSequence::new(0.0, COST_BURN_IN).map(Instrument::Mean),
    }
}

fn bad(criterion: &Criterion, failed: bool, invalid: bool) -> bool {
    if matches!(criterion, Criterion::InvalidOutput { .. }) { invalid } else { failed }
}

fn ratio(criterion: &Criterion) -> Option<f64> {
    match criterion {
        Criterion::Failure { margin: Margin::Ratio(ratio), .. }
        | Criterion::InvalidOutput { margin: Margin::Ratio(ratio), .. } => Some(*ratio),
        _ => None,
    }
}

fn difference(worse: Option<f64>, better: Option<f64>, ratio: f64) -> Option<f64> {
    worse.zip(better).map(|(worse, better)| worse - ratio * better)
}

fn seconds(latency: Latency) -> Option<f64> {
    match latency {
        Latency::Took(latency) | Latency::Beyond(latency) => Some(latency.as_secs_f64()),
        Latency::Unknown => None,
    }
}
