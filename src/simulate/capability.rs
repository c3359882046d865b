//! What a model can do, as the catalogue says, and which requests it therefore turns away.

use super::{config::ModelPolicy, prompt::Prompt};
use crate::{
    catalog::{Catalog, Lifecycle, Model, Sampling, ToolChoice, id::bedrock_id},
    clock::Timestamp,
    spec::Api,
};

/// Why a model does not take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unable {
    /// There is no such model.
    Unknown,
    /// It has been shut down.
    Ended,
    /// It is called by the name of an inference profile alone.
    NeedsProfile,
    /// It does not know this parameter.
    Parameter(&'static str),
    /// It does not take these two together.
    Together(String, String),
    /// No tool can be forced.
    ForcedTool,
    /// It never answers at such length.
    Output { asked: u64, most: u64 },
    /// It takes no such small bound.
    Bound { asked: u64, least: u64 },
    /// The prompt, with the answer that is asked for, does not fit.
    Window { input: u64, output: u64, most: u64 },
}

/// What the model of behaviour needs to know of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capability {
    pub max_output: u64,
    pub burndown: u32,
}

/// A model of which nothing is known.
const ORDINARY: Capability = Capability { max_output: 4_096, burndown: 1 };

/// Checks a request against what is known of its model.
pub(super) fn check(
    policy: ModelPolicy,
    catalog: &Catalog,
    api: Api,
    prompt: &Prompt,
    region: Option<&str>,
    now: Timestamp,
) -> Result<Capability, Unable> {
    if policy == ModelPolicy::Any || catalog.models().is_empty() {
        return Ok(ORDINARY);
    }
    let Some(model) = catalog.find(api, &prompt.model) else {
        return if is_private(api, &prompt.model) { Ok(ORDINARY) } else { Err(Unable::Unknown) };
    };
    if has_ended(model, now) {
        return Err(Unable::Ended);
    }
    if api == Api::Bedrock {
        reach(model, &prompt.model, region)?;
    }
    parameters(model, prompt)?;
    length(model, prompt)
}

/// Whether a model can be called by this name from this region.
fn reach(model: &Model, name: &str, region: Option<&str>) -> Result<(), Unable> {
    let Some(geography) = bedrock_id(name).geography else {
        return if model.needs_profile { Err(Unable::NeedsProfile) } else { Ok(()) };
    };
    let regions = match geography {
        "global" => "",
        "apac" | "jp" | "au" => "ap-",
        "us" => "us-",
        "us-gov" => "us-gov-",
        "eu" => "eu-",
        "ca" => "ca-",
        _ => "sa-",
    };
    // Requests with a key instead of a signature do not say their region.
    let from_here = region.is_none_or(|region| region.starts_with(regions));
    let offered = model.profiles.is_empty() || model.profiles.iter().any(|known| known == geography);
    if from_here && offered { Ok(()) } else { Err(Unable::Unknown) }
}

fn parameters(model: &Model, prompt: &Prompt) -> Result<(), Unable> {
    let refuses = |parameter: &str| model.refuses.iter().any(|refused| refused == parameter);
    if let Some(parameter) = prompt.parameters.iter().find(|parameter| refuses(parameter)) {
        return Err(Unable::Parameter(parameter));
    }
    let can_be_still = model.capabilities.efforts.iter().any(|effort| effort == "none");
    let reasons = prompt.effort.as_deref().map_or(!can_be_still, |effort| effort != "none");
    if model.capabilities.sampling == Sampling::WithoutReasoning && reasons {
        let sampling = prompt.parameters.iter().find(|parameter| matches!(**parameter, "temperature" | "top_p"));
        if let Some(parameter) = sampling {
            return Err(Unable::Parameter(parameter));
        }
    }
    if prompt.tool.is_some() && model.capabilities.tool_choice != ToolChoice::Any {
        return Err(Unable::ForcedTool);
    }
    let present = |name: &String| prompt.parameters.iter().any(|parameter| parameter == name);
    if let Some((one, other)) = model.refuses_together.iter().find(|(one, other)| present(one) && present(other)) {
        return Err(Unable::Together(one.clone(), other.clone()));
    }
    Ok(())
}

fn length(model: &Model, prompt: &Prompt) -> Result<Capability, Unable> {
    let max_output = model.max_output_tokens.unwrap_or(model.default_max_tokens);
    let asked = prompt.max_output.unwrap_or(0);
    if asked > max_output {
        return Err(Unable::Output { asked, most: max_output });
    }
    let least = model.capabilities.least_max_tokens;
    if prompt.max_output.is_some_and(|asked| asked < least) {
        return Err(Unable::Bound { asked, least });
    }
    if let Some(window) = model.context_window
        && prompt.input_tokens.saturating_add(asked) > window
    {
        return Err(Unable::Window { input: prompt.input_tokens, output: asked, most: window });
    }
    Ok(Capability { max_output, burndown: model.burndown.max(1) })
}

/// Whether a model's last day has passed.
pub(super) fn has_ended(model: &Model, now: Timestamp) -> bool {
    match model.lifecycle {
        Lifecycle::Active => false,
        Lifecycle::Ended(_) => true,
        Lifecycle::EndsOn(day) => jiff::Timestamp::from_microsecond(now.as_micros())
            .is_ok_and(|now| now.to_zoned(jiff::tz::TimeZone::UTC).date() >= day),
    }
}

/// Models of an account's own, which no catalogue lists: fine-tuned ones, imported ones, profiles for an application.
fn is_private(api: Api, model: &str) -> bool {
    match api {
        Api::OpenAi => model.starts_with("ft:"),
        Api::Bedrock => {
            let kinds =
                ["application-inference-profile/", "imported-model/", "provisioned-model/", "custom-model-deployment/"];
            model.starts_with("arn:") && kinds.iter().any(|kind| model.contains(kind))
        }
    }
}
