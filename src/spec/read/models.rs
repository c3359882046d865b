//! What the catalogue says of a target: does the model still serve, and is what the target asks for within its size?
//! (Whether the model takes each parameter is the translation's to say, where the snapshot asks it.)

use jiff::civil::Date;
use serde_json::Value as Json;

use super::Context;
use crate::{
    catalog::{Catalog, Lifecycle, Model},
    diagnostic::Position,
    names::nearest,
    spec::{
        providers::Api,
        residency::{self, Reach},
        target::Target,
    },
    yaml::{Findings, Node, Value, in_backticks},
};

/// A model that ends within this many days is warned of.
const NOTICE_DAYS: i32 = 90;

/// The names of the longest answer.
const MAX_TOKENS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Where the parts of a target stand.
pub(super) struct Places<'n> {
    /// Its `model`, or its `use`.
    pub(super) model: Position,
    /// Its `defaults`.
    pub(super) defaults: Option<&'n Node>,
    /// Its `override`.
    pub(super) overrides: Option<&'n Node>,
}

impl Places<'_> {
    /// Where a parameter is set; at the model when that is in a model definition.
    fn parameter(&self, name: &str) -> Position {
        [self.overrides, self.defaults]
            .into_iter()
            .flatten()
            .filter_map(|node| match &node.value {
                Value::Map(entries) => entries.iter().find(|entry| entry.key.text == name),
                _ => None,
            })
            .map(|entry| entry.key.position)
            .next()
            .unwrap_or(self.model)
    }
}

/// Says what is doubtful about a target's model and parameters.
pub(super) fn check(target: &Target, places: &Places<'_>, context: &Context<'_>, findings: &mut Findings) {
    let known = context.catalog.find(target.api, &target.model);
    match known {
        Some(model) => {
            check_lifecycle(target, model, places.model, context, findings);
            check_profile(target, model, places.model, findings);
        }
        None => warn_unknown(target, places.model, context, findings),
    }
    check_sizes(target, known, places, findings);
    check_max_tokens(target, known, places, findings);
}

fn warn_unknown(target: &Target, at: Position, context: &Context<'_>, findings: &mut Findings) {
    let ids = context.catalog.models().iter().filter(|model| model.api == target.api).map(|model| model.id.as_str());
    let base = target.model.rsplit_once('/').map_or(target.model.as_str(), |(_, id)| id);
    let help = match nearest(base, ids) {
        Some(near) => format!("did you mean `{near}`? Otherwise describe it in config/catalog.yaml"),
        None => "describe it in config/catalog.yaml, or leave it: calls work without".to_owned(),
    };
    let message = format!("the catalogue does not know `{}`: no price, window or lifecycle", target.model);
    findings.warning("unknown-model", at, message, help);
}

/// When a model ends or ended, if that concerns anybody today.
enum Ending {
    /// It no longer serves.
    Past(Option<Date>),
    /// It ends within the notice.
    Soon(Date, i32),
}

fn ending(model: &Model, today: Date) -> Option<Ending> {
    let date = match model.lifecycle {
        Lifecycle::Active => return None,
        Lifecycle::Ended(date) => return Some(Ending::Past(date)),
        Lifecycle::EndsOn(date) => date,
    };
    let days = (date - today).get_days();
    match days {
        ..=0 => Some(Ending::Past(Some(date))),
        1..=NOTICE_DAYS => Some(Ending::Soon(date, days)),
        _ => None,
    }
}

/// What to use instead, as advice.
fn substitutes(target: &Target, catalog: &Catalog) -> String {
    match catalog.substitutes(target.api, &target.model).as_slice() {
        [] => "move to another model".to_owned(),
        names => format!("move to {}", in_backticks(names.iter().take(2).copied())),
    }
}

fn check_lifecycle(target: &Target, model: &Model, at: Position, context: &Context<'_>, findings: &mut Findings) {
    let help = || substitutes(target, context.catalog);
    match ending(model, context.today) {
        None => {}
        Some(Ending::Past(date)) => {
            let since = date.map(|date| format!(" since {date}")).unwrap_or_default();
            let message = format!("`{}` is shut down{since}", target.model);
            findings.warning("model-shut-down", at, message, help());
        }
        Some(Ending::Soon(date, days)) => {
            let message = format!("`{}` will be shut down on {date}, in {days} days", target.model);
            findings.warning("model-shuts-down", at, message, help());
        }
    }
}

