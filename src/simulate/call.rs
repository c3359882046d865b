//! One call, from its bytes to its reply.
//!
//! Invariant: every call that begins is written down exactly once; one whose caller hangs up, at whatever moment, is
//! written down as cancelled, because its future is dropped with what it holds.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    answer::{self, Answer},
    bedrock, capability,
    capability::Unable,
    journal::{Entry, Outcome},
    model::{CallFacts, Exceeded, Fate, FaultKind, Plan, Rates, Reservation},
    openai,
    prompt::{Prompt, PromptHash, job_of},
    reply::{Refused, Reply},
    server::World,
    wire_cut::Scissors,
};
use crate::{clock::Timestamp, spec::Api};

/// Largest body, in bytes: what both providers take, and some more.
const LARGEST_BODY: usize = 32 << 20;

/// Longest model name or ARN, in bytes.
const LONGEST_MODEL: usize = 2_048;

/// Pieces of an answer that drips.
const DRIPS: u32 = 50;

/// A call as it comes in.
pub(super) struct Incoming {
    pub api: Api,
    /// Where the protocol has it in the path.
    pub model: Option<String>,
    pub headers: HeaderMap,
    pub body: Body,
    pub scissors: Scissors,
}

/// Serves one call.
pub(super) async fn serve(world: Arc<World>, incoming: Incoming) -> Response {
    let Incoming { api, model, headers, body, scissors } = incoming;
    let mut flight = Flight::begin(world, api, model.as_deref(), &headers);
    let body = match whole(body).await {
        Ok(body) => body,
        Err(refused) => return flight.refuse(&refused),
    };
    let read = match api {
        Api::OpenAi => openai::read(&body),
        Api::Bedrock => bedrock::read(model.unwrap_or_default(), &body),
    };
    let prompt = match read {
        Ok(prompt) if prompt.model.len() > LONGEST_MODEL => return flight.unable(&prompt, &Unable::Unknown),
        Ok(prompt) => prompt,
        Err(refused) => return flight.refuse(&refused),
    };
    flight.learn(&prompt);
    if let Some(refused) = flight.without_credentials(&headers) {
        return flight.refuse(&refused);
    }
    let plan = match flight.plan(&prompt) {
        Ok(plan) => plan,
        Err(unable) => return flight.unable(&prompt, &unable),
    };
    flight.follow(plan, &prompt, &scissors).await
}

/// Reads a body to its end.
async fn whole(body: Body) -> Result<Bytes, Refused> {
    let mut chunks = body.into_data_stream();
    let mut collected: Option<Vec<u8>> = None;
    let mut first = Bytes::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Refused::new(400, None, format!("The request body broke off: {error}")))?;
        if first.is_empty() && collected.is_none() {
            first = chunk;
            continue;
        }
        let all = collected.get_or_insert_with(|| first.to_vec());
        all.extend_from_slice(&chunk);
        if all.len() > LARGEST_BODY {
            return Err(Refused::new(413, None, format!("The request body is larger than {LARGEST_BODY} bytes.")));
        }
    }
    Ok(collected.map_or(first, Bytes::from))
}

/// A call that is here.
struct Flight {
    world: Arc<World>,
    api: Api,
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
    fault: Option<&'static str>,
    written: bool,
}

