//! What keeps the database in shape: sums are folded, days are cut ahead.
//!
//! Invariant: every daemon does it, none needs to: a pass that fails, or that another daemon does, is made good by the next.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Inner, days, link::jittered, tally};

/// How often changes of sums are folded: readers add up what is not.
const FOLD: Duration = Duration::from_secs(1);

/// How many folds lie between looks at the days.
const DAYS_EVERY: u32 = 600;

/// Keeps the database in shape until stopped.
pub async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let link = &inner.link;
    let mut ticks = interval(jittered(FOLD));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pass = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        pass = pass.wrapping_add(1);
        inner.put_orphans_back().await;
        if pass.is_multiple_of(DAYS_EVERY)
            && let Err(trouble) = days::cut_ahead(link).await
        {
            tracing::warn!(database = link.name, %trouble, "days to come could not be cut; trying again later");
        }
        loop {
            match tally::fold(link).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) => {
                    tracing::debug!(database = link.name, %trouble, "sums could not be folded; trying again");
                    break;
                }
            }
        }
    }
}
