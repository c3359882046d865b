//! `reasoning_effort`, in each family's own words.
//!
//! Invariant: a model that is told to think gets nothing that it refuses while it thinks; where thinking and the
//! answer's contract exclude each other, the thinking goes, noted.

use serde_json::{Map, Value, json};

use super::{Request, family::Habits};
use crate::{
    catalog::Reasoning,
    job::FidelityAction,
    wire::{
        Refusal,
        effort::{self, Effort},
        fidelity::Ledger,
        parameters::Effective,
    },
};

const NAME: &str = "reasoning_effort";
/// The least that Claude takes as a budget for thinking.
const LEAST_BUDGET: u64 = 1_024;

/// How the model is to think.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thinking {
    kind: Reasoning,
    wanted: Option<Effort>,
}

/// What stands against thinking in this request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Against {
    /// A tool must be called.
    pub forced_tool: bool,
    /// The conversation ends in the results of calls that were made without thinking.
    pub ends_in_results: bool,
    /// Whoever asks has bounded the answer.
    pub is_bounded: bool,
}

/// What a thinking model does not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Nothing special.
    #[default]
    Free,
    /// Temperature 1, top_p of 0.95 and more.
    Narrow,
    /// None at all.
    None,
}

impl Thinking {
    pub(super) fn read(
        effective: &Effective<'_>,
        habits: Habits<'_>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Self, Refusal> {
        let wanted = effective.get(NAME).map(effort::read).transpose()?;
        let kind = habits.reasoning();
        if matches!(kind, None | Some(Reasoning::None)) && wanted.is_some_and(|wanted| wanted != Effort::None) {
            let detail = match kind {
                None => "this release does not know how the model is told to reason",
                Some(_) => "the model does not reason",
            };
            ledger.inexact(NAME, FidelityAction::Dropped, detail)?;
        }
        Ok(Self { kind: kind.unwrap_or_default(), wanted })
    }

    /// Whether the model will reason because it is asked to, or because it always does.
    pub(super) fn is_on(self) -> bool {
        match self.kind {
            Reasoning::None => false,
            Reasoning::Always => true,
            _ => self.wanted.is_some_and(|wanted| wanted != Effort::None),
        }
    }

    /// Puts it into the request, whose output bound is set.
    pub(super) fn pack(
        self,
        habits: Habits<'_>,
        against: Against,
        ledger: &mut Ledger<'_>,
        request: &mut Request,
    ) -> Result<Sampling, Refusal> {
        let always = self.kind == Reasoning::Always;
        let sampling = match self.wanted {
            Some(wanted) if always || wanted != Effort::None => self.tell(wanted, habits, against, ledger, request)?,
            // Some reason unless they are told not to.
            Some(wanted) if matches!(self.kind, Reasoning::Effort | Reasoning::ReasoningEffort) => {
                self.tell(wanted, habits, against, ledger, request)?
            }
            _ if always => Sampling::Narrow,
            _ => Sampling::Free,
        };
        if habits.is_claude() && sampling == Sampling::Narrow {
            let paths = &mut request.additional_model_response_field_paths;
            paths.push("/usage/output_tokens_details".to_owned());
        }
        Ok(sampling)
    }

    fn tell(
        self,
        wanted: Effort,
        habits: Habits<'_>,
        against: Against,
        ledger: &mut Ledger<'_>,
        request: &mut Request,
    ) -> Result<Sampling, Refusal> {
        if matches!(self.kind, Reasoning::Budget | Reasoning::Adaptive) && against.forced_tool {
            let detail = "the model cannot think when a tool must be called: it does not think";
            ledger.inexact(NAME, FidelityAction::Dropped, detail)?;
            return Ok(Sampling::Free);
        }
        let mut nearest = || -> Result<&'static str, Refusal> {
            let sent = wanted.nearest(habits.efforts());
            if sent != wanted {
                let detail = format!("{wanted} goes as {sent}, the nearest that the model takes");
                ledger.inexact(NAME, FidelityAction::Approximated, detail)?;
            }
            Ok(sent.into())
        };
        let fields = &mut request.additional_model_request_fields;
        Ok(match self.kind {
            Reasoning::None => Sampling::Free,
            Reasoning::Effort => {
                fields.insert("reasoning".to_owned(), json!({ "effort": nearest()? }));
                Sampling::Free
            }
            Reasoning::ReasoningEffort => {
                fields.insert(NAME.to_owned(), nearest()?.into());
                Sampling::Free
            }
            Reasoning::Adaptive => {
                let effort = nearest()?;
                fields.insert("thinking".to_owned(), json!({ "type": "adaptive" }));
                fields.insert("output_config".to_owned(), json!({ "effort": effort }));
                Sampling::Narrow
            }
            Reasoning::Always => {
                fields.insert("output_config".to_owned(), json!({ "effort": nearest()? }));
                Sampling::Narrow
            }
            Reasoning::Nova => {
                let effort = nearest()?;
                let config = json!({ "type": "enabled", "maxReasoningEffort": effort });
                fields.insert("reasoningConfig".to_owned(), config);
                // At its highest, Nova samples as it pleases.
                if effort == "high" { Sampling::None } else { Sampling::Free }
            }
            Reasoning::Budget => return budget(wanted, habits, against, ledger, request),
        })
    }
}

/// Claude up to 4.5 thinks within a number of tokens, which its output bound must exceed.
fn budget(
    wanted: Effort,
    habits: Habits<'_>,
    against: Against,
    ledger: &mut Ledger<'_>,
    request: &mut Request,
) -> Result<Sampling, Refusal> {
    if against.ends_in_results {
        let detail = "the model cannot take up its thinking amid tool calls that were made without: it does not think";
        ledger.inexact(NAME, FidelityAction::Dropped, detail)?;
        return Ok(Sampling::Free);
    }
    let asked: u64 = match wanted {
        Effort::None | Effort::Minimal => LEAST_BUDGET,
        Effort::Low => 2_048,
        Effort::Medium => 8_192,
        Effort::High => 16_384,
        Effort::XHigh | Effort::Max => 32_768,
    };
    let bound = &mut request.inference_config.max_tokens;
    if !against.is_bounded {
        *bound = bound.saturating_add(asked).min(habits.most_max_tokens().unwrap_or(u64::MAX)).min(i32::MAX as u64);
    }
    // A quarter is left for the answer.
    let tokens = asked.min(*bound / 4 * 3);
    if tokens < LEAST_BUDGET {
        let detail = format!(
            "thinking takes {LEAST_BUDGET} tokens at least, which an output bound of {bound} does not leave: the model \
             does not think"
        );
        ledger.inexact(NAME, FidelityAction::Dropped, detail)?;
        return Ok(Sampling::Free);
    }
    let how = if against.is_bounded { "within" } else { "added to" };
    let detail = format!("{wanted} goes as a budget of {tokens} tokens for thinking, {how} the output bound");
    ledger.inexact(NAME, FidelityAction::Approximated, detail)?;
    let mut thinking = Map::new();
    thinking.insert("type".to_owned(), "enabled".into());
    thinking.insert("budget_tokens".to_owned(), tokens.into());
    request.additional_model_request_fields.insert("thinking".to_owned(), Value::Object(thinking));
    Ok(Sampling::Narrow)
}
