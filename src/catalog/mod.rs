//! Facts on models: windows, prices, lifecycles, what they refuse and what they can do.
//!
//! Invariant: a complete list is built in; an operator's file replaces entries field by field and may add some. A model
//! that the catalogue does not know still works: it merely has no price, window or lifecycle. Nothing here calls anyone
//! or knows the time.

mod api;
mod fit;
pub mod id;
mod model;
mod prices;
mod read;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use rust_decimal::Decimal;

pub use api::Api;
pub use fit::{Fit, Limit};
pub use model::{
    Capabilities, CountTokens, Input, Lifecycle, Model, Reasoning, Sampling, Schema, Tokenizer, ToolChoice,
};
pub use prices::{LongPrices, Prices, Tier, TierPrices};

use crate::{diagnostic::Diagnostic, money::Usd, usage::Usage};

/// All known models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    models: Vec<Model>,
    openai: HashMap<String, usize>,
    bedrock: HashMap<String, usize>,
}

/// The built-in catalogue's file.
const BUILTIN: &str = include_str!("builtin.yaml");

impl Catalog {
    /// The built-in catalogue.
    pub fn builtin() -> Arc<Self> {
        static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
            let (catalog, _) = read::read("builtin.yaml", BUILTIN.as_bytes(), &Catalog::default());
            Arc::new(catalog.unwrap_or_default())
        });
        Arc::clone(&CATALOG)
    }

    /// A catalogue of these models; of two with the same id, the later one counts.
    pub fn from_models(models: impl IntoIterator<Item = Model>) -> Self {
        let mut catalog = Self::default();
        for model in models {
            catalog.put(model);
        }
        catalog
    }

    /// This catalogue with an operator's file laid over it, entry by entry and field by field; `None` where the file
    /// has errors. `file` is its name as the operator would write it.
    pub fn overlaid(&self, file: &str, bytes: &[u8]) -> (Option<Self>, Vec<Diagnostic>) {
        read::read(file, bytes, self)
    }

    fn put(&mut self, model: Model) {
        let next = self.models.len();
        let index = match model.api {
            Api::OpenAi => &mut self.openai,
            Api::Bedrock => &mut self.bedrock,
        };
        let place = *index.entry(model.id.clone()).or_insert(next);
        match self.models.get_mut(place) {
            Some(old) => *old = model,
            None => self.models.push(model),
        }
    }

    /// What is known of `model` as a target names it: an id, a dated snapshot, an inference profile (`us.…`,
    /// `global.…`) or an ARN. OpenAI's own models on Bedrock's OpenAI-form endpoint are found by their Bedrock names.
    pub fn find(&self, api: Api, model: &str) -> Option<&Model> {
        let place = match api {
            Api::OpenAi => self
                .openai
                .get(model)
                .or_else(|| self.openai.get(id::without_date(model)?))
                .or_else(|| self.bedrock_place(model)),
            Api::Bedrock => self.bedrock_place(model),
        };
        self.models.get(*place?)
    }

    fn bedrock_place(&self, model: &str) -> Option<&usize> {
        let base = id::bedrock_id(model).base;
        self.bedrock
            .get(model)
            .or_else(|| self.bedrock.get(base))
            .or_else(|| self.bedrock.get(id::without_window(base)?))
    }

    /// All models.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The list prices that hold for `model` as a target names it.
    pub fn prices(&self, api: Api, model: &str) -> Option<&Prices> {
        let known = self.find(api, model)?;
        let global = known.api == Api::Bedrock && id::bedrock_id(model).geography == Some("global");
        known.global_prices.as_ref().filter(|_| global).or(known.prices.as_ref())
    }

    /// What a call to `model` cost, where its price is known: every term of the price list that applies, times the
    /// operator's `multiplier`.
    pub fn cost(&self, api: Api, model: &str, usage: &Usage, tier: Tier, multiplier: Decimal) -> Option<Usd> {
        let list = self.prices(api, model)?.cost(usage, tier)?;
        Some(Usd(list.0.saturating_mul(multiplier).normalize()))
    }

    /// The most that a call to `model` may cost, by an upper estimate of its prompt and the bound of its answer.
    pub fn cost_at_most(
        &self,
        api: Api,
        model: &str,
        (prompt, output): (u64, u64),
        tier: Tier,
        multiplier: Decimal,
    ) -> Option<Usd> {
        let list = self.prices(api, model)?.at_most(prompt, output, tier)?;
        Some(Usd(list.0.saturating_mul(multiplier).normalize()))
    }

    /// What to use instead of `model`, best first: the provider's own recommendation, then the catalogue's.
    pub fn substitutes<'a>(&'a self, api: Api, model: &str) -> Vec<&'a str> {
        let Some(known) = self.find(api, model) else { return Vec::new() };
        let mut names: Vec<&str> = Vec::new();
        for name in known.replacement.iter().chain(&known.substitutes) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}
