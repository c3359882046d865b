//! A rollout as operators see it: where it stands, what it waits for, what each gate says.
//!
//! Invariant: words and figures come from the state and the evidence alone; nothing is worked out twice.

use serde::Serialize;

use super::{RolloutError, Which, keep::key_of};
use crate::{
    clock::Timestamp,
    engine::Engine,
    money::BasisPoints,
    names::{PipelineName, RolloutName, TargetName},
    rollout::{Casebook, Controller, OnFail, Readings, State, Verdict, casebook::ENOUGH_KEYS},
    spec::{Pipeline, Rollout, RolloutIx},
};

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct RolloutView {
    /// Its pipeline.
    pub pipeline: PipelineName,
    /// Its name.
    pub rollout: RolloutName,
    /// Where it stands.
    pub state: State,
    /// The candidate's share, in percent.
    pub percent: f64,
    /// Where everybody was.
    pub baseline: TargetName,
    /// Where everybody is to go.
    pub candidate: TargetName,
    /// What jobs are bucketed by.
    pub key: String,
    /// Whether it has steps; otherwise its file says the percentage, and nothing below is known.
    pub gated: bool,
    /// The step it is in, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// How many steps there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Which of its launches this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// Where it stands, in a sentence.
    pub summary: String,
    /// Why it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// What is missing before it goes on by itself.
    pub waits: Vec<String>,
    /// Jobs of the candidate that were counted in this launch.
    pub candidate_jobs: u64,
    /// Jobs of the baseline that were counted in this launch.
    pub baseline_jobs: u64,
    /// Pairs that were counted in this launch.
    pub pairs: u64,
    /// Jobs whose end is awaited, or that wait for an earlier one's.
    pub pending: usize,
    /// Its gates.
    pub gates: Vec<GateView>,
    /// What may make the evidence worth less than it looks.
    pub warnings: Vec<String>,
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct GateView {
    /// Its name.
    pub gate: String,
    /// `pass`, `fail` or `undecided`.
    pub verdict: &'static str,
    /// The same in words, with what to expect.
    pub words: String,
    /// What was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<String>,
    /// What a failure does.
    pub on_fail: OnFail,
    /// Whether an operator lives with its failure.
    pub waived: bool,
    /// After how many jobs, pairs or scores of the candidate it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_after: Option<u64>,
}

impl Engine {
    /// All rollouts, by pipeline.
    ///
    /// # Errors
    /// [`RolloutError`] when the store cannot be read.
    pub async fn rollout_views(&self) -> Result<Vec<RolloutView>, RolloutError> {
        let world = self.world();
        let mut views = Vec::new();
        for (name, lane) in world.lanes() {
            for rollout in &lane.loaded.pipeline.rollouts {
                views.push(self.rollout_view(name, &rollout.name).await?);
            }
        }
        Ok(views)
    }

    /// One rollout.
    ///
    /// # Errors
    /// [`RolloutError`] when there is none, or the store cannot be read.
    pub async fn rollout_view(
        &self,
        pipeline: &PipelineName,
        rollout: &RolloutName,
    ) -> Result<RolloutView, RolloutError> {
        match self.with_steps(pipeline, rollout) {
            Ok(()) | Err(RolloutError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let world = self.world();
        let unknown = || RolloutError::Unknown(format!("there is no rollout {pipeline}/{rollout}"));
        let lane = world.lane(pipeline).ok_or_else(unknown)?;
        let spec = &lane.loaded.pipeline;
        let (ix, found) =
            (0..).map(RolloutIx).zip(&spec.rollouts).find(|(_, known)| known.name == *rollout).ok_or_else(unknown)?;
        let percent = lane.standings.percent(spec, ix);
        let mut view = plain(spec, found, percent);
        if lane.flags.rolled_back {
            view.state = State::RolledBack;
        }
        let controller = world.courses.get(pipeline, rollout).filter(|_| found.gated().is_some());
        let Some(controller) = controller else { return Ok(view) };
        let which = (pipeline.clone(), rollout.clone());
        let casebook = self.casebook_of(&which, controller).await?;
        let readings = casebook.as_ref().map(Casebook::readings).unwrap_or_default();
        self.tell_course(&mut view, controller, &readings);
        if let Some(casebook) = &casebook {
            tell_evidence(&mut view, controller, casebook);
        }
        Ok(view)
    }

    fn tell_course(&self, view: &mut RolloutView, controller: &Controller, readings: &Readings) {
        let now = self.clock.now();
        view.state = controller.state();
        view.step = controller.step_index().map(|step| step + 1);
        view.steps = Some(controller.plan().steps.len());
        view.revision = Some(controller.revision());
        view.summary = controller.describe(readings, now);
        view.reason = Some(controller.reason().to_owned());
        view.changed_at = Some(controller.changed_at());
        if controller.state() == State::Running {
            view.waits = controller.waits(readings, now).iter().map(ToString::to_string).collect();
        }
    }

    async fn casebook_of(&self, which: &Which, controller: &Controller) -> Result<Option<Casebook>, RolloutError> {
        if let Some(book) = self.rollouts.desk.lock().await.books.get(which)
            && book.casebook.revision() == controller.revision()
        {
            return Ok(Some(book.casebook.clone()));
        }
        Ok(self.saved_casebook(&key_of(which), controller).await?)
    }
}

/// What the spec alone says.
fn plain(spec: &Pipeline, rollout: &Rollout, percent: BasisPoints) -> RolloutView {
    let gated = rollout.gated();
    let state = if gated.is_none() && percent == BasisPoints::ALL { State::Done } else { State::Running };
    RolloutView {
        pipeline: spec.name.clone(),
        rollout: rollout.name.clone(),
        state,
        percent: f64::from(percent.get()) / 100.0,
        baseline: spec.target(rollout.baseline).name.clone(),
        candidate: spec.target(rollout.candidate).name.clone(),
        key: rollout.key.source().to_owned(),
        gated: gated.is_some(),
        step: None,
        steps: gated.map(|gated| gated.plan.steps.len()),
        revision: None,
        summary: match gated {
            Some(_) => "about to begin".to_owned(),
            None => format!("at {percent}, as its file says"),
        },
        reason: None,
        changed_at: None,
        waits: Vec::new(),
        candidate_jobs: 0,
        baseline_jobs: 0,
        pairs: 0,
        pending: 0,
        gates: Vec::new(),
        warnings: Vec::new(),
    }
}

fn tell_evidence(view: &mut RolloutView, controller: &Controller, casebook: &Casebook) {
    let evidence = casebook.evidence();
    view.candidate_jobs = evidence.candidate_jobs();
    view.baseline_jobs = evidence.baseline_jobs();
    view.pairs = evidence.pairs();
    view.pending = evidence.waiting();
    let actions = controller.plan().gates.iter();
    view.gates = evidence
        .gates()
        .iter()
        .zip(actions)
        .map(|(gate, spec)| {
            let verdict = gate.verdict();
            GateView {
                gate: gate.name(),
                verdict: match verdict {
                    Verdict::Pass => "pass",
                    Verdict::Fail => "fail",
                    Verdict::Undecided(_) => "undecided",
                },
                words: verdict.to_string(),
                figures: gate.figures(),
                on_fail: spec.on_fail,
                waived: controller.waived().any(|name| name == gate.name()),
                decided_after: gate.decided_after(),
            }
        })
        .collect();
    if controller.plan().identity.key != "job.id" && casebook.keys() < ENOUGH_KEYS {
        view.warnings.push(format!(
            "about {} distinct keys were seen: below {ENOUGH_KEYS}, what differs between customers looks like a difference \
             between targets; take a failed gate as a question",
            casebook.keys()
        ));
    }
    if evidence.split_is_off() {
        view.warnings
            .push("the candidate gets more or fewer jobs than its share: no comparison means anything".to_owned());
    }
}
