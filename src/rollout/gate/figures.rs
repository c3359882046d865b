//! What a gate has seen, in words.

use super::{Criterion, Gate, Instrument};
use crate::rollout::process::Margin;

impl Gate {
    /// The figures seen so far, in words: `candidate 4.8 %, baseline 1.1 %`.
    pub fn figures(&self) -> Option<String> {
        let rates = |rates: (f64, f64)| format!("candidate {}, baseline {}", percent(rates.0), percent(rates.1));
        match &self.instrument {
            Instrument::Blocks(test) => test.whole().rates().map(rates),
            Instrument::Hits(test) => {
                test.whole().share().map(|share| format!("{} of the failures hit the candidate", percent(share)))
            }
            Instrument::Share(test) => test.whole().share().map(|share| match self.counting.criterion {
                Criterion::Agreement { .. } => format!("{} of the pairs agree", percent(1.0 - share)),
                _ => format!("the candidate is the worse in {} of the pairs that differ", percent(share)),
            }),
            Instrument::Bets(test) => test.whole().mean().map(|mean| match &self.counting.criterion {
                // (c − rb)/(c + rb), solved for c/b at its mean.
                Criterion::Cost { max_ratio, .. } | Criterion::Latency { max_ratio, .. } => {
                    let ratio = max_ratio * (1.0 + mean) / (1.0 - mean).max(f64::MIN_POSITIVE);
                    format!("a typical pair has the candidate at {ratio:.2} × the baseline")
                }
                Criterion::Score { lowest, highest, max_decrease, .. } => {
                    let decrease = mean * (highest - lowest + max_decrease) + max_decrease;
                    format!("the candidate's score is lower by {decrease:.3}")
                }
                Criterion::Failure { margin: Margin::Points(points), .. }
                | Criterion::InvalidOutput { margin: Margin::Points(points), .. } => {
                    let increase = (mean * (1.0 + points) + points) * 100.0;
                    format!("the candidate's rate is higher by {increase:.2}pp")
                }
                _ => format!("{mean:+.4} from the margin"),
            }),
            Instrument::Mean(test) => test.mean().map(|mean| match self.counting.criterion {
                Criterion::Latency { .. } => format!("candidate at {:.2} × the baseline", mean.min(700.0).exp()),
                _ => format!("{mean:+.6} dollars a job from the margin"),
            }),
            Instrument::Quantile(test) => {
                test.quantiles().map(|(c, b)| format!("candidate {c:.2} s, baseline {b:.2} s"))
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
