//! What the engine's tests are made with: a spec, two scripted providers, a paused clock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::super::{Engine, Pace, Parts, live::LiveCall, reload::tests_only::load_text};
use crate::{
    access::Caller,
    clock::{SharedClock, Timestamp, TokioClock},
    ids::{JobId, NodeId},
    job::{Envelope, Fault, State},
    metrics::Metrics,
    names::ProviderName,
    provider::{Call, CallError, ChatStream, Provider, ProviderSet, RateLimit, Reply},
    quota::Bucket,
    settings::QuotaSetting,
    store::{JobRecord, Store, memory::MemoryStore},
    usage::Usage,
    wire::stream::{Assembly, Delta, Event, FinishReason},
};

/// A provider that does as it is told, and answers when it is told nothing.
#[derive(Default)]
pub struct Scripted {
    script: Mutex<HashMap<String, VecDeque<Act>>>,
    calls: Mutex<Vec<(Timestamp, String, JobId)>>,
    clock: Mutex<Option<SharedClock>>,
    meters: Mutex<HashMap<String, Meter>>,
}

/// What the provider grants for one target.
struct Meter {
    bucket: Bucket,
    per_minute: u64,
    headers: bool,
    turned_away: usize,
}

/// What to do with a call.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answer after a while.
    Answer(Duration),
    /// Fail.
    Fail(CallError),
    /// Panic, as a bug would.
    Panic,
    /// Answer piece by piece.
    Pieces(Vec<Piece>),
    /// Answer, and say nothing of what it consumed.
    NoUsage,
}

impl Scripted {
    /// What the next calls to a target are met with.
    pub fn script(&self, target: &str, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().unwrap().entry(target.to_owned()).or_default().extend(acts);
    }

    /// Turns calls to a target away that exceed so many a minute; `headers` tell of it.
    pub fn grant(&self, target: &str, per_minute: u64, headers: bool) {
        let now = self.clock.lock().unwrap().as_ref().unwrap().now();
        let bucket = Bucket::new(per_minute as f64, Duration::from_secs(1), now);
        self.meters.lock().unwrap().insert(target.to_owned(), Meter { bucket, per_minute, headers, turned_away: 0 });
    }

    /// How many calls to a target were turned away.
    pub fn turned_away(&self, target: &str) -> usize {
        self.meters.lock().unwrap()[target].turned_away
    }

    fn meter(&self, target: &str, now: Timestamp) -> (bool, RateLimit) {
        let mut meters = self.meters.lock().unwrap();
        let Some(meter) = meters.get_mut(target) else { return (true, RateLimit::default()) };
        let fits = meter.bucket.when(now, 1) == Some(now);
        if fits {
            meter.bucket.charge(1);
        } else {
            meter.turned_away += 1;
        }
        if !meter.headers {
            return (fits, RateLimit::default());
        }
        let missing = meter.bucket.burst() - meter.bucket.balance(now);
        let told = RateLimit {
            limit_requests: Some(meter.per_minute),
            reset_requests: Some(Duration::from_secs_f64(missing * 60.0 / meter.per_minute as f64)),
            ..RateLimit::default()
        };
        (fits, told)
    }

