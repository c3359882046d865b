//! What tokens cost.
//!
//! Invariant: amounts are exact decimals; a price that is not known is absent, never zero and never guessed.

use rust_decimal::Decimal;

use crate::{money::Usd, usage::Usage};

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// Uncached prompt tokens.
    pub input: Decimal,
    /// Generated tokens, those of reasoning among them.
    pub output: Decimal,
    /// Prompt tokens read from a cache; as `input` when absent.
    pub cache_read: Option<Decimal>,
    /// Prompt tokens written to a cache; as `input` when absent.
    pub cache_write: Option<Decimal>,
    /// Prompt tokens written to a cache that lives an hour. landbridge asks for none: for comparison.
    pub cache_write_1h: Option<Decimal>,
    /// Prompt tokens of a provider's batch.
    pub batch_input: Option<Decimal>,
    /// Generated tokens of a provider's batch.
    pub batch_output: Option<Decimal>,
    /// The tier that waits.
    pub flex: Option<TierPrices>,
    /// The tier that goes first.
    pub priority: Option<TierPrices>,
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

/// What is known of a service tier's prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierPrices {
    /// Uncached prompt tokens.
    pub input: Decimal,
    /// Generated tokens.
    pub output: Decimal,
    /// Prompt tokens read from a cache; not known when absent.
    pub cache_read: Option<Decimal>,
}

/// The service tier that a call was served by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// The usual one.
    #[default]
    Standard,
    /// Cheaper, when there is room.
    Flex,
    /// Dearer, ahead of others.
    Priority,
    /// One that is paid for otherwise, or that nobody here has heard of.
    Other,
}

impl Tier {
    /// The tier that a request or an answer names.
    pub fn named(name: &str) -> Self {
        match name {
            "" | "auto" | "default" | "standard" => Self::Standard,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            _ => Self::Other,
        }
    }
}

impl Prices {
    /// What a call cost at these prices; `None` where the list does not say what some of it costs.
    pub fn cost(&self, usage: &Usage, tier: Tier) -> Option<Usd> {
        match tier {
            Tier::Standard => Some(self.standard(usage)),
            Tier::Flex => self.by_tier(self.flex.as_ref()?, usage),
            Tier::Priority => self.by_tier(self.priority.as_ref()?, usage),
            Tier::Other => None,
        }
    }

    fn standard(&self, usage: &Usage) -> Usd {
        let prices = self.for_prompt(usage.prompt());
        Usd::per_million(prices.input, usage.input)
            + Usd::per_million(prices.output, usage.output)
            + Usd::per_million(prices.cache_read.unwrap_or(prices.input), usage.cache_read)
            + Usd::per_million(prices.cache_write.unwrap_or(prices.input), usage.cache_write)
    }

    fn by_tier(&self, tier: &TierPrices, usage: &Usage) -> Option<Usd> {
        let long = self.long.is_some_and(|long| usage.prompt() > long.above);
        if long || usage.cache_write > 0 {
            return None;
        }
        let read = match usage.cache_read {
            0 => Usd::ZERO,
            tokens => Usd::per_million(tier.cache_read?, tokens),
        };
        Some(Usd::per_million(tier.input, usage.input) + Usd::per_million(tier.output, usage.output) + read)
    }

    /// The most that a call with so many tokens may cost, wherever its prompt comes from or goes to; `None` where the
    /// list does not say.
    pub fn at_most(&self, prompt: u64, output: u64, tier: Tier) -> Option<Usd> {
        let usual = self.for_prompt(prompt);
        let dearest = |prices: &Self| {
            let others = [prices.cache_read, prices.cache_write, prices.cache_write_1h];
            others.into_iter().flatten().fold(prices.input, Decimal::max)
        };
        let (input, per_output) = match tier {
            // A cheaper tier may fall back to the usual price.
            Tier::Standard | Tier::Flex => (dearest(&usual), usual.output),
            Tier::Priority => {
                let tier = self.priority.as_ref()?;
                (dearest(&usual).max(tier.input), usual.output.max(tier.output))
            }
            Tier::Other => return None,
        };
        Some(Usd::per_million(input, prompt) + Usd::per_million(per_output, output))
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
            cache_write_1h: self.cache_write_1h.map(raised),
            ..*self
        }
    }
}
