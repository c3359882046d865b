//! A call while it is here: what is known of it, and how it is written down.
//!
//! Invariant: every call that begins is written down exactly once; one whose caller hangs up, at whatever moment, is
//! written down as cancelled, because its future is dropped with what it holds.

use std::{sync::Arc, time::Duration};

use axum::{
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{
    bedrock, capability,
    capability::Unable,
    form::{self, Facts, Form},
    journal::{Entry, Outcome},
    model::{CallFacts, Plan, Rates, Reservation},
    prompt::{Prompt, PromptHash, job_of},
    reply::{Refused, Reply},
    server::World,
};
use crate::{clock::Timestamp, spec::Api};

/// Longest model name or ARN, in bytes.
pub(super) const LONGEST_MODEL: usize = 2_048;

/// A call that is here.
pub(super) struct Flight {
    pub world: Arc<World>,
    /// Whose rules count.
    pub api: Api,
    /// How it is written.
    pub form: Form,
    pub fault: Option<&'static str>,
    at: Timestamp,
    begun: Instant,
    model: String,
    region: Option<String>,
    job: Option<String>,
    prompt: Option<PromptHash>,
    input_tokens: u64,
    request_id: String,
    rates: Rates,
    reservation: Option<Reservation>,
    written: bool,
}

impl Flight {
    pub fn begin(world: Arc<World>, api: Api, form: Form, model: Option<&str>, headers: &HeaderMap) -> Self {
        let hint = ["idempotency-key", "x-client-request-id"]
            .iter()
            .find_map(|name| headers.get(*name)?.to_str().ok())
            .map(job_of);
        let region = match api {
            Api::OpenAi => None,
            Api::Bedrock => bedrock::signed_region(headers).map(str::to_owned),
        };
        let flight = Self {
            api,
            form,
            fault: None,
            at: world.now(),
            begun: Instant::now(),
            model: model.unwrap_or_default().chars().take(LONGEST_MODEL).collect(),
            region,
            job: hint,
            prompt: None,
            input_tokens: 0,
            request_id: world.request_id(api),
            rates: Rates::default(),
            reservation: None,
            written: false,
            world,
        };
        flight.world.inner().journal.begin();
        flight.world.progress.send_modify(|progress| progress.in_flight += 1);
        flight
    }

    pub fn learn(&mut self, prompt: &Prompt) {
        self.model.clone_from(&prompt.model);
        self.prompt = Some(prompt.hash);
        self.input_tokens = prompt.input_tokens;
        if self.job.is_none() {
            self.job.clone_from(&prompt.job);
        }
    }

    pub fn without_credentials(&self, headers: &HeaderMap) -> Option<Refused> {
        if !self.world.inner().config.require_auth {
            return None;
        }
        self.form.without_credentials(self.api, headers)
    }

    pub fn plan(&mut self, prompt: &Prompt) -> Result<Plan, Unable> {
        let now = self.world.now();
        let mut inner = self.world.inner();
        let capability =
            capability::check(inner.config.models, &self.world.catalog, self.api, prompt, self.region.as_deref(), now)?;
        let facts = CallFacts {
            api: self.api,
            model: &prompt.model,
            region: self.region.as_deref(),
            input_tokens: prompt.input_tokens,
            max_output_tokens: prompt.max_output,
            model_max_output_tokens: capability.max_output,
            burndown: capability.burndown,
            streamed: prompt.streamed,
        };
        let mut plan = inner.behaviour.plan(&facts, now);
        self.reservation = plan.reservation.take();
        self.rates = plan.rates;
        Ok(plan)
    }

    /// Waits, unless the simulation stops first.
    pub async fn wait(&self, span: Duration) -> Result<(), Refused> {
        if span.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(span) => Ok(()),
            () = self.world.closing.cancelled() => Err(self.form.stopping()),
        }
    }

    /// The model's name as the caller wrote it, cut to what is kept.
    pub fn model(&self) -> &str {
        self.model.get(..self.model.floor_char_boundary(LONGEST_MODEL)).unwrap_or_default()
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts { request_id: &self.request_id, at: self.at, took: self.begun.elapsed(), rates: self.rates }
    }

    pub fn refuse(self, refused: &Refused) -> Response {
        let reply = self.form.refuse(refused);
        self.send(reply, outcome_of(refused.status), 0)
    }

    pub fn stamp(&self, reply: Reply) -> Reply {
        form::stamp(self.api, reply, &self.facts())
    }

    pub fn send(self, reply: Reply, outcome: Outcome, output_tokens: u64) -> Response {
        let reply = self.stamp(reply);
        self.write(Some(reply.status.as_u16()), outcome, output_tokens);
        reply.into_response()
    }

    pub fn write(mut self, status: Option<u16>, outcome: Outcome, output_tokens: u64) {
        self.write_once(status, outcome, output_tokens);
    }

    fn write_once(&mut self, status: Option<u16>, outcome: Outcome, output_tokens: u64) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let entry = Entry {
            n: 0,
            at: self.at,
            took_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            api: self.api,
            model: self.model().to_owned(),
            region: self.region.take(),
            job: self.job.take(),
            prompt: self.prompt.map(|prompt| prompt.to_string()),
            status,
            outcome,
            fault: self.fault,
            input_tokens: self.input_tokens,
            output_tokens,
            request_id: std::mem::take(&mut self.request_id),
        };
        let now = self.world.now();
        let mut inner = self.world.inner();
        if let Some(reservation) = self.reservation.take() {
            // What was never worked on is not charged.
            let input_tokens = if output_tokens > 0 { self.input_tokens } else { 0 };
            inner.behaviour.settle(reservation, input_tokens, output_tokens, now);
        }
        inner.journal.end(entry, self.prompt);
        drop(inner);
        self.world.progress.send_modify(|progress| {
            progress.in_flight = progress.in_flight.saturating_sub(1);
            progress.ended += 1;
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.write_once(None, Outcome::Cancelled, 0);
    }
}

pub(super) fn outcome_of(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Answered,
        429 => Outcome::Throttled,
        400..=499 => Outcome::Refused,
        _ => Outcome::Failed,
    }
}
