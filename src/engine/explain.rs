//! What would happen to a job now, and what happened to it so far, in words.
//!
//! Invariant: explaining stores nothing and calls nobody.

use super::{Engine, intake::IntakeError, world::World};
use crate::{
    job::{Envelope, State},
    routing::{Decision, DecisionRecord, Question, decide_counting, prompt::prompt_tokens},
    spec::condition::Facts,
    store::JobRecord,
};

impl Engine {
    /// Decides for an envelope as if it were dispatched now.
    ///
    /// # Errors
    /// [`IntakeError`] when no pipeline would take it.
    pub fn explain(&self, envelope: &Envelope) -> Result<(DecisionRecord, String), IntakeError> {
        let loaded = self.pipeline_for(envelope)?;
        let world = self.world();
        let priority = envelope.priority.unwrap_or(loaded.pipeline.priority);
        let asked =
            Asked { id: "job_explained", metadata: &envelope.metadata, body: &envelope.body, priority, age_seconds: 0 };
        let record = decide_for(&world, &loaded.pipeline.name, &asked).ok_or_else(|| IntakeError::UnknownPipeline {
            message: world.snapshot.explain_missing(&loaded.pipeline.name),
            param: "pipeline",
        })?;
        let text = crate::routing::explain(&record);
        Ok((record, text))
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
        match decide_for(&self.world(), &record.summary.pipeline, &asked) {
            Some(now) => {
                let mut steps = vec![format!("if it were dispatched now (generation {}):", now.generation)];
                steps.extend(now.reasons);
                steps
            }
            None => vec![self.world().snapshot.explain_missing(&record.summary.pipeline)],
        }
    }
}

/// Decides for a job on a world; nothing comes of it.
fn decide_for(world: &World, pipeline: &crate::names::PipelineName, asked: &Asked<'_>) -> Option<DecisionRecord> {
    let lane = world.lane(pipeline)?;
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
    let decision: Decision = decide_counting(&Question { pipeline: spec, flags: &lane.flags, facts });
    Some(decision.record(spec, world.snapshot.generation))
}

/// The job that is asked about.
struct Asked<'a> {
    id: &'a str,
    metadata: &'a std::collections::BTreeMap<String, String>,
    body: &'a serde_json::Value,
    priority: i32,
    age_seconds: i64,
}
