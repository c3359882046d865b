//! SIGHUP reloads; SIGTERM and SIGINT drain, a second one forces.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{engine::reload::Reloader, metrics::ReloadTrigger};

/// Follows the process's signals until aborted.
pub(super) async fn follow(reloader: Arc<Reloader>, stop: CancellationToken, force: CancellationToken) {
    let streams = (signal(SignalKind::hangup()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = streams else {
        tracing::error!("signals cannot be followed: stop the daemon by force, it recovers at the next start");
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                reloader.reload(ReloadTrigger::Signal).await;
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            force.cancel();
        } else {
            tracing::info!("asked to stop; ask again to cut the drain short");
            stop.cancel();
        }
    }
}
