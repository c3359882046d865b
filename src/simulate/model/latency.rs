//! How long a call takes.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    chance::Chance,
    rule::{InvalidRule, span},
};
use crate::clock::format_span;

/// No call takes longer, whatever is drawn.
const LONGEST: Duration = Duration::from_hours(1);

/// The standard normal's 95th percentile.
const P95: f64 = 1.644_853_626_951_472_7;

/// A distribution of latencies: `200ms`, `uniform:100ms,300ms` or `lognormal:median=800ms,p95=3s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Always the same.
    Constant(Duration),
    /// Anything from the first to the second.
    Uniform(Duration, Duration),
    /// As real services are: half below the median, one in twenty above the 95th percentile.
    LogNormal {
        /// Half of the calls are faster.
        median: Duration,
        /// One call in twenty is slower; not below the median.
        p95: Duration,
    },
}

impl Latency {
    /// One call's latency.
    pub fn draw(self, chance: &mut Chance) -> Duration {
        let drawn = match self {
            Self::Constant(span) => span,
            Self::Uniform(from, to) => from + to.saturating_sub(from).mul_f64(chance.unit()),
            Self::LogNormal { median, p95 } => {
                let sigma = (p95.as_secs_f64() / median.as_secs_f64()).ln() / P95;
                let seconds = median.as_secs_f64() * (sigma * chance.normal()).exp();
                Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST)
            }
        };
        drawn.min(LONGEST)
    }
}

impl FromStr for Latency {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let malformed = || {
            InvalidRule::new(format!(
                "{text:?} is not a latency: write 200ms, uniform:100ms,300ms or lognormal:median=800ms,p95=3s"
            ))
        };
        let latency = match text.split_once(':') {
            None => Self::Constant(crate::clock::parse_span(text).map_err(|_| malformed())?),
            Some(("uniform", bounds)) => {
                let (from, to) = bounds.split_once(',').ok_or_else(malformed)?;
                let (from, to) = (span("uniform", from)?, span("uniform", to)?);
                if from > to {
                    return Err(InvalidRule::new(format!("{text:?}: the first bound is above the second")));
                }
                Self::Uniform(from, to)
            }
            Some(("lognormal", shape)) => {
                let (median, p95) = shape.split_once(',').ok_or_else(malformed)?;
                let median = span("median", median.strip_prefix("median=").ok_or_else(malformed)?)?;
                let p95 = span("p95", p95.strip_prefix("p95=").ok_or_else(malformed)?)?;
                if median.is_zero() || p95 < median {
                    return Err(InvalidRule::new(format!(
                        "{text:?}: the median is above 0 and the 95th percentile not below it"
                    )));
                }
                Self::LogNormal { median, p95 }
            }
            Some(_) => return Err(malformed()),
        };
        match latency {
            Self::Constant(most) | Self::Uniform(_, most) | Self::LogNormal { p95: most, .. } if most > LONGEST => {
                Err(InvalidRule::new(format!("{text:?}: no simulated call takes longer than {}", format_span(LONGEST))))
            }
            _ => Ok(latency),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(span) => f.write_str(&format_span(*span)),
            Self::Uniform(from, to) => write!(f, "uniform:{},{}", format_span(*from), format_span(*to)),
            Self::LogNormal { median, p95 } => {
                write!(f, "lognormal:median={},p95={}", format_span(*median), format_span(*p95))
            }
        }
    }
}
