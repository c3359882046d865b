//! One streamed call, printed as it comes.
//!
//! Invariant: Ctrl-C drops the stream, which stops the call; what came until then stays printed. An answer without its end
//! is never taken for one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;

use super::render::Render;
use crate::{
    catalog::Tier,
    cli::{
        exit::{Failure, Result},
        print::{Console, printable},
    },
    ids::JobId,
    provider::{Call, CallError, Provider},
    spec::Target,
    usage::Usage,
    wire::{
        Prepared,
        stream::{Delta, Event, FinishReason},
    },
};

/// What came of a call.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// The answer's text; `None` when it has none, because tools were called.
    pub text: Option<String>,
    pub usage: Option<Usage>,
    pub tier: Tier,
    /// From sending to the first piece of output.
    pub first_token: Option<Duration>,
    pub took: Duration,
}

/// Calls, and prints.
pub(super) async fn ask(
    client: &dyn Provider,
    target: &Arc<Target>,
    prepared: Prepared,
    mut render: Render,
    console: &mut Console<'_>,
) -> Result<Answered> {
    let call = Call {
        job: JobId::generate(),
        target: Arc::clone(target),
        payload: prepared.payload,
        reading: prepared.reading,
        timeout: target.timeout,
        idle_timeout: target.idle_timeout,
    };
    let began = Instant::now();
    let mut answered = Answered::default();
    let mut said = String::new();
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(None),
        ended = follow(client, call, began, &mut answered, &mut said, &mut render, console) => ended,
    };
    render.end(console.out)?;
    if !said.is_empty() && !said.ends_with('\n') {
        writeln!(console.out)?;
    }
    console.out.flush()?;
    answered.took = began.elapsed();
    match ended {
        Ok(()) => {
            answered.text = (!said.is_empty()).then_some(said);
            Ok(answered)
        }
        Err(None) => Err(Failure::new("stopped; the call may be billed all the same")),
        Err(Some(Stopped::Failed(failure))) => Err(failure),
        Err(Some(Stopped::Call(error))) => Err(failed(&error, !said.is_empty())),
    }
}

enum Stopped {
    Call(CallError),
    Failed(Failure),
}

impl From<Failure> for Option<Stopped> {
    fn from(failure: Failure) -> Self {
        Some(Stopped::Failed(failure))
    }
}

async fn follow(
    client: &dyn Provider,
    call: Call,
    began: Instant,
    answered: &mut Answered,
    said: &mut String,
    render: &mut Render,
    console: &mut Console<'_>,
) -> Result<(), Option<Stopped>> {
    let mut stream = client.stream(call).await.map_err(Stopped::Call)?;
    while let Some(event) = stream.events.next().await {
        let event = event.map_err(Stopped::Call)?;
        if answered.first_token.is_none() && event.is_output() {
            answered.first_token = Some(began.elapsed());
        }
        note(event, answered, said, render, console).map_err(Option::<Stopped>::from)?;
    }
    Ok(())
}

/// What a piece of the answer is to the one who asked.
fn note(
    event: Event,
    answered: &mut Answered,
    said: &mut String,
    render: &mut Render,
    console: &mut Console<'_>,
) -> Result<()> {
    match event {
        Event::Delta { choice: 0, delta: Delta::Text(text) | Delta::Refusal(text) } => {
            render.text(&text, console.out)?;
            console.out.flush()?;
            said.push_str(&text);
        }
        Event::Delta { delta: Delta::ToolCall { name, .. }, .. } => {
            writeln!(console.err, "note: the model calls the tool {}", printable(&name))?;
        }
        Event::Finish { choice: 0, reason: FinishReason::Length } => {
            writeln!(console.err, "\nnote: the answer is cut at its bound; raise max_tokens in the definition")?;
        }
        Event::Finish { choice: 0, reason: FinishReason::ContentFilter } => {
            writeln!(console.err, "\nnote: a filter, or the model itself, cut the answer")?;
        }
        Event::Field { name, value } if name == "service_tier" => {
            answered.tier = Tier::named(value.as_str().unwrap_or_default());
        }
        Event::Usage(usage) => answered.usage = Some(usage),
        Event::Remark(remark) => writeln!(console.err, "note: {}", printable(&remark))?,
        Event::Delta { .. } | Event::Finish { .. } | Event::Field { .. } => {}
    }
    Ok(())
}

fn failed(error: &CallError, begun: bool) -> Failure {
    let mut message = error.message.clone();
    if let Some(advice) = &error.advice {
        message = format!("{message} ({advice})");
    }
    if begun {
        message = format!("the answer broke off: {message}");
    }
    if error.possibly_billed {
        message.push_str("; the call may be billed all the same");
    }
    Failure::new(message)
}
