//! The forms that calls and answers have on the wire, and what each of them does with a call's fate.
//!
//! Invariant: everything that differs by form is decided in here; how a call is timed, counted and broken is not.

use axum::http::HeaderMap;
use bytes::Bytes;

use super::{
    answer::Answer,
    bedrock,
    capability::Unable,
    model::{Exceeded, FaultKind, Rates},
    openai,
    prompt::Prompt,
    reply::{Refused, Reply},
};
use crate::{clock::Timestamp, spec::Api};

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Chat completions.
    OpenAi,
    /// Converse.
    Converse,
    /// InvokeModel, as Claude has it.
    Claude,
    /// InvokeModel, as Llama has it.
    Llama,
}

/// What all replies to a call share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub request_id: &'a str,
    pub at: Timestamp,
    pub took: std::time::Duration,
    pub rates: Rates,
}

impl Form {
    /// A whole answer.
    pub fn complete(self, prompt: &Prompt, answer: &Answer, facts: &Facts<'_>) -> Reply {
        match self {
            Self::OpenAi => openai::complete(prompt, answer, facts.request_id, facts.at),
            Self::Converse => bedrock::complete(prompt, answer, facts.took),
            Self::Claude | Self::Llama => bedrock::invoke::complete(self, prompt, answer),
        }
    }

    /// The head of an answer in pieces, and the pieces.
    pub fn pieces(self, prompt: &Prompt, answer: &Answer, facts: &Facts<'_>) -> (Reply, Vec<Bytes>) {
        let binary = || Reply::typed(200, "application/vnd.amazon.eventstream", Bytes::new());
        match self {
            Self::OpenAi => {
                let head = Reply::typed(200, "text/event-stream; charset=utf-8", Bytes::new());
                (head, openai::chunks(prompt, answer, facts.request_id, facts.at))
            }
            Self::Converse => (binary(), bedrock::frames(prompt, answer, facts.took)),
            Self::Claude | Self::Llama => {
                let head = binary().header("x-amzn-bedrock-content-type", "application/json");
                (head, bedrock::invoke::frames(self, prompt, answer))
            }
        }
    }

    /// An error in the middle of the pieces.
    pub fn broken_piece(self) -> Bytes {
        match self {
            Self::OpenAi => openai::error_chunk(),
            Self::Converse | Self::Claude | Self::Llama => bedrock::exception(),
        }
    }

    pub fn refuse(self, refused: &Refused) -> Reply {
        match self {
            Self::OpenAi => openai::refuse(refused),
            _ => bedrock::refuse(refused),
        }
    }

    pub fn unable(self, model: &str, unable: &Unable) -> Refused {
        match self {
            Self::OpenAi => openai::unable(model, unable),
            _ => bedrock::unable(unable),
        }
    }

    pub fn throttle(self, model: &str, exceeded: &Exceeded) -> Reply {
        match self {
            Self::OpenAi => openai::throttle(model, exceeded),
            _ => bedrock::throttle(exceeded),
        }
    }

    /// A fault that is a refusal; others are played on the wire.
    pub fn fault(self, kind: FaultKind, prompt: &Prompt) -> Option<Reply> {
        match self {
            Self::OpenAi => openai::fault(kind, prompt),
            _ => bedrock::fault(kind),
        }
    }

    /// The code of a service that is stopping.
    pub fn stopping(self) -> Refused {
        let code = match self {
            Self::OpenAi => "server_is_overloaded",
            _ => "ServiceUnavailableException",
        };
        Refused::new(503, code, "The simulation is stopping.")
    }

    /// Why a call to this service is turned away at the door, if it carries no credentials.
    pub fn without_credentials(self, api: Api, headers: &HeaderMap) -> Option<Refused> {
        match (api, self) {
            (Api::OpenAi, _) if openai::has_credentials(headers) => None,
            (Api::Bedrock, _) if bedrock::has_credentials(headers) => None,
            (_, Self::OpenAi) => Some(openai::unauthorized("You didn't provide an API key.")),
            _ => Some(bedrock::unauthorized()),
        }
    }
}

/// Adds the headers of every reply of a service.
pub(super) fn stamp(api: Api, reply: Reply, facts: &Facts<'_>) -> Reply {
    match api {
        Api::OpenAi => {
            let stamp = openai::Stamp { request_id: facts.request_id, took: facts.took, rates: facts.rates };
            openai::stamp(reply, &stamp)
        }
        Api::Bedrock => bedrock::stamp(reply, facts.request_id),
    }
}
