//! What tokens cost.
//!
//! Invariant: amounts are exact decimals; a price that is not known is absent, never zero.

use rust_decimal::Decimal;

use crate::{money::Usd, usage::Usage};

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// Uncached prompt tokens.
    pub input: Decimal,
    /// Generated tokens.
    pub output: Decimal,
    /// Prompt tokens read from a cache; as `input` when absent.
    pub cache_read: Option<Decimal>,
    /// Prompt tokens written to a cache; as `input` when absent.
    pub cache_write: Option<Decimal>,
    /// Prompt tokens of a provider's batch.
    pub batch_input: Option<Decimal>,
    /// Generated tokens of a provider's batch.
    pub batch_output: Option<Decimal>,
    /// What a request with a long prompt costs, as a whole.
    pub long: Option<LongPrices>,
}

/// Prices of the whole request once its prompt, cached or not, is longer than `above` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPrices {
    /// Prompt tokens that still cost the usual price.
    pub above: u64,
    /// Uncached prompt tokens.
    pub input: Decimal,
    /// Generated tokens.
    pub output: Decimal,
    /// Prompt tokens read from a cache; raised as `input` is when absent.
    pub cache_read: Option<Decimal>,
}

impl Prices {
    /// What a call cost at these prices.
    pub fn cost(&self, usage: &Usage) -> Usd {
        let prices = self.for_prompt(usage.prompt());
        Usd::per_million(prices.input, usage.input)
            + Usd::per_million(prices.output, usage.output)
            + Usd::per_million(prices.cache_read.unwrap_or(prices.input), usage.cache_read)
            + Usd::per_million(prices.cache_write.unwrap_or(prices.input), usage.cache_write)
    }

    /// The prices that hold for a request whose prompt has so many tokens.
    pub fn for_prompt(&self, tokens: u64) -> Self {
        let Some(long) = self.long.filter(|long| tokens > long.above) else { return *self };
        let raised = |price: Decimal| match long.input.checked_div(self.input) {
            Some(factor) => price.saturating_mul(factor).normalize(),
            None => price,
        };
        Self {
            input: long.input,
            output: long.output,
            cache_read: long.cache_read.or_else(|| self.cache_read.map(raised)),
            cache_write: self.cache_write.map(raised),
            ..*self
        }
    }
}