impl Flight {
    fn begin(world: Arc<World>, api: Api, model: Option<&str>, headers: &HeaderMap) -> Self {
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
            fault: None,
            written: false,
            world,
        };
        flight.world.inner().journal.begin();
        flight.world.progress.send_modify(|progress| progress.in_flight += 1);
        flight
    }

    fn learn(&mut self, prompt: &Prompt) {
        self.model.clone_from(&prompt.model);
        self.prompt = Some(prompt.hash);
        self.input_tokens = prompt.input_tokens;
        if self.job.is_none() {
            self.job.clone_from(&prompt.job);
        }
    }

    fn without_credentials(&self, headers: &HeaderMap) -> Option<Refused> {
        if !self.world.inner().config.require_auth {
            return None;
        }
        match self.api {
            Api::OpenAi if !openai::has_credentials(headers) => {
                Some(openai::unauthorized("You didn't provide an API key."))
            }
            Api::Bedrock if !bedrock::has_credentials(headers) => Some(bedrock::unauthorized()),
            _ => None,
        }
    }

    fn plan(&mut self, prompt: &Prompt) -> Result<Plan, Unable> {
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
        };
        let mut plan = inner.behaviour.plan(&facts, now);
        self.reservation = plan.reservation.take();
        self.rates = plan.rates;
        Ok(plan)
    }

    /// Plays a call's fate.
    async fn follow(mut self, plan: Plan, prompt: &Prompt, scissors: &Scissors) -> Response {
        let kind = match plan.fate {
            Fate::Throttle(exceeded) => return self.throttle(&exceeded),
            Fate::Fault(kind) => Some(kind),
            Fate::Answer => None,
        };
        self.fault = kind.map(FaultKind::name);
        let waited = match kind {
            Some(FaultKind::Hang) => self.wait(Duration::MAX).await,
            _ => self.wait(plan.latency).await,
        };
        if let Err(stopping) = waited {
            return self.refuse(&stopping);
        }
        match kind {
            None => self.answer(prompt, &answer::answer(prompt)),
            Some(FaultKind::ContentFilter) => self.answer(prompt, &answer::filtered(prompt)),
            Some(kind) => self.fail(kind, prompt, scissors),
        }
    }

    /// Waits, unless the simulation stops first.
    async fn wait(&self, span: Duration) -> Result<(), Refused> {
        if span.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(span) => Ok(()),
            () = self.world.closing.cancelled() => {
                let code = match self.api {
                    Api::OpenAi => "server_is_overloaded",
                    Api::Bedrock => "ServiceUnavailableException",
                };
                Err(Refused::new(503, code, "The simulation is stopping."))
            }
        }
    }

    fn answer(self, prompt: &Prompt, answer: &Answer) -> Response {
        let reply = self.completion(prompt, answer);
        let output_tokens = answer.output_tokens.saturating_mul(prompt.choices);
        self.send(reply, Outcome::Answered, output_tokens)
    }

    fn completion(&self, prompt: &Prompt, answer: &Answer) -> Reply {
        match self.api {
            Api::OpenAi => openai::complete(prompt, answer, &self.request_id, self.at),
            Api::Bedrock => bedrock::complete(prompt, answer, self.begun.elapsed()),
        }
    }

    fn throttle(self, exceeded: &Exceeded) -> Response {
        let reply = match self.api {
            Api::OpenAi => openai::throttle(&self.model, exceeded),
            Api::Bedrock => bedrock::throttle(exceeded),
        };
        self.send(reply, Outcome::Throttled, 0)
    }

    fn unable(mut self, prompt: &Prompt, unable: &Unable) -> Response {
        self.learn(prompt);
        self.model.truncate(self.model.floor_char_boundary(LONGEST_MODEL));
        let refused = match self.api {
            Api::OpenAi => openai::unable(&self.model, unable),
            Api::Bedrock => bedrock::unable(unable),
        };
        self.refuse(&refused)
    }

    fn refuse(self, refused: &Refused) -> Response {
        let reply = match self.api {
            Api::OpenAi => openai::refuse(refused),
            Api::Bedrock => bedrock::refuse(refused),
        };
        let outcome = outcome_of(refused.status);
        self.send(reply, outcome, 0)
    }

    fn fail(self, kind: FaultKind, prompt: &Prompt, scissors: &Scissors) -> Response {
        let refusal = match self.api {
            Api::OpenAi => openai::fault(kind, prompt),
            Api::Bedrock => bedrock::fault(kind),
        };
        if let Some(reply) = refusal {
            let outcome = outcome_of(reply.status.as_u16());
            return self.send(reply, outcome, 0);
        }
        let answer = answer::answer(prompt);
        let output_tokens = if kind.is_billed() { answer.output_tokens } else { 0 };
        let mut reply = self.completion(prompt, &answer);
        match kind {
            FaultKind::SlowDrip { over } => self.drip(reply, over, output_tokens),
            FaultKind::Reset { after } => {
                // With the head before it, so many bytes never make the whole reply.
                scissors.cut_after(after.min(reply.body.len() as u64));
                self.send(reply, Outcome::Failed, output_tokens)
            }
            FaultKind::BrokenJson => {
                reply.body.truncate(reply.body.len() * 2 / 3);
                self.send(reply, Outcome::Failed, output_tokens)
            }
            _ => {
                let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad \
                            Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
                self.send(Reply::typed(502, "text/html", page), Outcome::Failed, output_tokens)
            }
        }
    }

    /// Sends a right answer in small pieces.
    fn drip(self, reply: Reply, over: Duration, output_tokens: u64) -> Response {
        let mut reply = self.stamp(reply);
        let body = std::mem::take(&mut reply.body);
        let piece = body.len().div_ceil(DRIPS as usize).max(1);
        let pause = over / DRIPS;
        let pieces = stream::unfold((Some(self), body), move |(flight, mut body)| async move {
            let flight = flight?;
            if flight.wait(pause).await.is_err() {
                return Some((Err(std::io::Error::other("the simulation is stopping")), (None, body)));
            }
            let next = body.split_to(piece.min(body.len()));
            if body.is_empty() {
                flight.write(Some(200), Outcome::Answered, output_tokens);
                return Some((Ok(next), (None, body)));
            }
            Some((Ok(next), (Some(flight), body)))
        });
        let mut response = reply.into_response();
        *response.body_mut() = Body::from_stream(pieces);
        response
    }

    fn stamp(&self, reply: Reply) -> Reply {
        match self.api {
            Api::OpenAi => {
                let stamp =
                    openai::Stamp { request_id: &self.request_id, took: self.begun.elapsed(), rates: self.rates };
                openai::stamp(reply, &stamp)
            }
            Api::Bedrock => bedrock::stamp(reply, &self.request_id),
        }
    }

    fn send(self, reply: Reply, outcome: Outcome, output_tokens: u64) -> Response {
        let reply = self.stamp(reply);
        self.write(Some(reply.status.as_u16()), outcome, output_tokens);
        reply.into_response()
    }

    fn write(mut self, status: Option<u16>, outcome: Outcome, output_tokens: u64) {
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
            model: std::mem::take(&mut self.model),
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

fn outcome_of(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Answered,
        429 => Outcome::Throttled,
        400..=499 => Outcome::Refused,
        _ => Outcome::Failed,
    }
}
