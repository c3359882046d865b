//! What would happen to a job now, and what happened to it so far, in words.
//!
//! Invariant: explaining stores nothing and calls nobody.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Engine,
    health::TargetKey,
    intake::IntakeError,
    size::{self, Size},
    world::World,
};
use crate::{
    catalog::{Fit, Model},
    job::{Envelope, State},
    names::PipelineName,
    routing::{DecisionRecord, Question, Route, decide_counting, prompt::prompt_tokens},
    spec::{Target, condition::Facts},
    store::JobRecord,
    wire::{Prepared, Refusal, prepare},
};

/// What would become of a job.
#[derive(Debug)]
pub struct Foreseen {
    /// The pipeline that takes it.
    pub pipeline: PipelineName,
    /// The decision.
    pub decision: DecisionRecord,
    /// How it would be carried to each target of the chain, in order.
    pub chain: Vec<Carriage>,
}

/// How a job would be carried to one target.
#[derive(Debug)]
pub struct Carriage {
    /// The target.
    pub target: Arc<Target>,
    /// Its model, where the catalogue knows it.
    pub model: Option<Model>,
    /// What would be sent, or why nothing can be.
    pub prepared: Result<Prepared, Refusal>,
    /// Whether it fits.
    pub size: Size,
}

/// How sizes are found: [`size::count`], or [`size::estimate`] where nobody may wait.
pub type Sizing = fn(&Value, &Target, Option<&Model>, Option<u64>) -> Size;

impl Carriage {
    /// The longest answer that would be asked for.
    pub fn max_output_tokens(&self) -> Option<u64> {
        self.prepared.as_ref().ok().and_then(|prepared| prepared.max_output_tokens)
    }

    /// What is inexact about it, or why the target cannot be asked.
    pub fn fidelity_in_words(&self) -> Vec<String> {
        match &self.prepared {
            Ok(prepared) if prepared.fidelity.is_empty() => vec!["carried exactly".to_owned()],
            Ok(prepared) => prepared
                .fidelity
                .iter()
                .map(|note| format!("{} {}: {}", note.parameter, note.action, note.detail))
                .collect(),
            Err(refusal) => vec![format!("cannot carry it: {refusal}")],
        }
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let Size { prompt, fit } = self.size;
        let mut json = match &self.prepared {
            Ok(prepared) => json!({ "target": self.target.name, "fidelity": prepared.fidelity }),
            Err(refusal) => json!({ "target": self.target.name, "refused": refusal.message, "param": refusal.param }),
        };
        json["prompt_tokens"] = json!({ "at_least": prompt.least, "at_most": prompt.most });
        json["max_output_tokens"] = json!(self.max_output_tokens());
        json["context_window"] = json!(self.model.as_ref().and_then(|model| model.context_window));
        json["fits"] = match fit {
            Fit::Fits => json!(true),
            Fit::MayFit => Value::Null,
            Fit::TooLong(_) => json!(false),
        };
        json
    }
}

impl World {
    /// Decides for an envelope as if it were dispatched now, and translates it for each target of the chain.
    ///
    /// # Errors
    /// [`IntakeError`] when no pipeline would take it.
    pub fn foresee(&self, envelope: &Envelope, size: Sizing) -> Result<Foreseen, IntakeError> {
        let spec = &self.pipeline_for(envelope)?.pipeline;
        let priority = envelope.priority.unwrap_or(spec.priority);
        let asked =
            Asked { id: "job_explained", metadata: &envelope.metadata, body: &envelope.body, priority, age_seconds: 0 };
        let (route, decision) = self.decide_for(&spec.name, &asked).ok_or_else(|| IntakeError::UnknownPipeline {
            message: self.snapshot.explain_missing(&spec.name),
            param: "pipeline",
        })?;
        let mut foreseen = Foreseen { pipeline: spec.name.clone(), decision, chain: Vec::new() };
        if let Route::Dispatch(chain) = &route {
            for ix in chain {
                let target = spec.target(*ix);
                let model = self.snapshot.catalog.find(target.api, &target.model);
                let prepared = prepare(target, model, &envelope.body);
                let output = prepared.as_ref().ok().and_then(|prepared| prepared.max_output_tokens);
                let size = size(&envelope.body, target, model, output);
                foreseen.chain.push(Carriage { target: Arc::clone(target), model: model.cloned(), prepared, size });
            }
        }
        Ok(foreseen)
    }

