//! Callbacks: receivers are told of ends, by notices that the store keeps until they are delivered or given up.
//!
//! Whoever has something to tell writes [`Notice::posting`] in the transaction of what happened, and calls
//! [`Engine::notices_wait`] if it should not wait for the next look.
//!
//! Invariant: a notice leaves the store only after its receiver took it, or after it was given up; between the two it may be
//! told twice, always under the same id. A receiver that does not answer keeps nobody else waiting. Of several daemons on
//! one store, one delivers for all.

mod desk;
mod patience;
mod words;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::desk::{Desk, Turn};
pub(super) use self::words::of_batch;
pub use self::words::{CallbackStanding, CallbackState};
use super::Engine;
use crate::{
    clock::Timestamp,
    metrics::CallbackOutcome,
    provider::messenger::{Messenger, Obstacle, Undelivered, check_secrets},
    settings::CallbackSettings,
    store::{Condition, DocumentChange, DocumentKind, DocumentPage, Due, Lead, Notice, Result, StoreError},
};

/// Calls under way at once, over all receivers.
const AT_ONCE: usize = 32;
/// Rows of the line looked at in one go, and in one pass.
const PAGE: u32 = 256;
const MOST_LOOKED_AT: usize = 2_048;
/// Between two passes, so that a crowd of short calls shares them.
const BREATH: Duration = Duration::from_millis(20);
/// How long calls under way may take at the end; what is cut off is told again by the next life.
const GRACE: Duration = Duration::from_secs(3);
/// Of what one daemon leads: delivering. Kept this long after it falls silent; renewed, or asked for, in a third of that.
const LEAD: &str = "callbacks";
const LEASE: Duration = Duration::from_secs(15);
/// Between tries when the store fails.
const STORE_BACKOFF: Duration = Duration::from_secs(1);
/// How long given up notices can be seen.
const GIVEN_UP_KEPT: Duration = Duration::from_hours(30 * 24);

/// What delivers.
pub(super) struct Callbacks {
    messenger: ArcSwapOption<Messenger>,
    desk: Mutex<Desk>,
    calls: Arc<Semaphore>,
    waiting: Notify,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            messenger: ArcSwapOption::empty(),
            desk: Mutex::default(),
            calls: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Notify::new(),
        }
    }
}

