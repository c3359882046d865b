//! Evidence: rows of the ledger on their way to the gates.
//!
//! Rows are handed in as they come, in any order and as often as one likes; they are counted in the order in which their jobs
//! were first dispatched. A job that has not ended blocks those behind it until it ends or `outcome_within` makes it a
//! failure: counted at completion, a candidate whose failures are slow would look well.
//!
//! Invariant: what was counted depends on the ledger's rows and the [`Horizon`], not on when, how often or on which side of a
//! restart they were handed in. The state is small (a few sums a gate) and can be saved at any moment; whatever waits is not
//! saved but handed in again from [`Evidence::last`] on.

mod block;
mod observed;
mod row;
mod stream;
#[cfg(test)]
mod tests;

pub use block::{Block, Blocks, MOST_BASELINES, MOST_OPEN, Measures, Sum, Tally, baselines};
pub use observed::{Ended, Observed};
pub use row::{Arm, Counted, End, Latency, Leg, Outcome, Pair, Place, Row, Score};
pub use stream::{MOST_WAITING, Offered, Stream};

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    gate::{CostOf, Counting, Criterion, Gate, InvalidGate, Verdict},
    process::Proportion,
};
use crate::{clock::Timestamp, money::BasisPoints};

/// ln E at which the split is not believed any more: an error rate of one in a thousand.
const LN_SPLIT_DOUBT: f64 = 6.907_755_278_982_137;

/// How far the ledger has been handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Every job with this number or a lower one has been handed in, and none with such a number will be dispatched.
    pub sequence: u64,
    /// Every end up to this time has been handed in. Keep it behind the clock by as long as a daemon may take to write.
    pub ends: Timestamp,
    /// Every score with this number or a lower one has been handed in.
    pub posted: u64,
}

/// The evidence of one rollout, from one revision on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    outcome_within: Duration,
    /// Jobs up to this number belong to earlier revisions.
    after: u64,
    outcomes: Stream<Outcome>,
    pairs: Stream<Pair>,
    scores: Stream<Score>,
    blocks: Blocks,
    score_blocks: BTreeMap<String, Blocks>,
    gates: Vec<Gate>,
    /// The check of the split, where jobs are split one by one.
    split: Option<Proportion>,
    split_is_off: bool,
    candidate_jobs: u64,
    baseline_jobs: u64,
    pairs_counted: u64,
}

impl Evidence {
    /// No evidence yet, of jobs dispatched after number `after`. `split_by_job` says that the key is the job itself: then the
    /// sample ratio is checked.
    ///
    /// # Errors
    /// [`InvalidGate`] if no test can be made of a gate's bounds.
    pub fn new(
        outcome_within: Duration,
        after: u64,
        counting: &[Counting],
        split_by_job: bool,
    ) -> Result<Self, InvalidGate> {
        Ok(Self {
            outcome_within,
            after,
            outcomes: Stream::default(),
            pairs: Stream::default(),
            scores: Stream::default(),
            blocks: Blocks::default(),
            score_blocks: BTreeMap::new(),
            gates: counting.iter().cloned().map(Gate::new).collect::<Result<_, _>>()?,
            split: if split_by_job { Proportion::new(0.5) } else { None },
            split_is_off: false,
            candidate_jobs: 0,
            baseline_jobs: 0,
            pairs_counted: 0,
        })
    }

    /// Goes on under another plan: gates that count as before keep what they have seen, others begin.
    ///
    /// # Errors
    /// [`InvalidGate`] if no test can be made of a gate's bounds; then nothing has changed.
    pub fn follow(&mut self, outcome_within: Duration, counting: &[Counting]) -> Result<(), InvalidGate> {
        let gates = counting
            .iter()
            .map(|counting| match self.gates.iter().find(|gate| gate.counting() == counting) {
                Some(gate) => Ok(gate.clone()),
                None => Gate::new(counting.clone()),
            })
            .collect::<Result<_, _>>()?;
        self.gates = gates;
        self.outcome_within = outcome_within;
        Ok(())
    }

    /// Takes in a job of the split.
    pub fn outcome(&mut self, row: Outcome) -> Offered {
        if row.place.sequence <= self.after { Offered::Known } else { self.outcomes.offer(row) }
    }

    /// Takes in a pair.
    pub fn pair(&mut self, row: Pair) -> Offered {
        if row.place.sequence <= self.after { Offered::Known } else { self.pairs.offer(row) }
    }

    /// Takes in a score.
    pub fn score(&mut self, row: Score) -> Offered {
        self.scores.offer(row)
    }

    /// Counts what can be counted.
    pub fn fold(&mut self, horizon: Horizon) {
        let within = self.outcome_within;
        let counted = |leg: &Leg| leg.counted(within, horizon.ends);
        while let Some(row) = self.outcomes.next(horizon.sequence, |row| row.dropped || counted(&row.leg).is_some()) {
            if let Some(leg) = counted(&row.leg).filter(|_| !row.dropped) {
                self.count_outcome(&row, &leg);
            }
        }
        let complete =
            |row: &Pair| row.dropped || (counted(&row.candidate).is_some() && counted(&row.baseline).is_some());
        while let Some(row) = self.pairs.next(horizon.sequence, complete) {
            if let Some((candidate, baseline)) =
                counted(&row.candidate).zip(counted(&row.baseline)).filter(|_| !row.dropped)
            {
                self.count_pair(&row, &candidate, &baseline);
            }
        }
        while let Some(row) = self.scores.next(horizon.posted, |_| true) {
            self.count_score(&row);
        }
    }