    /// The targets called so far, in order.
    pub fn targets(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(_, target, _)| target.clone()).collect()
    }

    /// The jobs of the calls so far.
    pub fn jobs(&self) -> Vec<JobId> {
        self.calls.lock().unwrap().iter().map(|(_, _, job)| *job).collect()
    }

    /// When each call came.
    pub fn times(&self) -> Vec<Timestamp> {
        self.calls.lock().unwrap().iter().map(|(at, _, _)| *at).collect()
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn chat(&self, call: Call) -> Result<Reply, CallError> {
        let now = self.clock.lock().unwrap().as_ref().unwrap().now();
        let target = call.target.name.to_string();
        self.calls.lock().unwrap().push((now, target.clone(), call.job));
        let (fits, rate_limit) = self.meter(&target, now);
        if !fits {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Act::Fail(error) = fault(Fault::Throttled) else { unreachable!() };
            return Err(CallError { rate_limit, ..error });
        }
        let act = self.script.lock().unwrap().get_mut(&target).and_then(VecDeque::pop_front);
        match act.unwrap_or(Act::Answer(Duration::from_millis(10))) {
            act @ (Act::Answer(_) | Act::NoUsage) => {
                let after = if let Act::Answer(after) = act { after } else { Duration::from_millis(10) };
                tokio::time::sleep(after).await;
                let completion = json!({ "object": "chat.completion", "choices": [{ "index": 0, "finish_reason": "stop",
                    "message": { "role": "assistant", "content": target } }] });
                Ok(Reply {
                    completion: completion.to_string(),
                    usage: matches!(act, Act::Answer(_)).then_some(Usage {
                        input: 1_000,
                        output: 100,
                        ..Usage::default()
                    }),
                    provider_request_id: None,
                    rate_limit,
                })
            }
            Act::Fail(error) => Err(error),
            Act::Panic => panic!("as scripted"),
            Act::Pieces(_) => panic!("scripted for a stream"),
        }
    }

    async fn stream(&self, call: Call) -> Result<ChatStream, CallError> {
        let now = self.clock.lock().unwrap().as_ref().unwrap().now();
        let target = call.target.name.to_string();
        self.calls.lock().unwrap().push((now, target.clone(), call.job));
        let act = self.script.lock().unwrap().get_mut(&target).and_then(VecDeque::pop_front);
        let pieces = match act.unwrap_or(Act::Pieces(whole_answer())) {
            Act::Pieces(pieces) => pieces,
            Act::Fail(error) => return Err(error),
            act => panic!("{act:?} is not scripted for a stream"),
        };
        let events = stream::iter(pieces).then(|(after, event)| async move {
            tokio::time::sleep(after).await;
            event
        });
        Ok(ChatStream {
            events: events.boxed(),
            assembly: Assembly::new("chatcmpl-1", "m", 1),
            provider_request_id: Some("req-1".to_owned()),
            rate_limit: RateLimit::default(),
        })
    }
}

/// A piece of a scripted stream, and how long after the one before it comes.
pub type Piece = (Duration, Result<Event, CallError>);

/// A stream that ends well.
pub fn whole_answer() -> Vec<Piece> {
    let text = |text: &str| Event::Delta { choice: 0, delta: Delta::Text(text.to_owned()) };
    vec![
        (Duration::from_millis(300), Ok(text("po"))),
        (Duration::from_millis(100), Ok(text("ng"))),
        (Duration::ZERO, Ok(Event::Finish { choice: 0, reason: FinishReason::Stop })),
        (Duration::ZERO, Ok(Event::Usage(Usage { input: 1_000, output: 100, ..Usage::default() }))),
    ]
}

/// A failure of one kind.
pub fn fault(fault: Fault) -> Act {
    Act::Fail(CallError {
        fault,
        message: format!("a scripted {fault}"),
        code: Some("scripted".to_owned()),
        status: None,
        param: None,
        retry_after: None,
        advice: None,
        possibly_billed: fault == Fault::Unknown,
        rate_limit: RateLimit::default(),
    })
}

/// A throttle with a hint.
pub fn throttled(retry_after: Duration) -> Act {
    match fault(Fault::Throttled) {
        Act::Fail(error) => Act::Fail(CallError { retry_after: Some(retry_after), ..error }),
        act => act,
    }
}

/// A spec with two targets; `extra` is added at the top level.
pub fn spec(extra: &str) -> String {
    format!(
        "version: 1\nname: triage\ntargets:\n  \
         bedrock: {{ provider: bedrock, model: us.anthropic.claude-haiku-4-5-20251001-v1:0, region: us-east-1, timeout: 30s, defaults: {{ max_tokens: 64 }} }}\n  \
         openai: {{ provider: openai, model: gpt-5.4-mini, timeout: 30s }}\n\
         route:\n  - {{ name: all, to: bedrock }}\n\
         retry: {{ attempts: 3, initial_delay: 1s, max_delay: 4s }}\n{extra}"
    )
}