impl Callbacks {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the line found.
struct Looked {
    /// Until the next notice is due, where one is known.
    pause: Option<Duration>,
    deliveries: Vec<(Due, Arc<Semaphore>)>,
    hopeless: Vec<Due>,
    /// Those of receivers that do not answer, and until when these are left alone.
    postponed: Vec<(Due, Timestamp)>,
}

/// Delivers until `stop`; looks for due notices every `look` at least.
pub(super) async fn run(engine: Arc<Engine>, look: Duration, stop: CancellationToken) {
    let mut under_way = JoinSet::new();
    let mut lead: Option<Lead> = None;
    let mut asked: Option<Instant> = None;
    loop {
        if asked.is_none_or(|at| at.elapsed() >= LEASE / 3) {
            asked = Some(Instant::now());
            lead = engine.store.lead(LEAD, engine.node, LEASE).await.unwrap_or_else(|error| {
                tracing::error!(%error, "who delivers callbacks could not be asked; trying again");
                None
            });
        }
        let looked = match &lead {
            Some(lead) => engine.look_at_line(lead).await.map(Some),
            None => Ok(None),
        };
        let pause = match (looked, &lead) {
            (Ok(Some(looked)), Some(lead)) => {
                for (due, line) in looked.deliveries {
                    under_way.spawn(deliver(engine.clone(), lead.clone(), due, line));
                }
                for due in looked.hopeless {
                    under_way.spawn(give_up(engine.clone(), lead.clone(), due));
                }
                looked.pause.unwrap_or(look)
            }
            (Ok(_), _) => look,
            (Err(error), _) => {
                tracing::error!(%error, "due callbacks could not be looked for; trying again");
                STORE_BACKOFF
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = engine.callbacks.waiting.notified() => {}
            () = tokio::time::sleep(pause.clamp(BREATH, look)) => {}
        }
        while under_way.try_join_next().is_some() {}
    }
    let rest = async { while under_way.join_next().await.is_some() {} };
    let _in_time = tokio::time::timeout(GRACE, rest).await;
    if let Some(lead) = lead
        && let Err(error) = engine.store.resign(&lead).await
    {
        tracing::debug!(%error, "delivering callbacks is taken over once this daemon has been silent for a while");
    }
}

impl Engine {
    /// Whether a callback's address would be called.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check_callback(&self, url: &str) -> std::result::Result<(), String> {
        match &*self.callbacks.messenger.load() {
            Some(messenger) => messenger.permits(url),
            None => {
                Err("callbacks are not set up here: they need `callbacks: { secret: …, allow: […] }` in the settings; \
                         without them, wait with GET /v1/jobs/{id}?wait=30s"
                    .to_owned())
            }
        }
    }

    /// Notices were posted: they are looked for now.
    pub fn notices_wait(&self) {
        self.callbacks.waiting.notify_one();
    }

    /// Takes over who may be called.
    pub(super) fn install_callbacks(&self, settings: Option<&CallbackSettings>) {
        let messenger = settings.and_then(|settings| {
            if let Err(error) = check_secrets(settings) {
                tracing::error!(%error, "callbacks cannot be signed, and wait until they can");
            }
            let opened = Messenger::open(settings);
            opened.inspect_err(|error| tracing::error!(%error, "callbacks cannot be sent")).ok()
        });
        self.callbacks.messenger.store(messenger.map(Arc::new));
    }

    async fn look_at_line(&self, lead: &Lead) -> Result<Looked> {
        let now = self.clock.now();
        let mut looked = Looked { pause: None, deliveries: Vec::new(), hopeless: Vec::new(), postponed: Vec::new() };
        let mut page = DocumentPage { kind: DocumentKind::CallbackDue, after: None, descending: false, limit: PAGE };
        let mut oldest = None;
        let mut seen = 0;
        'line: while seen < MOST_LOOKED_AT {
            let rows = self.store.documents_page(page.clone()).await?;
            let Some((last, _)) = rows.last() else { break };
            page.after = Some(last.clone());
            let more = rows.len() == PAGE as usize;
            seen += rows.len();
            for (key, value) in rows {
                let Some(due) = Due::read(&key, &value) else {
                    tracing::error!(key, "a row of due callbacks cannot be read; it is deleted");
                    let gone = DocumentChange { kind: DocumentKind::CallbackDue, key, value: None };
                    self.store.apply(vec![gone], None).await?;
                    continue;
                };
                if due.at > now {
                    looked.pause = Some(now.until(due.at));
                    break 'line;
                }
                oldest.get_or_insert(due.at);
                match self.callbacks.desk().turn(&due, now) {
                    Turn::Go(line) => looked.deliveries.push((due, line)),
                    Turn::Later => {}
                    Turn::Closed(until) if patience::is_over(due.since, now) => {
                        tracing::debug!(id = due.id, %until, "nobody waits for this receiver any more");
                        looked.hopeless.push(due);
                    }
                    Turn::Closed(until) => looked.postponed.push((due, until)),
                }
            }
            if !more {
                break;
            }
        }
        self.metrics.set_callback_delay(oldest.map_or(Duration::ZERO, |at| now.since(at)));
        let mut changes = Vec::with_capacity(looked.postponed.len() * 2);
        for (due, until) in looked.postponed.drain(..) {
            changes.push(due.change(false));
            changes.push(Due { at: patience::scattered(until, rand::random()), ..due }.change(true));
        }
        if !changes.is_empty() {
            self.store.apply_if(vec![Condition::Leads(lead.clone())], changes, None).await?;
        }
        Ok(looked)
    }

