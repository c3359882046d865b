//! One call, from its bytes to its reply.
//!
//! Invariant: a call is read, then decided, then played; what is played depends on the decision alone.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    answer::{self, Answer},
    bedrock,
    capability::Unable,
    flight::{Flight, LONGEST_MODEL, outcome_of},
    form::Form,
    journal::Outcome,
    model::{Fate, FaultKind, Plan},
    openai, pieces,
    prompt::Prompt,
    reply::{Refused, Reply},
    server::World,
    wire_cut::Scissors,
};
use crate::spec::Api;

/// Largest body, in bytes: what both providers take, and some more.
const LARGEST_BODY: usize = 32 << 20;

/// Pieces of an answer that drips.
const DRIPS: u32 = 50;

/// Which operation is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Chat completions; whether they stream stands in the body.
    Chat,
    Converse,
    ConverseStream,
    Invoke,
    InvokeStream,
}

/// A call as it comes in.
pub(super) struct Incoming {
    pub api: Api,
    pub operation: Operation,
    /// Where the protocol has it in the path.
    pub model: Option<String>,
    pub headers: HeaderMap,
    pub body: Body,
    pub scissors: Scissors,
}

/// Serves one call.
pub(super) async fn serve(world: Arc<World>, incoming: Incoming) -> Response {
    let Incoming { api, operation, model, headers, body, scissors } = incoming;
    let form = if operation == Operation::Chat { Form::OpenAi } else { Form::Converse };
    let mut flight = Flight::begin(world, api, form, model.as_deref(), &headers);
    let body = match whole(body).await {
        Ok(body) => body,
        Err(refused) => return flight.refuse(&refused),
    };
    let model = model.unwrap_or_default();
    let read = match operation {
        Operation::Chat => openai::read(&body).map(|prompt| (Form::OpenAi, prompt)),
        Operation::Converse | Operation::ConverseStream => {
            bedrock::read(model, &body).map(|prompt| (Form::Converse, prompt))
        }
        Operation::Invoke | Operation::InvokeStream => {
            bedrock::invoke::accepts(&headers).and_then(|()| bedrock::invoke::read(model, &body))
        }
    };
    let mut prompt = match read {
        Ok((_, prompt)) if prompt.model.len() > LONGEST_MODEL => return unable(flight, &prompt, &Unable::Unknown),
        Ok((form, prompt)) => {
            flight.form = form;
            prompt
        }
        Err(refused) => return flight.refuse(&refused),
    };
    prompt.streamed |= matches!(operation, Operation::ConverseStream | Operation::InvokeStream);
    flight.learn(&prompt);
    if let Some(refused) = flight.without_credentials(&headers) {
        return flight.refuse(&refused);
    }
    let plan = match flight.plan(&prompt) {
        Ok(plan) => plan,
        Err(why) => return unable(flight, &prompt, &why),
    };
    follow(flight, plan, &prompt, scissors).await
}

/// Counts the tokens of a request; nothing is called, so nothing is written down.
pub(super) async fn count_tokens(world: &World, model: String, body: Body) -> Response {
    let reply = match whole(body).await {
        Ok(body) => bedrock::count(&world.catalog, model, &body),
        Err(refused) => bedrock::refuse(&refused),
    };
    bedrock::stamp(reply, &world.request_id(Api::Bedrock)).into_response()
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

fn unable(mut flight: Flight, prompt: &Prompt, unable: &Unable) -> Response {
    flight.learn(prompt);
    let refused = flight.form.unable(flight.model(), unable);
    flight.refuse(&refused)
}

/// Plays a call's fate.
async fn follow(mut flight: Flight, plan: Plan, prompt: &Prompt, scissors: Scissors) -> Response {
    let kind = match plan.fate {
        Fate::Throttle(exceeded) => {
            let reply = flight.form.throttle(flight.model(), &exceeded);
            return flight.send(reply, Outcome::Throttled, 0);
        }
        Fate::Fault(kind) => Some(kind),
        Fate::Answer => None,
    };
    flight.fault = kind.map(FaultKind::name);
    let refusal = kind.and_then(|kind| flight.form.fault(kind, prompt));
    let hangs = kind == Some(FaultKind::Hang);
    let pieces = prompt.streamed && refusal.is_none() && !hangs && kind != Some(FaultKind::BadGateway);
    // A stream's head comes when the model begins; a whole answer's when it has ended.
    let wait = if hangs {
        Duration::MAX
    } else if pieces {
        plan.latency / pieces::BEFORE_THE_FIRST
    } else {
        plan.latency
    };
    if let Err(stopping) = flight.wait(wait).await {
        return flight.refuse(&stopping);
    }
    if let Some(reply) = refusal {
        let outcome = outcome_of(reply.status.as_u16());
        return flight.send(reply, outcome, 0);
    }
    let answer = match kind {
        Some(FaultKind::ContentFilter) => answer::filtered(prompt),
        _ => answer::answer(prompt),
    };
    if pieces {
        return pieces::send(flight, prompt, &answer, kind, plan.latency.saturating_sub(wait), scissors);
    }
    match kind {
        None | Some(FaultKind::ContentFilter) => {
            let reply = flight.form.complete(prompt, &answer, &flight.facts());
            let output_tokens = answer.output_tokens.saturating_mul(prompt.choices);
            flight.send(reply, Outcome::Answered, output_tokens)
        }
        Some(kind) => fail(flight, kind, prompt, &answer, &scissors),
    }
}

fn fail(flight: Flight, kind: FaultKind, prompt: &Prompt, answer: &Answer, scissors: &Scissors) -> Response {
    let output_tokens = if kind.is_billed() { answer.output_tokens } else { 0 };
    let mut reply = flight.form.complete(prompt, answer, &flight.facts());
    match kind {
        FaultKind::SlowDrip { over } => drip(flight, reply, over, output_tokens),
        FaultKind::Reset { after } => {
            // With the head before it, so many bytes never make the whole reply.
            scissors.cut_after(after.min(reply.body.len() as u64));
            flight.send(reply, Outcome::Failed, output_tokens)
        }
        FaultKind::BrokenJson => {
            reply.body.truncate(reply.body.len() * 2 / 3);
            flight.send(reply, Outcome::Failed, output_tokens)
        }
        _ => {
            let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad \
                        Gateway</h1></center>\r\n</body>\r\n</html>\r\n";
            flight.send(Reply::typed(502, "text/html", page), Outcome::Failed, output_tokens)
        }
    }
}

/// Sends a right answer in small pieces.
fn drip(flight: Flight, reply: Reply, over: Duration, output_tokens: u64) -> Response {
    let mut reply = flight.stamp(reply);
    let body = std::mem::take(&mut reply.body);
    let piece = body.len().div_ceil(DRIPS as usize).max(1);
    let pause = over / DRIPS;
    let pieces = stream::unfold((Some(flight), body), move |(flight, mut body)| async move {
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
