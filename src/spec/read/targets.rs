//! The `targets` of a spec.
//!
//! Invariant: every key under `targets` is declared, even one whose value is broken, so that its uses resolve.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::{
    Context, dangling,
    models::{self, Places},
    rollouts::Rollouts,
};
use crate::{
    catalog::id::bedrock_id,
    diagnostic::Position,
    names::{ProviderName, Region},
    spec::{
        keys,
        model_definition::{LONGEST_MODEL, LONGEST_SYSTEM, ModelDefinition},
        parameters,
        pipeline::{Sharing, default},
        providers::{Api, ProviderFacts},
        residency,
        target::{Fidelity, Form, Residency, SystemMode, SystemPrompt, Target, TargetIx},
    },
    yaml::{Entry, Findings, Node, Section, shortened},
};

/// Most targets of a pipeline.
const MOST_TARGETS: usize = 64;
/// Most targets that stand in for one.
const MOST_EQUIVALENTS: usize = 8;
/// Longest wait for an answer.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(1);

const FIDELITIES: [(&str, Fidelity); 3] =
    [("strict", Fidelity::Strict), ("warn", Fidelity::Warn), ("loose", Fidelity::Loose)];
const FORMS: [(&str, Form); 2] = [("claude", Form::Claude), ("llama", Form::Llama)];
const SYSTEM_MODES: [(&str, SystemMode); 3] =
    [("prepend", SystemMode::Prepend), ("replace", SystemMode::Replace), ("fallback", SystemMode::Fallback)];

/// All targets of a spec, broken ones included, by place.
pub(super) struct Targets {
    declared: Vec<Declared>,
    /// Whether a name was looked for in vain: what it meant may be any of these.
    missed: Cell<bool>,
}

struct Declared {
    name: String,
    position: Position,
    target: Option<Arc<Target>>,
    capacity: Capacity,
    /// Whether anything in the file has named it.
    named: Cell<bool>,
}

/// How much a target takes, and who stands in for it; names are resolved when all are declared.
#[derive(Default)]
struct Capacity {
    concurrency: Option<u32>,
    equivalents: Vec<(String, Position)>,
}

pub(super) fn read(pipeline: &Section<'_>, context: &Context<'_>, findings: &mut Findings) -> Targets {
    let mut targets = Targets { declared: Vec::new(), missed: Cell::new(false) };
    let Some(node) = pipeline.require("targets", findings) else { return targets };
    let Some(entries) = node.entries("targets", findings) else { return targets };
    if entries.is_empty() {
        let help = "add at least one, such as `openai: { provider: openai, model: … }`";
        findings.error("no-targets", node.position, "`targets` is empty", help);
    }
    if entries.len() > MOST_TARGETS {
        let message = format!("`targets` has {} targets; at most {MOST_TARGETS} are taken", entries.len());
        findings.error("too-many", node.position, message, "split the pipeline");
    }
    for entry in entries.into_iter().take(MOST_TARGETS) {
        let mut capacity = Capacity::default();
        let target = read_target(entry, context, &mut capacity, findings).map(Arc::new);
        targets.declared.push(Declared {
            name: entry.key.text.clone(),
            position: entry.key.position,
            target,
            capacity,
            named: Cell::new(false),
        });
    }
    targets
}

impl Targets {
    /// The place of the target that `node` names; says so when there is none.
    pub(super) fn resolve(&self, node: &Node, what: &str, findings: &mut Findings) -> Option<TargetIx> {
        let name = node.text(what, findings)?;
        let place = self.declared.iter().position(|declared| declared.name == name);
        if place.is_none() && !self.declared.is_empty() {
            dangling("target", name, node.position, self.declared.iter().map(|d| d.name.as_str()), findings);
        }
        self.missed.set(self.missed.get() || place.is_none());
        let place = place?;
        self.declared.get(place)?.named.set(true);
        u16::try_from(place).ok().map(TargetIx)
    }

    /// The target at `ix`, unless it is broken.
    pub(super) fn get(&self, ix: TargetIx) -> Option<&Target> {
        self.declared.get(ix.get())?.target.as_deref()
    }

    /// The name of the target at `ix`.
    pub(super) fn name(&self, ix: TargetIx) -> &str {
        self.declared.get(ix.get()).map_or("", |declared| &declared.name)
    }