    fn count_outcome(&mut self, row: &Outcome, leg: &Counted) {
        let sequence = row.place.sequence;
        match row.arm {
            Arm::Candidate => self.candidate_jobs += 1,
            Arm::Baseline => self.baseline_jobs += 1,
        }
        if let Some(split) =
            self.split.as_mut().filter(|_| row.share != BasisPoints::NONE && row.share != BasisPoints::ALL)
        {
            split.limit(f64::from(row.share.get()) / 10_000.0);
            split.observe(row.arm == Arm::Candidate);
            self.split_is_off |= split.ln_e_equal() >= LN_SPLIT_DOUBT;
        }
        let measures = Measures::of(leg, self.cost_cap());
        let block = self.blocks.offer(sequence, row.arm, row.share, &measures);
        for gate in &mut self.gates {
            gate.outcome(sequence, row.arm, row.share, leg);
            if let Some(block) = &block {
                gate.block(block);
            }
        }
    }

    fn count_pair(&mut self, row: &Pair, candidate: &Counted, baseline: &Counted) {
        self.pairs_counted += 1;
        for gate in &mut self.gates {
            let agrees = match &gate.counting().criterion {
                // Two answers are compared; where one is missing, that is the failure gate's business.
                Criterion::Agreement { at, .. } if !candidate.failed && !baseline.failed => {
                    row.agreement.get(at).copied()
                }
                _ => None,
            };
            gate.pair(row.place.sequence, row.share, candidate, baseline, agrees);
        }
    }

    fn count_score(&mut self, row: &Score) {
        if row.sequence <= self.after || !row.value.is_finite() {
            return;
        }
        let range = self.gates.iter().find_map(|gate| match &gate.counting().criterion {
            Criterion::Score { name, lowest, highest, .. } if *name == row.name => Some((*lowest, *highest)),
            _ => None,
        });
        // A score that no gate asks for takes no room.
        let Some((lowest, highest)) = range else { return };
        let measures = Measures { score: Some(row.value.clamp(lowest, highest)), ..Measures::default() };
        let blocks = self.score_blocks.entry(row.name.clone()).or_default();
        let Some(block) = blocks.offer(row.sequence, row.arm, row.share, &measures) else { return };
        for gate in &mut self.gates {
            if matches!(&gate.counting().criterion, Criterion::Score { name, .. } if *name == row.name) {
                gate.scores(&block, row.share);
            }
        }
    }

    fn cost_cap(&self) -> f64 {
        let cap = self.gates.iter().find_map(|gate| match gate.counting().criterion {
            Criterion::Cost { of: CostOf::Capped(cap), .. } => Some(cap),
            _ => None,
        });
        cap.unwrap_or(f64::INFINITY)
    }

    /// The gates.
    pub fn gates(&self) -> &[Gate] {
        &self.gates
    }

    /// The gates' verdicts by name.
    pub fn verdicts(&self) -> BTreeMap<String, Verdict> {
        self.gates.iter().map(|gate| (gate.name(), gate.verdict())).collect()
    }

    /// Jobs of the candidate that were counted.
    pub fn candidate_jobs(&self) -> u64 {
        self.candidate_jobs
    }

    /// Jobs of the baseline that were counted.
    pub fn baseline_jobs(&self) -> u64 {
        self.baseline_jobs
    }

    /// Pairs that were counted.
    pub fn pairs(&self) -> u64 {
        self.pairs_counted
    }

    /// Whether the jobs are not split as they were asked to be, at an error rate of one in a thousand: then the arms differ in
    /// more than the target, and no comparison means anything.
    pub fn split_is_off(&self) -> bool {
        self.split_is_off
    }

    /// The last places that were counted: of jobs, of pairs, of scores. The ledger is read from here after a restart.
    pub fn last(&self) -> (Option<Place>, Option<Place>, Option<Place>) {
        (self.outcomes.last(), self.pairs.last(), self.scores.last())
    }

    /// Rows that wait for an earlier one.
    pub fn waiting(&self) -> usize {
        self.outcomes.waiting() + self.pairs.waiting() + self.scores.waiting()
    }

    /// How long a leg may take.
    pub fn outcome_within(&self) -> Duration {
        self.outcome_within
    }

    /// Jobs up to this number belong to earlier revisions.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The lowest number of a row that waits.
    pub fn oldest_waiting(&self) -> Option<u64> {
        let firsts = [self.outcomes.first(), self.pairs.first(), self.scores.first()];
        firsts.into_iter().flatten().map(|place| place.sequence).min()
    }

    /// Forgets what waits. To be called after [`Offered::Full`], once everything was counted that can be; then everything
    /// after [`Evidence::last`] is handed in again.
    pub fn reread(&mut self) {
        self.outcomes.reread();
        self.pairs.reread();
        self.scores.reread();
    }
}
