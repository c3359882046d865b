//! Exact amounts of US dollars and rollout shares.
//!
//! Invariant: no amount ever passes through a binary floating-point number.

use std::{fmt, iter::Sum, ops, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// An exact amount of US dollars. Serialised as a decimal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(pub Decimal);

impl Usd {
    /// No money.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// `tokens` at `price` dollars per million tokens.
    pub fn per_million(price: Decimal, tokens: u64) -> Self {
        Self((price * Decimal::from(tokens) / Decimal::from(1_000_000_u32)).normalize())
    }

    /// The amount as a float, for gauges and charts only.
    pub fn approximate(self) -> f64 {
        use rust_decimal::prelude::ToPrimitive;
        self.0.to_f64().unwrap_or(0.0)
    }
}

impl schemars::JsonSchema for Usd {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Usd".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$" })
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Usd {
    type Err = rust_decimal::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl ops::Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl ops::Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl ops::AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, ops::Add::add)
    }
}

/// A share in hundredths of a percent: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(10_000);

    /// A share of `points` hundredths of a percent; `None` above 10,000.
    pub fn new(points: u16) -> Option<Self> {
        (points <= 10_000).then_some(Self(points))
    }

    /// Reads a percentage with at most two decimals, such as `25`, `0.5` or `12.75`.
    pub fn parse_percent(text: &str) -> Option<Self> {
        let percent: Decimal = text.parse().ok()?;
        let points = percent.checked_mul(Decimal::ONE_HUNDRED)?;
        if points.fract().is_zero() {
            use rust_decimal::prelude::ToPrimitive;
            points.to_u16().and_then(Self::new)
        } else {
            None
        }
    }

    /// Hundredths of a percent.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (Decimal::from(self.0) / Decimal::ONE_HUNDRED).normalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_two_decimals() {
        for (text, points) in [("0", Some(0)), ("25", Some(2_500)), ("0.01", Some(1)), ("100.00", Some(10_000))] {
            assert_eq!(BasisPoints::parse_percent(text).map(BasisPoints::get), points, "{text}");
        }
        for text in ["-1", "100.01", "0.001", "x", "1e9"] {
            assert_eq!(BasisPoints::parse_percent(text), None, "{text}");
        }
        assert_eq!(BasisPoints::new(1_275).unwrap().to_string(), "12.75 %");
    }

    #[test]
    fn prices_are_exact() {
        let cost = Usd::per_million("0.1".parse().unwrap(), 3);
        assert_eq!(cost.to_string(), "0.0000003");
        assert_eq!([cost, cost].into_iter().sum::<Usd>().to_string(), "0.0000006");
    }
}
