//! Facts on models: windows, prices, lifecycles, what they refuse.
//!
//! Invariant: a complete list is built in; an operator's file replaces entries one by one and may add some. A model
//! that the catalogue does not know still works: it merely has no price, window or lifecycle.

use rust_decimal::Decimal;

use crate::{money::Usd, spec::Api, usage::Usage};

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
}

impl Prices {
    /// What a call cost at these prices.
    pub fn cost(&self, usage: &Usage) -> Usd {
        Usd::per_million(self.input, usage.input)
            + Usd::per_million(self.output, usage.output)
            + Usd::per_million(self.cache_read.unwrap_or(self.input), usage.cache_read)
            + Usd::per_million(self.cache_write.unwrap_or(self.input), usage.cache_write)
    }
}

/// Whether a model still serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It does, with no end announced.
    Active,
    /// It does until this day.
    EndsOn(jiff::civil::Date),
    /// It no longer does; since this day, where known.
    Ended(Option<jiff::civil::Date>),
}

/// What is known of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The base id, without the geography of an inference profile.
    pub id: String,
    /// Whose protocol serves it.
    pub api: Api,
    /// Prompt and output together, in tokens.
    pub context_window: Option<u64>,
    /// Longest output, in tokens.
    pub max_output_tokens: Option<u64>,
    /// What a Bedrock call asks for when nobody says how many tokens.
    pub default_max_tokens: u64,
    /// In-region and geographic prices.
    pub prices: Option<Prices>,
    /// Prices of the `global.` profile, where they differ.
    pub global_prices: Option<Prices>,
    /// Output tokens count this many times against Bedrock's quota.
    pub burndown: u32,
    /// OpenAI parameter names that the model refuses, such as `temperature`.
    pub refuses: Vec<String>,
    /// Pairs of parameters that the model refuses together.
    pub refuses_together: Vec<(String, String)>,
    /// Whether it still serves.
    pub lifecycle: Lifecycle,
    /// What to use instead, best first: as a target would name it.
    pub substitutes: Vec<String>,
}

/// All known models.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    models: Vec<Model>,
}

impl Catalog {
    /// A catalogue of exactly these.
    pub fn from_models(models: Vec<Model>) -> Self {
        Self { models }
    }

    /// What is known of `model` as a target names it: an id, an inference profile (`us.…`, `global.…`) or an ARN.
    pub fn find(&self, api: Api, model: &str) -> Option<&Model> {
        self.models.iter().find(|known| known.api == api && known.id == model)
    }

    /// All models.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// What a call to `model` cost, where its price is known.
    pub fn cost(&self, api: Api, model: &str, usage: &Usage) -> Option<Usd> {
        self.find(api, model)?.prices.map(|prices| prices.cost(usage))
    }
}
