//! Hints between daemons: NOTIFY, a few a second at most, and LISTEN where a direct connection may be had.
//!
//! Invariant: hints may be lost, doubled or late, and nothing depends on them; polling is the truth.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use super::{
    address::Address,
    change::News,
    link::{Link, Pace, jittered, params},
    tls,
};
use crate::{
    ids::{JobId, NodeId},
    store::hints::Hints,
};

const CHANNEL: &str = "landbridge";
/// Between two notifications of one daemon: the server tells every listener of each.
const APART: Duration = Duration::from_millis(100);
/// Ends told of in one notification: a payload holds 8,000 bytes.
const ENDS: usize = 180;
/// Ends that wait to be told. More are not told; whoever waits for them looks for himself.
const ENDS_KEPT: usize = 4 * ENDS;
/// Pauses between tries to listen.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Silence after which the line is tested.
const QUIET: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Untold {
    ready: bool,
    documents: bool,
    ended: VecDeque<JobId>,
}

/// What this daemon has to tell the others.
#[derive(Debug)]
pub struct Mouth {
    node: NodeId,
    untold: Mutex<Untold>,
    wake: Notify,
}

impl Mouth {
    /// Nothing to tell yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, untold: Mutex::default(), wake: Notify::new() }
    }

    /// Something became durable.
    pub fn tell(&self, news: &News) {
        if !news.ready && news.ended.is_empty() {
            return;
        }
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.ready |= news.ready;
        let room = ENDS_KEPT.saturating_sub(untold.ended.len());
        untold.ended.extend(news.ended.iter().take(room));
        drop(untold);
        self.wake.notify_one();
    }

    /// Documents changed.
    pub fn tell_documents(&self) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).documents = true;
        self.wake.notify_one();
    }

    /// What to send next: who speaks, then `r`, `d`, and the jobs that ended.
    fn payload(&self) -> Option<String> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = Vec::new();
        if std::mem::take(&mut untold.ready) {
            words.push("r".to_owned());
        }
        if std::mem::take(&mut untold.documents) {
            words.push("d".to_owned());
        }
        let told = untold.ended.len().min(ENDS);
        words.extend(untold.ended.drain(..told).map(|job| job.to_string()));
        (!words.is_empty()).then(|| format!("{} {}", self.node, words.join(" ")))
    }
}

/// Tells the others until stopped.
pub async fn speak(link: Arc<Link>, mouth: Arc<Mouth>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = mouth.wake.notified() => {}
        }
        while let Some(payload) = mouth.payload() {
            let told = async {
                let tx = link.begin(Pace::Quick).await?;
                tx.query("SELECT pg_notify($1, $2)", params![CHANNEL => TEXT, payload => TEXT]).await?;
                tx.done_without_receipt().await
            };
            if let Err(trouble) = told.await {
                tracing::debug!(%trouble, "other daemons could not be told; they look for themselves");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(APART) => {}
            }
        }
    }
}

/// Takes a notification apart.
fn hear(payload: &str, own: NodeId, hints: &Hints) {
    let mut words = payload.split(' ');
    if words.next() == Some(own.to_string().as_str()) {
        return;
    }
    for word in words {
        match word {
            "r" => hints.ready(),
            "d" => hints.documents_changed(),
            id => {
                if let Ok(job) = id.parse() {
                    hints.ended(job);
                }
            }
        }
    }
}

/// Listens until stopped, on a connection of its own; connects again when it is lost.
pub async fn listen(address: Address, own: NodeId, hints: Arc<Hints>, stop: CancellationToken) {
    let mut pause = AGAIN;
    loop {
        let lost = tokio::select! {
            () = stop.cancelled() => return,
            lost = listen_once(&address, own, &hints, &mut pause) => lost,
        };
        tracing::warn!(database = address.name, error = %lost, "not listening for other daemons' hints; looking now and then instead");
        // What was said meanwhile was not heard.
        hints.ready();
        hints.documents_changed();
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(jittered(pause)) => {}
        }
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

async fn listen_once(address: &Address, own: NodeId, hints: &Hints, pause: &mut Duration) -> String {
    let connector = match tls::connector(address) {
        Ok(connector) => connector,
        Err(error) => return error.to_string(),
    };
    let connected = tokio::time::timeout(QUIET, address.config.connect(connector));
    let (client, mut connection) = match connected.await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return super::trouble::Trouble::Sql(error).to_string(),
        Err(_) => return "no answer".to_owned(),
    };
    let (sender, mut heard) = tokio::sync::mpsc::channel::<String>(256);
    let driver = tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                // A listener that is behind loses hints, and may.
                Some(Ok(AsyncMessage::Notification(said))) => drop(sender.try_send(said.payload().to_owned())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return super::trouble::Trouble::Sql(error).to_string(),
                None => return "the connection was closed".to_owned(),
            }
        }
    });
    let driver = AbortOnDrop(driver);
    if let Err(error) = client.batch_execute(&format!("LISTEN {CHANNEL}")).await {
        return super::trouble::Trouble::Sql(error).to_string();
    }
    *pause = AGAIN;
    tracing::debug!(database = address.name, "listening for other daemons' hints");
    hints.ready();
    hints.documents_changed();
    loop {
        match tokio::time::timeout(QUIET, heard.recv()).await {
            Ok(Some(payload)) => hear(&payload, own, hints),
            Ok(None) => break,
            Err(_) => match tokio::time::timeout(QUIET, client.batch_execute("")).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => break,
                Err(_) => return "no answer".to_owned(),
            },
        }
    }
    driver.said().await
}

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop(tokio::task::JoinHandle<String>);

impl AbortOnDrop {
    /// What it ended with.
    async fn said(mut self) -> String {
        let said = tokio::time::timeout(Duration::from_secs(1), &mut self.0).await;
        said.ok().and_then(Result::ok).unwrap_or_else(|| "the connection was lost".to_owned())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_by_others_and_bounded() {
        let [own, other] = [NodeId::generate(), NodeId::generate()];
        let mouth = Mouth::new(own);
        assert_eq!(mouth.payload(), None);
        let ended: Vec<JobId> = (0..2_000).map(|_| JobId::generate()).collect();
        mouth.tell(&News { ready: true, ended: ended.clone() });
        mouth.tell_documents();
        let hints = Hints::new();
        let (mut wakeups, mut endings) = (hints.wakeups(), hints.endings());
        let mut documents = hints.document_changes();
        let mut payloads = 0;
        while let Some(payload) = mouth.payload() {
            assert!(payload.len() < 8_000, "{}", payload.len());
            hear(&payload, own, &hints);
            assert!(!wakeups.has_changed().unwrap() && endings.is_empty(), "one's own words are no news");
            hear(&payload, other, &hints);
            assert_eq!(wakeups.has_changed().unwrap(), payloads == 0);
            assert_eq!(documents.has_changed().unwrap(), payloads == 0);
            wakeups.mark_unchanged();
            documents.mark_unchanged();
            let mut heard = Vec::new();
            while let Ok(job) = endings.try_recv() {
                heard.push(job);
            }
            assert_eq!(heard, &ended[payloads * ENDS..(payloads + 1) * ENDS]);
            payloads += 1;
        }
        assert_eq!(payloads, 4);
    }
}
