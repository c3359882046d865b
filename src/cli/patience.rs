//! How long a call to a daemon that does not answer is repeated.
//!
//! Invariant: only passing faults are waited out, with growing, jittered pauses, and for a bounded time.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rand::Rng;

use super::connection::CallError;

/// The first pause before a call is repeated; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Pauses between repeated calls.
#[derive(Debug)]
pub struct Patience {
    total: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
    bar: ProgressBar,
}

impl Patience {
    /// Gives up once calls have failed for `total` on end. Until then the bar says what is waited for.
    pub fn new(total: Duration, bar: &ProgressBar) -> Self {
        Self { total, failing_since: None, pause: FIRST_PAUSE, bar: bar.clone() }
    }

    /// A call succeeded.
    pub fn restore(&mut self) {
        if self.failing_since.take().is_some() {
            self.pause = FIRST_PAUSE;
            self.bar.set_message("");
        }
    }

    /// Waits before the next call.
    ///
    /// # Errors
    /// The given error, when it is not passing or has lasted too long.
    pub async fn wait_out(&mut self, error: CallError) -> Result<(), CallError> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !error.is_passing() || since.elapsed() >= self.total {
            return Err(error);
        }
        let span = crate::clock::format_span(self.total);
        self.bar.set_message(format!("(trying again for {span}: {})", super::print::printable(&error.to_string())));
        let hint = if let CallError::Busy { retry_after, .. } = &error { *retry_after } else { None };
        let jittered = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let left = self.total.saturating_sub(since.elapsed());
        tokio::time::sleep(hint.unwrap_or(jittered).min(LONGEST_PAUSE).min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
