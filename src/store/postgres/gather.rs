//! Group commit: what several callers ask at the same time is done in one transaction.
//!
//! Invariant: nobody waits for others to come; a group is what waits while the groups before it are on their way. A group
//! is bounded, and one caller's bad luck is not the others': when a group fails for a reason that will not pass, each
//! caller's part is done alone.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::store::{Result, StoreError};

/// Callers that wait. Whoever asks one more waits to ask: that is the backpressure.
const QUEUE: usize = 1_024;

/// Rows, and bytes of texts, of one group.
const ROWS: usize = 512;
const BYTES: usize = 8 << 20;

/// Groups on their way at once: while one waits for the disk, the next is on its way.
const LANES: usize = 2;

struct Ask<Q, A> {
    items: Vec<Q>,
    bytes: usize,
    reply: oneshot::Sender<Result<Vec<A>>>,
}

/// Where callers leave what they want done.
pub struct Desk<Q, A> {
    sender: mpsc::Sender<Ask<Q, A>>,
}

impl<Q, A> Desk<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    /// Starts the tasks that do it. They end when the desk is gone and all that was left on it is done.
    pub fn start<W, F>(act: W) -> Self
    where
        W: Fn(Arc<Vec<Q>>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<A>>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..LANES {
            tokio::spawn(serve(receiver.clone(), act.clone()));
        }
        Self { sender }
    }

    /// Has some things done, together with others'; one answer for each.
    pub async fn ask(&self, items: Vec<Q>, bytes: usize) -> Result<Vec<A>> {
        let gone = || StoreError::Unwritable("the store's group commit has stopped; restart the daemon".to_owned());
        let (reply, answer) = oneshot::channel();
        self.sender.send(Ask { items, bytes, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn serve<Q, A, W, F>(receiver: Arc<Mutex<mpsc::Receiver<Ask<Q, A>>>>, act: W)
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
    W: Fn(Arc<Vec<Q>>) -> F,
    F: Future<Output = Result<Vec<A>>> + Send + 'static,
{
    loop {
        let group = {
            let mut receiver = receiver.lock().await;
            let Some(first) = receiver.recv().await else { return };
            let (mut rows, mut bytes) = (first.items.len(), first.bytes);
            let mut group = vec![first];
            while rows < ROWS && bytes < BYTES {
                let Ok(more) = receiver.try_recv() else { break };
                rows += more.items.len();
                bytes = bytes.saturating_add(more.bytes);
                group.push(more);
            }
            group
        };
        let all: Arc<Vec<Q>> = Arc::new(group.iter().flat_map(|ask| ask.items.iter().cloned()).collect());
        match act(all).await {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for ask in group {
                    let mine = answers.by_ref().take(ask.items.len()).collect();
                    // Whoever asked may have gone; the work is done all the same.
                    let _ = ask.reply.send(Ok(mine));
                }
            }
            Err(error @ StoreError::Busy(_)) => {
                for ask in group {
                    let _ = ask.reply.send(Err(error.clone()));
                }
            }
            Err(error) if group.len() == 1 => {
                for ask in group {
                    let _ = ask.reply.send(Err(error.clone()));
                }
            }
            Err(_) => {
                for ask in group {
                    let answer = act(Arc::new(ask.items)).await;
                    let _ = ask.reply.send(answer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn callers_share_groups_and_get_their_own_answers() {
        let (entered, groups) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let desk = Arc::new(Desk::start({
            let (entered, groups, gate) = (entered.clone(), groups.clone(), gate.clone());
            move |items: Arc<Vec<u32>>| {
                let (entered, groups, gate) = (entered.clone(), groups.clone(), gate.clone());
                async move {
                    entered.fetch_add(1, Ordering::Relaxed);
                    gate.acquire().await.unwrap().forget();
                    groups.fetch_add(1, Ordering::Relaxed);
                    if items.contains(&13) {
                        return Err(StoreError::Damaged("13".to_owned()));
                    }
                    Ok(items.iter().map(|item| item * 2).collect())
                }
            }
        }));
        let ask = |items: Vec<u32>| {
            let desk = desk.clone();
            tokio::spawn(async move { desk.ask(items, 0).await })
        };
        // Two groups of one are on their way; what comes then waits together.
        let mut first = Vec::new();
        for item in [1, 2] {
            first.push(ask(vec![item]));
            while entered.load(Ordering::Relaxed) < first.len() {
                tokio::task::yield_now().await;
            }
        }
        let rest = [ask(vec![3, 4]), ask(vec![13]), ask(vec![]), ask(vec![5])];
        while desk.sender.capacity() > QUEUE - 4 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(100);
        for (task, expected) in first.into_iter().zip([vec![2], vec![4]]) {
            assert_eq!(task.await.unwrap().unwrap(), expected);
        }
        let mut answers = Vec::new();
        for task in rest {
            answers.push(task.await.unwrap().ok());
        }
        assert_eq!(answers, [Some(vec![6, 8]), None, Some(vec![]), Some(vec![10])]);
        assert_eq!(groups.load(Ordering::Relaxed), 2 + 1 + 4, "the group that failed was done one by one");
    }
}
