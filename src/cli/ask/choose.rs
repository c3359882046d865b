//! Which model is asked, and where: the definition's, another provider's in its place, or what stands in for one that is
//! no more.
//!
//! Invariant: pure. The definition's own model is asked unless somebody says otherwise; what was chosen instead is always
//! told.

use std::{sync::Arc, time::Duration};

use jiff::civil::Date;

use crate::{
    catalog::{Catalog, Lifecycle, Model},
    cli::exit::{Failure, Result},
    names::{ProviderName, Region, TargetName, nearest},
    spec::{
        Api, Fidelity, ModelDefinition, Parameters, Providers, Residency, SystemMode, SystemPrompt, Target, pipeline,
        residency,
    },
};

/// A model that ends within so many days is spoken of.
const NOTICE_DAYS: i32 = 90;

/// What the caller wants otherwise than the definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub provider: Option<&'a ProviderName>,
    pub model: Option<&'a str>,
    pub use_substitute: bool,
    pub timeout: Duration,
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Chosen {
    pub target: Arc<Target>,
    /// What the caller should know of the choice.
    pub notes: Vec<String>,
}

/// Chooses; `file` is the definition's.
pub(super) fn choose(
    file: &str,
    definition: &ModelDefinition,
    wish: &Wish<'_>,
    providers: &Providers,
    catalog: &Catalog,
    today: Date,
) -> Result<Chosen> {
    let name = wish.provider.unwrap_or(&definition.provider);
    let facts = providers.get(name).ok_or_else(|| {
        let near = nearest(name.as_str(), providers.keys().map(ProviderName::as_str));
        let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Failure::new(format!("there is no provider {name} in the settings{near}"))
    })?;
    let own_api = providers.get(&definition.provider).map_or_else(|| guess(&definition.model), |own| own.api);
    let mut notes = Vec::new();
    let model = match wish.model {
        Some(model) => model.to_owned(),
        None if facts.api != own_api => {
            let substitute = substitute(catalog, own_api, &definition.model, facts.api, today).ok_or_else(|| {
                Failure::new(format!(
                    "the catalogue names no substitute for {} ({file}) that provider {name} serves; name one with --model",
                    definition.model
                ))
            })?;
            notes.push(format!("{substitute} on {name} stands in for {} ({file})", definition.model));
            substitute
        }
        None => alive(file, definition, wish, (own_api, catalog, today), &mut notes)?,
    };
    let known = catalog.find(facts.api, &model);
    if let Some(ended) = known.filter(|known| known.has_ended(today)) {
        return Err(Failure::new(format!("{model} {}; name another with --model", ending(ended))));
    }
    if let Some(Lifecycle::EndsOn(day)) = known.map(|known| known.lifecycle)
        && (day - today).get_days() <= NOTICE_DAYS
    {
        let instead = catalog.substitutes(facts.api, &model).join(" or ");
        notes.push(format!("{model} will be shut down on {day}; move to {instead}"));
    }
    // A region of the definition is its own model's; another provider has its own.
    let own = wish.provider.is_none_or(|provider| *provider == definition.provider);
    let region: Option<Region> = match facts.api {
        Api::OpenAi => None,
        Api::Bedrock => {
            let inside = residency::place_of(&model).arn_region.and_then(|region| region.parse().ok());
            inside.or_else(|| definition.region.clone().filter(|_| own)).or_else(|| facts.region.clone())
        }
    };
    let target = Target {
        name: TargetName::new("ask").map_err(|error| Failure::new(error.to_string()))?,
        provider: name.clone(),
        api: facts.api,
        residency: Residency::Unknown,
        region,
        model,
        timeout: wish.timeout,
        idle_timeout: pipeline::default::IDLE_TIMEOUT,
        stream: true,
        invoke: None,
        defaults: definition.parameters.clone(),
        overrides: Parameters::default(),
        cap: Parameters::default(),
        system: definition.system.clone().map(|text| SystemPrompt { text, mode: SystemMode::Prepend }),
        fidelity: Fidelity::Warn,
    };
    Ok(Chosen { target: Arc::new(target), notes })
}

/// The definition's own model, or, where it has ended and the caller allows it, its substitute at the same provider.
fn alive(
    file: &str,
    definition: &ModelDefinition,
    wish: &Wish<'_>,
    (api, catalog, today): (Api, &Catalog, Date),
    notes: &mut Vec<String>,
) -> Result<String> {
    let model = &definition.model;
    let Some(known) = catalog.find(api, model).filter(|known| known.has_ended(today)) else {
        return Ok(model.clone());
    };
    let Some(substitute) = substitute(catalog, api, model, api, today) else {
        return Err(Failure::new(format!("{model} ({file}) {}; name another with --model", ending(known))));
    };
    if !wish.use_substitute {
        return Err(Failure::new(format!(
            "{model} ({file}) {}; use {substitute} instead: say --use-substitute, or change the definition",
            ending(known)
        )));
    }
    notes.push(format!("{model} {}; {substitute} stands in for it", ending(known)));
    Ok(substitute)
}

/// The best substitute of a model that a protocol serves and that is alive.
fn substitute(catalog: &Catalog, api: Api, model: &str, wanted: Api, today: Date) -> Option<String> {
    let serves =
        |name: &&&str| catalog.find(wanted, name).is_some_and(|found| found.api == wanted && !found.has_ended(today));
    let names = catalog.substitutes(api, model);
    names.iter().find(serves).map(|name| (*name).to_owned())
}

fn ending(model: &Model) -> String {
    match model.lifecycle {
        Lifecycle::Ended(Some(day)) | Lifecycle::EndsOn(day) => format!("was shut down on {day}"),
        Lifecycle::Ended(None) | Lifecycle::Active => "was shut down".to_owned(),
    }
}

/// The protocol of a model whose own provider is not configured.
fn guess(model: &str) -> Api {
    if model.contains('.') && !model.starts_with("gpt-") || model.starts_with("arn:") {
        Api::Bedrock
    } else {
        Api::OpenAi
    }
}