    /// Decides for a job; nothing comes of it.
    fn decide_for(&self, pipeline: &PipelineName, asked: &Asked<'_>) -> Option<(Route, DecisionRecord)> {
        let lane = self.lane(pipeline)?;
        let spec = &lane.loaded.pipeline;
        let prompt_tokens = || prompt_tokens(asked.body);
        let facts = Facts {
            id: asked.id,
            pipeline: spec.name.as_str(),
            metadata: asked.metadata,
            labels: &spec.labels,
            priority: i64::from(asked.priority),
            body: asked.body,
            prompt_tokens: &prompt_tokens,
            age_seconds: asked.age_seconds,
        };
        let decision =
            decide_counting(&Question { pipeline: spec, flags: &lane.flags, standings: &lane.standings, facts });
        let record = decision.record(spec, self.snapshot.generation);
        Some((decision.route, record))
    }
}

impl Engine {
    /// What would become of an envelope now, its size by the cheap estimate.
    ///
    /// # Errors
    /// [`IntakeError`] when no pipeline would take it.
    pub fn explain(&self, envelope: &Envelope) -> Result<Foreseen, IntakeError> {
        self.world().foresee(envelope, size::estimate)
    }

    /// A job's decisions in words: those of its attempts, and for a live job the one that would be made now.
    pub fn story(&self, record: &JobRecord) -> Vec<String> {
        let mut steps = Vec::new();
        for attempt in &record.attempts {
            let decision: Option<DecisionRecord> =
                attempt.decision.clone().and_then(|decision| serde_json::from_value(decision).ok());
            if let Some(decision) = decision {
                steps.push(format!("for attempt {} (generation {}):", attempt.n, decision.generation));
                steps.extend(decision.reasons);
            }
            let fate = match (&attempt.fault, &attempt.message) {
                (Some(fault), Some(message)) => format!("{} ({fault}): {message}", attempt.outcome),
                (Some(fault), None) => format!("{} ({fault})", attempt.outcome),
                (None, _) => attempt.outcome.to_string(),
            };
            let billed = if attempt.possibly_billed { "; it may have been billed" } else { "" };
            steps.push(format!(
                "attempt {} at target {} ({}): {fate}{billed}",
                attempt.n, attempt.target, attempt.model
            ));
        }
        if !record.summary.state.is_terminal() {
            let most = self.health().price_of(record.summary.id).unwrap_or_default();
            steps.extend(self.budget_in_words(&record.summary.pipeline, &record.summary.caller, most));
        }
        if record.summary.state == State::Running
            && let Some(place) = self.health().place_of(record.summary.id, self.now())
        {
            steps.push(place.in_words());
        }
        if let State::Queued | State::Waiting | State::Held = record.summary.state {
            steps.extend(self.would_happen_now(record));
        }
        steps
    }

    fn would_happen_now(&self, record: &JobRecord) -> Vec<String> {
        let Some(body) = record.body.as_deref().and_then(|body| serde_json::from_str(body).ok()) else {
            return Vec::new();
        };
        let id = record.summary.id.to_string();
        let age = self.now().since(record.summary.created_at).as_secs();
        let asked = Asked {
            id: &id,
            metadata: &record.metadata,
            body: &body,
            priority: record.summary.priority,
            age_seconds: i64::try_from(age).unwrap_or(i64::MAX),
        };
        match self.world().decide_for(&record.summary.pipeline, &asked) {
            Some((route, now)) => {
                let mut steps = vec![format!("if it were dispatched now (generation {}):", now.generation)];
                steps.extend(now.reasons);
                steps.extend(self.line_in_words(&record.summary.pipeline, &route));
                steps
            }
            None => vec![self.world().snapshot.explain_missing(&record.summary.pipeline)],
        }
    }
}

impl Engine {
    /// The line that a job would have to join, if there is one.
    fn line_in_words(&self, pipeline: &PipelineName, route: &Route) -> Option<String> {
        let Route::Dispatch(chain) = route else { return None };
        let world = self.world();
        let target = world.lane(pipeline)?.loaded.pipeline.target(*chain.first()?);
        let place = self.health().line_of(&TargetKey::of(target), self.now())?;
        Some(format!("then {}", place.in_words()))
    }
}

/// The job that is asked about.
struct Asked<'a> {
    id: &'a str,
    metadata: &'a std::collections::BTreeMap<String, String>,
    body: &'a serde_json::Value,
    priority: i32,
    age_seconds: i64,
}