    /// Every target by place; `None` stands for a broken one.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&Target>> {
        self.declared.iter().map(|declared| declared.target.as_deref())
    }

    /// The providers of all targets that are not broken.
    pub(super) fn providers(&self) -> impl Iterator<Item = &ProviderName> {
        self.iter().flatten().map(|target| &target.provider)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.declared.len()
    }

    /// How the targets share the pipeline's work: bounds of single ones, and who stands in for whom.
    pub(super) fn sharing(&self, rollouts: &Rollouts, findings: &mut Findings) -> Sharing {
        let mut sharing = Sharing::default();
        for (place, declared) in self.declared.iter().enumerate() {
            let Some(ix) = u16::try_from(place).ok().map(TargetIx) else { break };
            if let Some(most) = declared.capacity.concurrency {
                sharing.concurrency.insert(ix, most);
            }
            for (name, position) in &declared.capacity.equivalents {
                if let Some(equal) = self.equivalent(ix, name, *position, rollouts, findings) {
                    let equals = sharing.equivalents.entry(ix).or_default();
                    if equals.contains(&equal) {
                        let message = format!("`{}` stands here twice", shortened(name));
                        findings.error("duplicate-value", *position, message, "remove one of the two");
                    } else {
                        equals.push(equal);
                    }
                }
            }
        }
        sharing
    }

    /// The target of that name, if it can stand in for the one at `ix`.
    fn equivalent(
        &self,
        ix: TargetIx,
        name: &str,
        at: Position,
        rollouts: &Rollouts,
        findings: &mut Findings,
    ) -> Option<TargetIx> {
        let place = self.declared.iter().position(|declared| declared.name == name);
        let Some(place) = place else {
            self.missed.set(true);
            dangling("target", name, at, self.declared.iter().map(|d| d.name.as_str()), findings);
            return None;
        };
        self.declared.get(place)?.named.set(true);
        let equal = u16::try_from(place).ok().map(TargetIx)?;
        if equal == ix {
            let help = "name a target of the same model in another region or profile";
            findings.error("same-targets", at, format!("`{name}` cannot stand in for itself"), help);
            return None;
        }
        if rollouts.pairs().any(|arms| arms.contains(&Some(ix)) && arms.contains(&Some(equal))) {
            let message = format!("`{name}` is the other arm of a rollout: spilling to it would mix the arms");
            findings.error("mixed-arms", at, message, "name a target that is in no rollout with this one");
            return None;
        }
        if let (Some(one), Some(other)) = (self.get(ix), self.get(equal)) {
            let base = |target: &Target| match target.api {
                Api::Bedrock => bedrock_id(&target.model).base.to_owned(),
                Api::OpenAi => target.model.clone(),
            };
            if one.api != other.api || base(one) != base(other) {
                let message = format!("`{name}` is another model than `{}`: it cannot stand in for it", one.name);
                let help =
                    "list another region, profile or account of the same model; other models go under `fallback`";
                findings.error("not-equivalent", at, message, help);
                return None;
            }
        }
        Some(equal)
    }

    /// All of them, if none is broken.
    pub(super) fn complete(&self) -> Option<Vec<Arc<Target>>> {
        self.declared.iter().map(|declared| declared.target.clone()).collect()
    }

    /// Warns of targets that nothing read so far has named: no job can reach them.
    pub(super) fn warn_unused(&self, findings: &mut Findings) {
        if self.missed.get() || self.len() == 1 {
            return;
        }
        for declared in self.declared.iter().filter(|declared| !declared.named.get()) {
            let message = format!("no rule, rollout or fallback uses the target `{}`", declared.name);
            let help = "name it in a rule's `to`, in a rollout or in `fallback`, or remove it";
            findings.warning("unused-target", declared.position, message, help);
        }
    }
}