/// An engine at work.
pub struct Rig {
    pub engine: Arc<Engine>,
    pub store: Arc<MemoryStore>,
    pub provider: Arc<Scripted>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Rig {
    /// Starts an engine with one spec.
    pub async fn start(spec: &str) -> Self {
        let clock: SharedClock = Arc::new(TokioClock::starting_at("2026-11-22T10:00:00Z".parse().unwrap()));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self::start_on(store, clock, spec).await
    }

    pub async fn start_on(store: Arc<MemoryStore>, clock: SharedClock, spec: &str) -> Self {
        let provider = Arc::new(Scripted::default());
        *provider.clock.lock().unwrap() = Some(clock.clone());
        let providers: ProviderSet = ["openai", "bedrock"]
            .into_iter()
            .map(|name| (ProviderName::new(name).unwrap(), provider.clone() as Arc<dyn Provider>))
            .collect();
        let parts = Parts {
            store: store.clone(),
            providers,
            snapshot: load_text(spec, None, clock.now()),
            metrics: Arc::new(Metrics::new()),
            clock,
            node: NodeId::generate(),
            max_in_flight: 100,
            lease: Duration::from_secs(30),
            retention: crate::settings::RetentionSettings {
                ledger: Duration::from_hours(9_600),
                audit: Duration::from_hours(9_600),
            },
        };
        let (engine, _) = Engine::take_up(parts).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, stop) = (engine.clone(), stop.clone());
            async move {
                // Simulated days pass in here: looking every half second would take minutes of ours.
                let pace = Pace {
                    promote: Duration::from_secs(30),
                    poll: Duration::from_secs(30),
                    steer: Duration::from_secs(4),
                    prune: Duration::from_hours(6),
                };
                engine.run(pace, stop, || Duration::from_secs(20), CancellationToken::new()).await.unwrap();
            }
        });
        Self { engine, store, provider, stop, running }
    }

    /// Puts quotas in force, as a reload of settings does.
    pub fn quotas(&self, quotas: &[QuotaSetting]) {
        self.engine.health().install_quotas(quotas, Vec::new(), self.engine.now());
    }

    /// Puts another spec in force, as a reload does.
    pub fn reload(&self, spec: &str) {
        let before = self.engine.world().snapshot.clone();
        self.engine.install(load_text(spec, Some(before), self.engine.now()));
    }

    /// Submits a job with these metadata.
    pub async fn submit(&self, metadata: &[(&str, &str)]) -> JobId {
        self.submit_with(metadata, |_| {}).await
    }

    pub async fn submit_with(&self, metadata: &[(&str, &str)], change: impl FnOnce(&mut Envelope)) -> JobId {
        let metadata: BTreeMap<&str, &str> = metadata.iter().copied().collect();
        let job = json!({ "pipeline": "triage", "metadata": metadata,
            "body": { "model": "x", "messages": [{ "role": "user", "content": "hi" }] } });
        let mut envelope = Envelope::from_value(job).unwrap();
        change(&mut envelope);
        self.engine.submit(&Caller::anybody(), vec![envelope]).await.pop().unwrap().unwrap().id
    }

    /// Asks for an answer and waits for it, in all at most for this long.
    pub fn live(&self, patience: Duration) -> LiveCall {
        let job = json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
        self.engine.live(&Caller::anybody(), Envelope::from_value(job).unwrap(), patience, false).unwrap()
    }

    /// The same, piece by piece.
    pub fn live_stream(&self) -> LiveCall {
        let job = json!({ "pipeline": "triage", "body": { "messages": [{ "role": "user", "content": "hi" }] } });
        let patience = Duration::from_mins(1);
        self.engine.live(&Caller::anybody(), Envelope::from_value(job).unwrap(), patience, true).unwrap()
    }

    /// The job as stored.
    pub async fn job(&self, id: JobId) -> JobRecord {
        self.store.job(id).await.unwrap().unwrap()
    }

    /// The job as stored, if it is.
    pub async fn store_job(&self, id: JobId) -> Option<JobRecord> {
        self.store.job(id).await.unwrap()
    }

    /// Waits, in simulated time, until a job is in a state.
    pub async fn until(&self, id: JobId, wanted: State) -> JobRecord {
        let reached = async {
            let mut pause = Duration::from_millis(2);
            loop {
                let record = self.job(id).await;
                if record.summary.state == wanted {
                    return record;
                }
                assert!(
                    !record.summary.state.is_terminal(),
                    "ended as {} instead of {wanted}: {:?}",
                    record.summary.state,
                    record.error
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        };
        tokio::time::timeout(Duration::from_hours(48), reached).await.unwrap_or_else(|_| panic!("never {wanted}"))
    }

    /// Stops in good order.
    pub async fn drain(self) -> Arc<MemoryStore> {
        self.stop.cancel();
        self.running.await.unwrap();
        self.store
    }
}
