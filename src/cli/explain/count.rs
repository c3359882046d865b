//! `--count-tokens`: the prompt as each target of the chain counts it.
//!
//! Invariant: nothing here costs money. OpenAI's published vocabularies count on this machine; Bedrock's CountTokens is
//! free; where neither can count, that is said, with what could.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::{
    catalog::{
        Api, CountTokens, Tokenizer,
        tokens::{self, Bounds},
    },
    cli::exit::{Failure, Result},
    engine::explain::Carriage,
    ids::JobId,
    provider::{self, Call},
    settings::Settings,
};

/// For one count.
const PATIENCE: Duration = Duration::from_secs(30);

/// A count, or why there is none.
pub(super) enum Counted {
    /// By whom, and how many.
    Tokens(&'static str, u64),
    /// Why not.
    Not(String),
}

/// Counts for every target.
pub(super) fn count(settings: &Settings, chain: &[Carriage], body: &Value) -> Result<Vec<Counted>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let mut counted = Vec::with_capacity(chain.len());
        for carriage in chain {
            counted.push(count_one(settings, carriage, body).await);
        }
        Ok(counted)
    })
}

async fn count_one(settings: &Settings, carriage: &Carriage, body: &Value) -> Counted {
    let prepared = match &carriage.prepared {
        Ok(prepared) => prepared,
        Err(refusal) => return Counted::Not(refusal.to_string()),
    };
    let target = &carriage.target;
    let model = carriage.model.as_ref();
    if let Some(by) = model.filter(|_| target.api == Api::OpenAi).and_then(|model| vocabulary(model.tokenizer)) {
        let Bounds { most, .. } = counted_here(carriage, body);
        return Counted::Tokens(by, most);
    }
    match model.map(|model| model.capabilities.count_tokens) {
        Some(CountTokens::Runtime) => {}
        Some(CountTokens::Mantle) => {
            return Counted::Not(format!(
                "{} is counted on Bedrock's Mantle endpoint alone, which this release does not call",
                target.model
            ));
        }
        Some(CountTokens::None) => return Counted::Not(format!("nobody counts tokens of {}", target.model)),
        None => return Counted::Not(format!("the catalogue does not know who counts tokens of {}", target.model)),
    }
    let Some(account) = settings.providers.get(&target.provider) else {
        return Counted::Not(format!("provider {} is not configured", target.provider));
    };
    let client = match provider::connect(&target.provider, account, &settings.media).await {
        Ok(client) => client,
        Err(error) => return Counted::Not(error.to_string()),
    };
    let call = Call {
        job: JobId::generate(),
        target: target.clone(),
        payload: prepared.payload.clone(),
        reading: prepared.reading.clone(),
        timeout: PATIENCE,
        idle_timeout: PATIENCE,
    };
    match client.count_tokens(call).await {
        Ok(tokens) => Counted::Tokens("Bedrock", tokens),
        Err(error) => {
            let advice = error.advice.map(|advice| format!(" ({advice})")).unwrap_or_default();
            Counted::Not(format!("{}{advice}", error.message))
        }
    }
}

/// The published vocabulary that counts what the model counts.
fn vocabulary(tokenizer: Tokenizer) -> Option<&'static str> {
    match tokenizer {
        Tokenizer::O200k => Some("o200k_base, here"),
        Tokenizer::Cl100k => Some("cl100k_base, here"),
        _ => None,
    }
}

fn counted_here(carriage: &Carriage, body: &Value) -> Bounds {
    let family = carriage.model.as_ref().map_or(Tokenizer::O200k, |model| model.tokenizer);
    let prompt = tokens::count_prompt(family, body, u64::MAX);
    match &carriage.target.system {
        Some(system) => prompt.plus(tokens::count_text(family, &system.text, u64::MAX)),
        None => prompt,
    }
}

impl Counted {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Tokens(by, tokens) => json!({ "tokens": tokens, "by": by }),
            Self::Not(why) => json!({ "not": why }),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(by, tokens) => write!(f, "{tokens} prompt tokens, counted ({by})"),
            Self::Not(why) => write!(f, "not counted: {why}"),
        }
    }
}