fn read_target(
    entry: &Entry,
    context: &Context<'_>,
    capacity: &mut Capacity,
    findings: &mut Findings,
) -> Option<Target> {
    let name = entry.key.name("a target", findings);
    let section = entry.value.section(&keys::TARGET, findings)?;
    capacity.concurrency = section.get("concurrency").and_then(|node| super::limits::read_concurrency(node, findings));
    if let Some(node) = section.get("equivalents") {
        for item in node.list("equivalents", MOST_EQUIVALENTS, findings).unwrap_or_default() {
            if let Some(name) = item.text("equivalents", findings) {
                capacity.equivalents.push((name.to_owned(), item.position));
            }
        }
    }
    let definition = read_use(&section, context, findings);
    let defaults = section.get("defaults");
    let overrides = section.get("override");

    let mut merged = definition.map(|definition| definition.parameters.clone()).unwrap_or_default();
    for (key, value) in defaults.map(|node| parameters::read(node, findings)).unwrap_or_default() {
        merged.insert(key, value);
    }
    let own_overrides = overrides.map(|node| parameters::read(node, findings)).unwrap_or_default();
    let cap = section.get("cap").map(|node| parameters::read_cap(node, findings)).unwrap_or_default();
    let system = section.get("system").map(|node| read_system(node, findings));
    let timeout =
        section.get("timeout").map(|node| node.span("timeout", Duration::from_millis(100)..=LONGEST_TIMEOUT, findings));
    let idle_timeout = section
        .get("idle_timeout")
        .map(|node| node.span("idle_timeout", Duration::from_millis(100)..=LONGEST_TIMEOUT, findings));
    let stream = section.get("stream").map(|node| node.boolean("stream", findings));
    let invoke = section.get("invoke").map(|node| node.choice("invoke", &FORMS, findings));
    let fidelity = section.get("fidelity").map(|node| node.choice("fidelity", &FIDELITIES, findings));
    let region = section.get("region").map(|node| node.name::<Region>("region", findings));

    let (provider, facts) = read_provider(&section, definition, context, findings)?;
    let model = match definition {
        Some(definition) => definition.model.as_str(),
        None => section.require("model", findings)?.line("model", LONGEST_MODEL, findings)?,
    };
    let model_at = section.get("model").or(section.get("use")).map_or(entry.key.position, |node| node.position);
    let region = match (region, definition) {
        (Some(region), _) => Some(region?),
        (None, Some(definition)) => definition.region.clone(),
        (None, None) => None,
    };
    let region_at = section.get("region").map_or(model_at, |node| node.position);
    let (region, residency) = place(model, region, facts, model_at, region_at, findings)?;
    let invoke = if let (Some(form), Some(node)) = (invoke, section.get("invoke")) {
        Some(read_invoke(form?, model, facts, model_at, node, findings)?)
    } else {
        warn_imported(model, facts, model_at, findings);
        None
    };
    let target = Target {
        name: name?,
        provider,
        api: facts.api,
        model: model.to_owned(),
        region,
        residency,
        timeout: timeout.unwrap_or(Some(default::TIMEOUT))?,
        idle_timeout: idle_timeout.unwrap_or(Some(default::IDLE_TIMEOUT))?,
        stream: stream.unwrap_or(Some(false))?,
        invoke,
        defaults: merged,
        overrides: own_overrides,
        cap,
        system: match (system, definition.and_then(|definition| definition.system.clone())) {
            (Some(system), _) => Some(system?),
            (None, Some(text)) => Some(SystemPrompt { text, mode: SystemMode::default() }),
            (None, None) => None,
        },
        fidelity: fidelity.unwrap_or(Some(Fidelity::default()))?,
    };
    models::check(&target, &Places { model: model_at, defaults, overrides }, context, findings);
    Some(target)
}

fn read_use<'c>(section: &Section<'_>, context: &Context<'c>, findings: &mut Findings) -> Option<&'c ModelDefinition> {
    let node = section.get("use")?;
    for key in ["provider", "model"] {
        if let Some(entry) = section.entry(key) {
            let message = format!("`{key}` and `use` contradict each other: the definition names the {key}");
            findings.error("conflicting-keys", entry.key.position, message, format!("remove `{key}`, or `use`"));
        }
    }
    let stem = node.text("use", findings)?;
    let definition = context.models.get(stem);
    if definition.is_none() {
        dangling("model definition", stem, node.position, context.models.keys().map(String::as_str), findings);
    }
    definition
}

fn read_provider<'c>(
    section: &Section<'_>,
    definition: Option<&ModelDefinition>,
    context: &Context<'c>,
    findings: &mut Findings,
) -> Option<(ProviderName, &'c ProviderFacts)> {
    if let (Some(definition), Some(node)) = (definition, section.get("use")) {
        let facts = context.providers.get(&definition.provider);
        if facts.is_none() {
            let message =
                format!("this model definition names the provider `{}`, which is not configured", definition.provider);
            let help = "configure it under `providers` in the settings, or correct the definition";
            findings.error("unknown-provider", node.position, message, help);
        }
        return Some((definition.provider.clone(), facts?));
    }
    if section.get("use").is_some() {
        return None;
    }
    if section.get("provider").is_none() && section.get("model").is_none() {
        let help = "add `provider: …` and `model: …`, or `use: …`";
        findings.error("missing-key", section.position(), "a target needs a provider and a model", help);
        return None;
    }
    let node = section.require("provider", findings)?;
    let text = node.text("provider", findings)?;
    let found = context.providers.get_key_value(text);
    if found.is_none() {
        dangling("provider", text, node.position, context.providers.keys().map(ProviderName::as_str), findings);
    }
    found.map(|(name, facts)| (name.clone(), facts))
}

