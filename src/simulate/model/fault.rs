//! Faults on order: which calls fail, how, and how often.

use std::{fmt, str::FromStr, time::Duration};

use super::{
    chance::Chance,
    rule::{InvalidRule, span, whole},
};
use crate::clock::format_span;

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// 429; with a hint when to come back, or without.
    Throttled {
        /// The hint.
        retry_after: Option<Duration>,
    },
    /// 429 that waiting does not cure: OpenAI's `insufficient_quota`, Bedrock's tokens per day.
    QuotaExhausted,
    /// 500.
    ServerError,
    /// 503, or 529 in the shape of the model's maker.
    Overloaded {
        /// 503 or 529.
        status: u16,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// 408: the model took too long.
    ModelTimeout,
    /// No answer until the client gives up.
    Hang,
    /// The connection is reset after so many bytes of the answer, and before its end.
    Reset {
        /// Bytes that get through.
        after: u64,
    },
    /// 502 with a page of HTML, as proxies send it.
    BadGateway,
    /// 200 with a body that ends in the middle.
    BrokenJson,
    /// 401 from OpenAI, 403 `UnrecognizedClientException` from Bedrock.
    Unauthorized,
    /// 403.
    Forbidden,
    /// The model does not exist, or not for this account.
    ModelNotFound,
    /// The model has been shut down.
    EndOfLife,
    /// The prompt is too long, whatever its length.
    ContextLength,
    /// 200 with an answer that a filter cut off.
    ContentFilter,
    /// 400: the request breaks a usage policy.
    Refused,
    /// A right answer, a few bytes at a time.
    SlowDrip {
        /// From the first byte to the last.
        over: Duration,
    },
    /// A streamed answer's connection is reset in the middle.
    StreamCut {
        /// Pieces that get through.
        pieces: u64,
    },
    /// A streamed answer goes silent and stays so.
    StreamStall {
        /// Pieces that get through.
        pieces: u64,
    },
    /// A streamed answer ends with an error of the provider.
    StreamError {
        /// Pieces before it.
        pieces: u64,
    },
}

impl FaultKind {
    /// Its name in rules and in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::QuotaExhausted => "quota-exhausted",
            Self::ServerError => "server-error",
            Self::Overloaded { .. } => "overloaded",
            Self::ModelTimeout => "model-timeout",
            Self::Hang => "hang",
            Self::Reset { .. } => "reset",
            Self::BadGateway => "bad-gateway",
            Self::BrokenJson => "broken-json",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model-not-found",
            Self::EndOfLife => "end-of-life",
            Self::ContextLength => "context-length",
            Self::ContentFilter => "content-filter",
            Self::Refused => "refused",
            Self::SlowDrip { .. } => "slow-drip",
            Self::StreamCut { .. } => "stream-cut",
            Self::StreamStall { .. } => "stream-stall",
            Self::StreamError { .. } => "stream-error",
        }
    }

    /// Whether it shows only after the model has worked; the others are refused at the door.
    pub const fn takes_time(self) -> bool {
        match self {
            Self::ServerError
            | Self::ModelTimeout
            | Self::Reset { .. }
            | Self::BadGateway
            | Self::BrokenJson
            | Self::ContentFilter
            | Self::SlowDrip { .. }
            | Self::StreamCut { .. }
            | Self::StreamStall { .. }
            | Self::StreamError { .. } => true,
            Self::Throttled { .. }
            | Self::QuotaExhausted
            | Self::Overloaded { .. }
            | Self::Hang
            | Self::Unauthorized
            | Self::Forbidden
            | Self::ModelNotFound
            | Self::EndOfLife
            | Self::ContextLength
            | Self::Refused => false,
        }
    }

    /// Whether the model has worked when it shows: the call is billed.
    pub const fn is_billed(self) -> bool {
        matches!(self, Self::Reset { .. } | Self::BrokenJson | Self::ContentFilter | Self::SlowDrip { .. })
            || self.is_of_streams()
    }

    /// Whether it strikes streamed calls alone.
    pub const fn is_of_streams(self) -> bool {
        matches!(self, Self::StreamCut { .. } | Self::StreamStall { .. } | Self::StreamError { .. })
    }
}

/// Every kind's name, for messages.
const NAMES: &str = "throttled, quota-exhausted, server-error, overloaded, model-timeout, hang, reset, bad-gateway, \
                     broken-json, unauthorized, forbidden, model-not-found, end-of-life, context-length, \
                     content-filter, refused, slow-drip, stream-cut, stream-stall and stream-error";

/// A fault and when it strikes: `throttled,retry_after=2s,probability=0.1,count=20,from=10s,for=30s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultRule {
    /// What happens.
    pub kind: FaultKind,
    /// Of the calls that it could strike, the share that it does.
    pub probability: f64,
    /// It strikes so often, then no more.
    pub count: Option<u64>,
    /// Not before so long after the rule was set.
    pub from: Duration,
    /// For so long from then on.
    pub lasts: Option<Duration>,
}

impl FaultRule {
    /// A fault that always strikes.
    pub const fn always(kind: FaultKind) -> Self {
        Self { kind, probability: 1.0, count: None, from: Duration::ZERO, lasts: None }
    }