    /// Writes down what became of a try, as soon as the store takes it.
    async fn write_outcome(&self, lead: &Lead, id: &str, changes: Vec<DocumentChange>) {
        loop {
            match self.store.apply_if(vec![Condition::Leads(lead.clone())], changes.clone(), None).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(id, "another daemon delivers callbacks by now; this one may be told twice");
                    return;
                }
                Err(error @ (StoreError::Busy(_) | StoreError::Unwritable(_))) => {
                    tracing::error!(id, %error, "what became of a callback could not be stored; trying again");
                    tokio::time::sleep(STORE_BACKOFF).await;
                }
                Err(error) => {
                    tracing::error!(id, %error, "what became of a callback could not be stored; it will be told again");
                    return;
                }
            }
        }
    }

    async fn notice(&self, id: &str) -> Result<Option<Notice>> {
        let value = self.store.document(DocumentKind::Callback, id).await?;
        Ok(value.and_then(|value| serde_json::from_value(value).ok()))
    }

    async fn tell(&self, lead: &Lead, due: &Due) -> Result<()> {
        let Some(mut notice) = self.notice(&due.id).await? else {
            // Delivered, and the process died between: nothing is left to do.
            self.write_outcome(lead, &due.id, vec![due.change(false)]).await;
            return Ok(());
        };
        let body = match notice.body.take() {
            Some(body) => body,
            None => self.words_of(&due.id, &notice).await?,
        };
        let told = match self.callbacks.messenger.load_full() {
            Some(messenger) => messenger.tell(&notice.url, &due.id, self.clock.now(), &body).await,
            None => Err(Undelivered {
                message: "`callbacks` is no longer in the settings".to_owned(),
                kind: Obstacle::Ours,
                retry_after: None,
            }),
        };
        let now = self.clock.now();
        let Err(failure) = told else {
            self.callbacks.desk().answered(&due.to);
            self.metrics.callback(CallbackOutcome::Delivered);
            let gone = DocumentChange { kind: DocumentKind::Callback, key: due.id.clone(), value: None };
            self.write_outcome(lead, &due.id, vec![due.change(false), gone]).await;
            return Ok(());
        };
        if failure.kind == Obstacle::Receiver {
            self.callbacks.desk().failed(&due.to, now);
        }
        notice.tries += 1;
        notice.body = Some(body);
        let (id, tries) = (&due.id, notice.tries);
        let wait = if failure.kind == Obstacle::Gone { None } else { patience::next(tries, due.since, now) };
        let mut changes = vec![due.change(false)];
        if let Some(wait) = wait {
            let next_at = now + patience::jittered(wait, rand::random()).max(failure.retry_after.unwrap_or_default());
            tracing::warn!(id, tries, %next_at, error = %failure, "a callback was not delivered; trying again");
            notice.next_at = Some(next_at);
            changes.push(notice.place(next_at, id));
            self.metrics.callback(CallbackOutcome::Failed);
        } else {
            tracing::error!(id, tries, error = %failure, "a callback is given up");
            (notice.next_at, notice.given_up_at) = (None, Some(now));
            self.metrics.callback(CallbackOutcome::GivenUp);
        }
        notice.last_error = Some(failure.message);
        changes.push(notice.keeping(id));
        self.write_outcome(lead, id, changes).await;
        Ok(())
    }

    /// Forgets what was given up long ago.
    pub(super) async fn sweep_notices(&self) -> Result<()> {
        let before = self.clock.now() - GIVEN_UP_KEPT;
        let mut page = DocumentPage { kind: DocumentKind::Callback, after: None, descending: false, limit: PAGE };
        loop {
            let rows = self.store.documents_page(page.clone()).await?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            page.after = Some(last.clone());
            let old = |value: &serde_json::Value| {
                let at = value.get("given_up_at").and_then(|at| at.as_str());
                at.and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at < before)
            };
            let gone = rows.into_iter().filter(|(_, value)| old(value));
            let changes: Vec<DocumentChange> =
                gone.map(|(key, _)| DocumentChange { kind: DocumentKind::Callback, key, value: None }).collect();
            if !changes.is_empty() {
                self.store.apply(changes, None).await?;
            }
        }
    }
}

/// Tells one receiver when it is its turn.
async fn deliver(engine: Arc<Engine>, lead: Lead, due: Due, line: Arc<Semaphore>) {
    {
        let _turn = line.acquire().await;
        let _call = engine.callbacks.calls.acquire().await;
        // The receiver may have stopped answering while this one stood in its line.
        if !engine.callbacks.desk().is_closed(&due.to, engine.clock.now())
            && let Err(error) = engine.tell(&lead, &due).await
        {
            tracing::error!(id = due.id, %error, "a callback could not be read; trying again");
            tokio::time::sleep(STORE_BACKOFF).await;
        }
    }
    engine.callbacks.desk().leave(&due);
}

/// Gives up on a notice whose receiver has not been there for too long.
async fn give_up(engine: Arc<Engine>, lead: Lead, due: Due) {
    match engine.notice(&due.id).await {
        Ok(Some(mut notice)) => {
            let reason = format!("{} could not be reached for too long", due.to);
            tracing::error!(id = due.id, tries = notice.tries, reason, "a callback is given up");
            notice.last_error.get_or_insert(reason);
            (notice.next_at, notice.given_up_at) = (None, Some(engine.clock.now()));
            engine.metrics.callback(CallbackOutcome::GivenUp);
            engine.write_outcome(&lead, &due.id, vec![due.change(false), notice.keeping(&due.id)]).await;
        }
        Ok(None) => engine.write_outcome(&lead, &due.id, vec![due.change(false)]).await,
        Err(error) => tracing::error!(id = due.id, %error, "a callback could not be read; trying again"),
    }
}
