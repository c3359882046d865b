//! Progress bars, drawn on a terminal alone.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes; without a size it only spins.
pub fn byte_bar(visible: bool, size: Option<u64>) -> ProgressBar {
    match size {
        Some(size) => bar(visible, Some(size), "submitting {bar:30} {bytes}/{total_bytes}, {eta} left {msg}"),
        None => bar(visible, None, "submitting {spinner} {bytes}, {bytes_per_sec} {msg}"),
    }
}

/// A bar that counts jobs.
pub fn job_bar(visible: bool, jobs: u64) -> ProgressBar {
    bar(visible, Some(jobs), "waiting {bar:30} {human_pos}/{human_len} jobs, {elapsed} {msg}")
}

fn bar(visible: bool, length: Option<u64>, template: &str) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    // The templates are ours; a malformed one would merely look plain.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, target).with_style(style)
}