fn read_system(node: &Node, findings: &mut Findings) -> Option<SystemPrompt> {
    let section = node.section(&keys::SYSTEM, findings)?;
    let mode = section.get("mode").map(|node| node.choice("mode", &SYSTEM_MODES, findings));
    let text = section.require("text", findings)?.line("text", LONGEST_SYSTEM, findings)?;
    Some(SystemPrompt { text: text.to_owned(), mode: mode.unwrap_or(Some(SystemMode::default()))? })
}

/// Checks an `invoke` against what it would be sent to.
fn read_invoke(
    form: Form,
    model: &str,
    facts: &ProviderFacts,
    model_at: Position,
    node: &Node,
    findings: &mut Findings,
) -> Option<Form> {
    if facts.api != Api::Bedrock {
        let message = "`invoke` is a call of Bedrock's own, and this provider speaks OpenAI's form";
        findings.error("no-invoke", node.position, message, "remove `invoke`, or name an `api: bedrock` provider");
        return None;
    }
    let maker = match form {
        Form::Claude => "anthropic",
        Form::Llama => "meta",
    };
    // A model of the account's own does not say whose form it takes.
    let id = bedrock_id(model);
    if !id.base.starts_with("arn:") && !id.base.starts_with(maker) {
        let message = format!("`invoke: {form}` sends {maker}'s own form, which `{model}` hardly takes");
        findings.warning("foreign-form", model_at, message, "remove `invoke`: Converse serves every chat model");
    }
    Some(form)
}

/// Converse does not serve imported models.
fn warn_imported(model: &str, facts: &ProviderFacts, at: Position, findings: &mut Findings) {
    if facts.api == Api::Bedrock && model.starts_with("arn:") && model.contains(":imported-model/") {
        let message = "an imported model may not be served by Converse, and this target says no `invoke`";
        let help = "add `invoke: llama` for a model of the Llama family (a prompt in its own template), or \
                    `invoke: claude` for one that takes Anthropic's messages";
        findings.warning("imported-model", at, message, help);
    }
}

/// Settles which region is called and where the data may go.
fn place(
    model: &str,
    region: Option<Region>,
    facts: &ProviderFacts,
    model_at: Position,
    region_at: Position,
    findings: &mut Findings,
) -> Option<(Option<Region>, Residency)> {
    if facts.api == Api::OpenAi {
        if region.is_some() {
            let help = if facts.region.is_some() {
                "remove `region`; such a provider calls the region of its `base_url` in the settings"
            } else {
                "remove `region`; where such a provider keeps data is its `data_regions` in the settings"
            };
            findings.error("no-regions", region_at, "this provider has no regions to choose from", help);
            return None;
        }
        if let Some(region) = &facts.region {
            // Bedrock's own endpoint in OpenAI's form: the address is of one region, and a profile may leave it.
            return Some((Some(region.clone()), residency::of_bedrock(model, Some(region))));
        }
        let residency = match facts.data_regions.as_slice() {
            [] => Residency::Unknown,
            regions => Residency::Within(regions.to_vec()),
        };
        return Some((None, residency));
    }
    let place = residency::place_of(model);
    if let (Some(inside), Some(given)) = (place.arn_region, &region)
        && inside != given.as_str()
    {
        let message = format!("the model's ARN is of {inside}, but the target calls {given}");
        findings.error("wrong-region", region_at, message, format!("write `region: {inside}`, or another ARN"));
        return None;
    }
    let region = region.or_else(|| place.arn_region?.parse().ok()).or_else(|| facts.region.clone());
    match (&region, place.reach) {
        (None, _) => {
            let message = "neither the target nor its provider names a region";
            let help = "add `region: …` here or to the provider; until then the environment decides, \
                        and a confinement to regions keeps jobs away from this target";
            findings.warning("no-region", model_at, message, help);
        }
        (Some(region), residency::Reach::Geography(name, regions))
            if !residency::callable_from(name, regions, region) =>
        {
            let message = format!("an inference profile of `{name}.` cannot be called from {region}");
            let help = format!("call it from a region of that geography, such as {}", regions.first().unwrap_or(&""));
            findings.warning("wrong-region", region_at, message, help);
        }
        _ => {}
    }
    let residency = residency::of_bedrock(model, region.as_ref());
    Some((region, residency))
}
