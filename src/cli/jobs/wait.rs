//! `landbridge jobs wait`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::select::{Selector, batch_counts};
use crate::{
    cli::{
        connection::{Connection, Daemon},
        exit::{Exit, Failure, Result},
        patience::Patience,
        print::{Console, Format, count, counts_in_words},
        progress::job_bar,
        results,
    },
    clock::parse_span,
    ids::JobId,
};

/// Jobs waited for at once.
const IN_FLIGHT: usize = 16;
/// Between two looks at a batch.
const LOOK: Duration = Duration::from_millis(500);

/// Which jobs to wait for
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A batch has ended when each job in it has; jobs that are added meanwhile count too.

Examples:
  landbridge jobs wait --batch monday --timeout 2h
  landbridge jobs wait job_0199f0a4c1d27b3e8a5d0c6b7e1f2a3b

Exit codes: 0 all succeeded; 3 all ended, some without a result; 1 the time was up, or there is no such job")]
pub struct WaitArgs {
    /// Which
    #[command(flatten)]
    pub selector: Selector,
    /// Give up after this long
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub timeout: Option<Duration>,
    /// How long to try again when the daemon cannot be reached or is busy
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = parse_span)]
    pub retry_for: Duration,
    /// json: {"total", "counts": {…}}
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the command.
pub async fn execute(args: &WaitArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let deadline = args.timeout.map(|span| Instant::now() + span);
    let waiting = async {
        match args.selector.filter.only_batch() {
            Some(batch) => whole_batch(args, &daemon, batch, console.progress).await,
            None => each(args, &daemon, console.progress).await,
        }
    };
    let ended = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), waiting).await.unwrap_or_else(|_| {
            let span = args.timeout.map(crate::clock::format_span).unwrap_or_default();
            Err(Failure::new(format!("the jobs have not ended within {span}")))
        }),
        None => waiting.await,
    }?;
    let total = count(&ended, "/total");
    if total == 0 {
        return Err(Failure::new("no such job"));
    }
    match args.format {
        Format::Json => console.json(&ended)?,
        Format::Human => writeln!(console.out, "{}", counts_in_words(&ended["counts"]))?,
    }
    let all = count(&ended, "/counts/succeeded") == total;
    Ok(if all { Exit::Success } else { Exit::JobsFailed })
}

async fn whole_batch(args: &WaitArgs, daemon: &Daemon, batch: &str, progress: bool) -> Result<Value> {
    let bar = job_bar(progress, 0);
    let mut patience = Patience::new(args.retry_for, &bar);
    loop {
        match batch_counts(daemon, batch).await {
            Ok(now) => {
                patience.restore();
                let ended = ["succeeded", "failed", "cancelled", "expired"];
                bar.set_length(count(&now, "/total"));
                bar.set_position(ended.iter().map(|state| count(&now, &format!("/counts/{state}"))).sum());
                if now["ended"] == true || count(&now, "/total") == 0 {
                    bar.finish_and_clear();
                    return Ok(json!({"total": count(&now, "/total"), "counts": now["counts"]}));
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => patience.wait_out(error).await?,
        }
    }
}

async fn each(args: &WaitArgs, daemon: &Daemon, progress: bool) -> Result<Value> {
    let bar = job_bar(progress, args.selector.ids.len() as u64);
    let mut selected = args.selector.jobs(daemon, &[]);
    let mut counts = serde_json::Map::new();
    let mut total: u64 = 0;
    while let Some(ids) = selected.next().await? {
        wait_for(args, daemon, ids, &mut counts, &mut total, &bar).await?;
    }
    bar.finish_and_clear();
    Ok(json!({"total": total, "counts": counts}))
}

async fn wait_for(
    args: &WaitArgs,
    daemon: &Daemon,
    ids: Vec<JobId>,
    counts: &mut serde_json::Map<String, Value>,
    total: &mut u64,
    bar: &ProgressBar,
) -> Result<()> {
    let mut ended =
        stream::iter(ids).map(|id| results::ended(daemon, id, args.retry_for, bar)).buffer_unordered(IN_FLIGHT);
    while let Some(job) = ended.next().await {
        let state = job?["state"].as_str().unwrap_or_default().to_owned();
        let seen = counts.get(&state).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(state, json!(seen + 1));
        *total += 1;
        bar.set_length(bar.length().unwrap_or(0).max(*total));
        bar.set_position(*total);
    }
    Ok(())
}
