//! What a gate asks for.
//!
//! Invariant: the shape allows only bounds that make sense for what is measured; [`GateSpec::check`] judges their numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much worse the candidate's rate may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// By so much, as a fraction: `0.01` is one percentage point.
    Points(f64),
    /// So many times the baseline's.
    Ratio(f64),
}

impl Margin {
    /// Whether a test can be made of it: at most 50 points, a ratio of 1 to 100.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Points(points) => (0.0..=0.5).contains(&points),
            Self::Ratio(ratio) => (1.0..=100.0).contains(&ratio),
        }
    }
}

/// Where a comparison gets its two sides from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Jobs of the two arms, at the same time.
    Arms,
    /// The same jobs, in the shadow.
    Pairs,
}

/// Which latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyOf {
    /// The geometric mean of the arms' answers.
    GeometricMean,
    /// A quantile of the arms' answers: `0.95`.
    Quantile(f64),
    /// The mean relative difference of pairs.
    Pairs,
}

/// Which cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostOf {
    /// The mean relative difference of pairs.
    Pairs,
    /// Dollars a job of the arms, cut at so many: one dear job may not decide.
    Capped(f64),
}

/// What is measured, and its bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The share of jobs whose first leg failed.
    Failure {
        /// How much higher it may be.
        margin: Margin,
        /// What is compared. Of arms with a ratio: which arm each failure hit.
        of: Source,
    },
    /// The share of jobs that were answered with JSON or tool arguments that do not validate.
    InvalidOutput {
        /// How much higher it may be.
        margin: Margin,
        /// What is compared.
        of: Source,
    },
    /// The share of pairs whose answers agree at a JSON pointer.
    Agreement {
        /// The pointer; empty for the whole answer.
        at: String,
        /// How high it must be.
        min: f64,
    },
    /// The mean of a score that users post.
    Score {
        /// Which score.
        name: String,
        /// The lowest possible score.
        lowest: f64,
        /// The highest possible score.
        highest: f64,
        /// How much lower it may be, in the score's own unit.
        max_decrease: f64,
    },
    /// Latency.
    Latency {
        /// Which.
        of: LatencyOf,
        /// How many times the baseline's it may be.
        max_ratio: f64,
    },
    /// Cost.
    Cost {
        /// Which.
        of: CostOf,
        /// How many times the baseline's it may be.
        max_ratio: f64,
    },
}

/// What a failed gate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OnFail {
    /// Everybody goes back to the baseline.
    Rollback,
    /// The rollout stays where it is until an operator decides.
    Hold,
}

/// One gate of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateSpec {
    /// What is measured, and its bound.
    pub criterion: Criterion,
    /// What a failure does.
    pub on_fail: OnFail,
}

/// A gate that no test can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gate `{gate}`: {fault}")]
pub struct InvalidGate {
    /// The gate's name.
    pub gate: String,
    /// What is wrong, and what to write instead.
    pub fault: &'static str,
}

impl GateSpec {
    /// The gate's name, unique in a rollout: `failure`, `latency p95`, `agreement /label`, `score.quality`.
    pub fn name(&self) -> String {
        self.criterion.to_string()
    }

    /// Whether a test can be made of the bounds.
    ///
    /// # Errors
    /// [`InvalidGate`] with what is wrong and the range that is allowed.
    pub fn check(&self) -> Result<(), InvalidGate> {
        let ratio = |ratio: f64| {
            if (1.0..=100.0).contains(&ratio) { Ok(()) } else { Err("max_ratio must be 1 to 100, such as 1.25") }
        };
        let fault = match &self.criterion {
            Criterion::Failure { margin, .. } | Criterion::InvalidOutput { margin, .. } => match margin {
                Margin::Ratio(value) => ratio(*value),
                Margin::Points(_) if margin.is_valid() => Ok(()),
                Margin::Points(_) => Err("max_increase must be 0pp to 50pp, such as 1pp"),
            },
            Criterion::Agreement { min, .. } if *min > 0.0 && *min < 1.0 => Ok(()),
            Criterion::Agreement { .. } => Err("min must lie between 0 and 1, both excluded, such as 0.97"),
            Criterion::Score { lowest, highest, max_decrease, .. } => {
                let range = highest - lowest;
                if range > 0.0 && range.is_finite() && *max_decrease >= 0.0 && *max_decrease < range {
                    Ok(())
                } else {
                    Err(
                        "a score needs a range from its lowest to its highest value, and a max_decrease smaller than that range",
                    )
                }
            }
            Criterion::Latency { of: LatencyOf::Quantile(p), .. } if !(0.01..=0.999).contains(p) => {
                Err("the quantile must be p1 to p99.9, such as p95")
            }
            Criterion::Cost { of: CostOf::Capped(cap), .. } if !(*cap > 0.0 && cap.is_finite()) => {
                Err("the cap of a job's cost must be above 0 dollars")
            }
            Criterion::Latency { max_ratio, .. } | Criterion::Cost { max_ratio, .. } => ratio(*max_ratio),
        };
        fault.map_err(|fault| InvalidGate { gate: self.name(), fault })
    }
}

impl Criterion {
    /// Whether its evidence comes from the shadow.
    pub fn is_paired(&self) -> bool {
        matches!(
            self,
            Self::Failure { of: Source::Pairs, .. }
                | Self::InvalidOutput { of: Source::Pairs, .. }
                | Self::Agreement { .. }
                | Self::Latency { of: LatencyOf::Pairs, .. }
                | Self::Cost { of: CostOf::Pairs, .. }
        )
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure { .. } => f.write_str("failure"),
            Self::InvalidOutput { .. } => f.write_str("invalid_output"),
            Self::Agreement { at, .. } if at.is_empty() => f.write_str("agreement"),
            Self::Agreement { at, .. } => write!(f, "agreement {at}"),
            Self::Score { name, .. } => write!(f, "score.{name}"),
            Self::Latency { of: LatencyOf::Quantile(p), .. } => write!(f, "latency p{}", (p * 1_000.0).round() / 10.0),
            Self::Latency { .. } => f.write_str("latency"),
            Self::Cost { .. } => f.write_str("cost"),
        }
    }
}
