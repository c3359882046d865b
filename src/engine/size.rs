//! How large a job's prompt is, to rules and to the model that it goes to, before anything is sent.
//!
//! Invariant: the cheap estimate decides wherever it leaves no doubt. Where it does, the prompt is counted, once for each
//! vocabulary, away from the threads that carry jobs, and only a few at a time.

use std::sync::Arc;

use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use crate::{
    catalog::{
        Api, Fit, Model, Tokenizer,
        tokens::{self, Bounds},
    },
    routing::prompt,
    spec::{SystemMode, Target},
};

/// Prompts that are counted at once: counting is work for a processor.
static COUNTING: Semaphore = Semaphore::const_new(2);

/// A prompt is counted up to so many tokens at least, where somebody wants to see the number.
const MOST_COUNTED: u64 = 1_000_000;

/// A prompt's size for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its tokens, the target's own system text among them.
    pub prompt: Bounds,
    /// Whether it fits, with the answer that it asks for.
    pub fit: Fit,
}

/// What is known of one job's prompt.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    for_rules: Option<u64>,
    counted: SmallVec<[(Tokenizer, u64, Bounds); 2]>,
}

impl Sizes {
    /// `job.prompt_tokens`, if it has been counted.
    pub(super) fn for_rules(&self) -> Option<u64> {
        self.for_rules
    }

    /// Counts `job.prompt_tokens`.
    pub(super) async fn count_for_rules(&mut self, body: &Arc<Value>) -> u64 {
        let counted = Arc::clone(body);
        let tokens = match away(move || prompt::prompt_tokens(&counted)).await {
            Some(tokens) => tokens,
            None => tokens::estimate_prompt_tokens(body),
        };
        self.for_rules = Some(tokens);
        tokens
    }

    /// A prompt's size for a target's model, with an answer of at most `output` tokens.
    pub(super) async fn of(
        &mut self,
        body: &Arc<Value>,
        target: &Target,
        model: Option<&Model>,
        output: Option<u64>,
    ) -> Size {
        let size = estimate(body, target, model, output);
        let (Fit::MayFit, Some(model)) = (size.fit, model) else { return size };
        let Some((room, _)) = model.room(output) else { return size };
        let known = self.counted.iter().find(|(family, up_to, _)| *family == model.tokenizer && *up_to >= room);
        let counted = if let Some((.., bounds)) = known {
            *bounds
        } else {
            let (family, text) = (model.tokenizer, Arc::clone(body));
            match away(move || tokens::count_prompt(family, &text, room)).await {
                Some(bounds) => {
                    self.counted.push((family, room, bounds));
                    bounds
                }
                None => return size,
            }
        };
        refined(size, counted, target, model, output)
    }
}

/// A prompt's size by the cheap estimate alone.
pub fn estimate(body: &Value, target: &Target, model: Option<&Model>, output: Option<u64>) -> Size {
    let family = family(target, model);
    let prompt = tokens::estimate_prompt(family, body).plus(added(family, target));
    Size { prompt, fit: model.map_or(Fit::Fits, |model| model.fit(prompt, output)) }
}

/// A prompt's size, counted by the nearest published vocabulary. Takes a moment for a long prompt.
pub fn count(body: &Value, target: &Target, model: Option<&Model>, output: Option<u64>) -> Size {
    let size = estimate(body, target, model, output);
    let Some(model) = model else { return size };
    let room = model.room(output).map_or(0, |(room, _)| room);
    let counted = tokens::count_prompt(model.tokenizer, body, room.max(MOST_COUNTED));
    refined(size, counted, target, model, output)
}

fn refined(cheap: Size, counted: Bounds, target: &Target, model: &Model, output: Option<u64>) -> Size {
    let counted = counted.plus(added(model.tokenizer, target));
    let least = counted.least.max(cheap.prompt.least);
    // Where counting stopped early, only the lower bound was found.
    let most = counted.most.min(cheap.prompt.most).max(least);
    let prompt = Bounds { least, most };
    Size { prompt, fit: model.fit(prompt, output) }
}

/// The target's own system text, which may replace the job's or give way to it.
fn added(family: Tokenizer, target: &Target) -> Bounds {
    let Some(system) = &target.system else { return Bounds { least: 0, most: 0 } };
    let Bounds { least, most } = tokens::estimate_text(family, &system.text);
    match system.mode {
        SystemMode::Prepend => Bounds { least, most: most.saturating_add(4) },
        SystemMode::Replace | SystemMode::Fallback => Bounds { least: 0, most: most.saturating_add(4) },
    }
}

fn family(target: &Target, model: Option<&Model>) -> Tokenizer {
    model.map_or(
        match target.api {
            Api::OpenAi => Tokenizer::O200kAssumed,
            Api::Bedrock => Tokenizer::Other,
        },
        |model| model.tokenizer,
    )
}

/// Works on a thread that may be busy for a while; `None` when the process is ending.
async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let _permit = COUNTING.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}