/// A way back that leads to a dead model is none; `what` would take it.
pub(super) fn check_way_back(
    target: Option<&Target>,
    at: Position,
    what: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) {
    let Some(target) = target else { return };
    let Some(model) = context.catalog.find(target.api, &target.model) else { return };
    let message = match ending(model, context.today) {
        None => return,
        Some(Ending::Past(_)) => format!("{what} would go to `{}`, which is shut down", target.model),
        Some(Ending::Soon(date, _)) => {
            format!("{what} would go to `{}`, which is shut down from {date} on", target.model)
        }
    };
    let help = format!("give `{}` a model that stays: {}", target.name, substitutes(target, context.catalog));
    findings.warning("rollback-target-shut-down", at, message, help);
}

/// Whether the model is served the way the target names it.
fn check_profile(target: &Target, model: &Model, at: Position, findings: &mut Findings) {
    let profiles = || in_backticks(model.profiles.iter().map(String::as_str));
    match residency::place_of(&target.model).reach {
        Reach::Region if model.needs_profile && target.api == Api::Bedrock && target.model == model.id => {
            let message = format!("`{}` is served by inference profiles alone", model.id);
            let first = model.profiles.first().map_or("us", String::as_str);
            findings.warning(
                "needs-profile",
                at,
                message,
                format!("write `{first}.{}`; there is {}", model.id, profiles()),
            );
        }
        Reach::Geography(name, _)
            if !model.profiles.is_empty() && !model.profiles.iter().any(|known| known == name) =>
        {
            let message = format!("the catalogue knows no `{name}.` profile of `{}`", model.id);
            findings.warning("unknown-profile", at, message, format!("there is {}", profiles()));
        }
        _ => {}
    }
}

fn check_sizes(target: &Target, known: Option<&Model>, places: &Places<'_>, findings: &mut Findings) {
    for name in MAX_TOKENS {
        let asked = target.overrides.get(name).or_else(|| target.defaults.get(name)).and_then(Json::as_u64);
        let capped =
            |asked: u64| MAX_TOKENS.iter().filter_map(|cap| target.cap.get(*cap)?.as_u64()).fold(asked, u64::min);
        // On Bedrock the bound is cut to what the model writes, and that is said with the other parameters.
        let known = known.filter(|model| model.api == Api::OpenAi);
        if let (Some(asked), Some(most)) = (asked, known.and_then(|model| model.max_output_tokens))
            && capped(asked) > most
        {
            let message = format!("`{}` gives at most {most} tokens, not {asked}", target.model);
            findings.warning("parameter-too-large", places.parameter(name), message, format!("write at most {most}"));
        }
    }
    for (name, cap) in &target.cap {
        let (Some(cap), set) = (cap.as_f64(), target.overrides.get(name).or_else(|| target.defaults.get(name))) else {
            continue;
        };
        if let Some(set) = set.and_then(Json::as_f64)
            && set > cap
        {
            let message = format!("`{name}` is set to {set}, but the target's `cap` is {cap}");
            findings.warning("above-cap", places.parameter(name), message, "lower it, or raise the cap");
        }
    }
}

fn check_max_tokens(target: &Target, known: Option<&Model>, places: &Places<'_>, findings: &mut Findings) {
    let sets_any = [&target.defaults, &target.overrides, &target.cap]
        .into_iter()
        .any(|parameters| MAX_TOKENS.iter().any(|name| parameters.contains_key(*name)));
    if target.api != Api::Bedrock || sets_any {
        return;
    }
    let reserved = known
        .map_or_else(|| "the catalogue's default".to_owned(), |model| format!("{} tokens", model.default_max_tokens));
    let message = format!(
        "no `max_tokens`: a job that names none may answer with {reserved}, and the quota is charged for as much until the call ends"
    );
    let help = "add `defaults: { max_tokens: … }`, a little above the longest answer you expect";
    findings.warning("no-max-tokens", places.model, message, help);
}