    /// Whether it strikes a call, `age` after the rule was set and having struck `struck` calls.
    pub fn strikes(&self, age: Duration, struck: u64, chance: &mut Chance) -> bool {
        let over = self.lasts.is_some_and(|lasts| age >= self.from + lasts);
        let open = age >= self.from && !over && self.count.is_none_or(|count| struck < count);
        // A rule that is not open draws all the same: opening it must not change what later rules draw.
        (self.probability >= 1.0 || chance.unit() < self.probability) && open
    }
}

impl FromStr for FaultRule {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let mut rule = Self::always(kind_named(name)?);
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| InvalidRule::new(format!("{part:?} is not KEY=VALUE, after the fault `{name}`")))?;
            match (key, &mut rule.kind) {
                ("probability", _) => {
                    rule.probability =
                        value.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
                            InvalidRule::new(format!("`probability`: {value:?} is not a number from 0 to 1"))
                        })?;
                }
                ("count", _) => rule.count = Some(whole(key, value)?),
                ("from", _) => rule.from = span(key, value)?,
                ("for", _) => rule.lasts = Some(span(key, value)?),
                (
                    "retry_after",
                    FaultKind::Throttled { retry_after: hint } | FaultKind::Overloaded { retry_after: hint, .. },
                ) => *hint = Some(span(key, value)?),
                ("status", FaultKind::Overloaded { status, .. }) => {
                    *status = match value {
                        "503" => 503,
                        "529" => 529,
                        _ => {
                            return Err(InvalidRule::new(format!("`status`: overload is 503 or 529, not {value:?}")));
                        }
                    };
                }
                ("bytes", FaultKind::Reset { after }) => *after = whole(key, value)?,
                ("over", FaultKind::SlowDrip { over }) => *over = span(key, value)?,
                (
                    "pieces",
                    FaultKind::StreamCut { pieces }
                    | FaultKind::StreamStall { pieces }
                    | FaultKind::StreamError { pieces },
                ) => *pieces = whole(key, value)?,
                _ => {
                    return Err(InvalidRule::new(format!(
                        "the fault `{name}` knows no `{key}`: all know probability, count, from and for; throttled and \
                         overloaded retry_after; overloaded status; reset bytes; slow-drip over; stream-… pieces"
                    )));
                }
            }
        }
        Ok(rule)
    }
}

/// Pieces of a stream before it goes wrong, when nobody says: some output is among them.
const PIECES: u64 = 3;

fn kind_named(name: &str) -> Result<FaultKind, InvalidRule> {
    Ok(match name {
        "throttled" => FaultKind::Throttled { retry_after: None },
        "quota-exhausted" => FaultKind::QuotaExhausted,
        "server-error" => FaultKind::ServerError,
        "overloaded" => FaultKind::Overloaded { status: 503, retry_after: None },
        "model-timeout" => FaultKind::ModelTimeout,
        "hang" => FaultKind::Hang,
        "reset" => FaultKind::Reset { after: 0 },
        "bad-gateway" => FaultKind::BadGateway,
        "broken-json" => FaultKind::BrokenJson,
        "unauthorized" => FaultKind::Unauthorized,
        "forbidden" => FaultKind::Forbidden,
        "model-not-found" => FaultKind::ModelNotFound,
        "end-of-life" => FaultKind::EndOfLife,
        "context-length" => FaultKind::ContextLength,
        "content-filter" => FaultKind::ContentFilter,
        "refused" => FaultKind::Refused,
        "slow-drip" => FaultKind::SlowDrip { over: Duration::from_secs(10) },
        "stream-cut" => FaultKind::StreamCut { pieces: PIECES },
        "stream-stall" => FaultKind::StreamStall { pieces: PIECES },
        "stream-error" => FaultKind::StreamError { pieces: PIECES },
        _ => return Err(InvalidRule::new(format!("unknown fault {name:?}: there are {NAMES}"))),
    })
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match self.kind {
            FaultKind::Throttled { retry_after } => hint(f, retry_after)?,
            FaultKind::Overloaded { status, retry_after } => {
                write!(f, ",status={status}")?;
                hint(f, retry_after)?;
            }
            FaultKind::Reset { after } => write!(f, ",bytes={after}")?,
            FaultKind::SlowDrip { over } => write!(f, ",over={}", format_span(over))?,
            FaultKind::StreamCut { pieces } | FaultKind::StreamStall { pieces } | FaultKind::StreamError { pieces } => {
                write!(f, ",pieces={pieces}")?;
            }
            _ => {}
        }
        if self.probability < 1.0 {
            write!(f, ",probability={}", self.probability)?;
        }
        if let Some(count) = self.count {
            write!(f, ",count={count}")?;
        }
        if !self.from.is_zero() {
            write!(f, ",from={}", format_span(self.from))?;
        }
        if let Some(lasts) = self.lasts {
            write!(f, ",for={}", format_span(lasts))?;
        }
        Ok(())
    }
}

fn hint(f: &mut fmt::Formatter<'_>, retry_after: Option<Duration>) -> fmt::Result {
    retry_after.map_or(Ok(()), |span| write!(f, ",retry_after={}", format_span(span)))
}
