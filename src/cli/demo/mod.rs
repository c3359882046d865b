//! `landbridge demo`: the whole story in a minute, on simulated endpoints.
//!
//! Everything is real but the providers: the daemon, its HTTP API, its SQLite store, the watcher, the providers'
//! clients. The specs are copies of the repository's, because one of them is edited on the way.

mod report;
mod scene;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    exit::{Exit, Failure, Result},
    print::Console,
};
use scene::Scene;

/// Show the whole story in a minute on simulated endpoints
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Real prompts through the real daemon, in front of simulated OpenAI and Bedrock endpoints: jobs,
a live edit of a spec, an outage, the kill switch, a report. Nothing is spent and nothing of
yours is changed: it works on copies in a folder of its own.

Example:
  landbridge demo

Exit codes: 0; 1 a step did not go as told")]
pub struct DemoArgs {
    /// The folder of specs to copy and play with
    #[arg(long, default_value = "pipelines", value_name = "FOLDER")]
    pub pipelines: PathBuf,
    /// The folder of example jobs
    #[arg(long, default_value = "examples", value_name = "FOLDER")]
    pub examples: PathBuf,
}

/// The spec that the demo edits.
const EDITED: &str = "package-classify.yaml";
/// How long Bedrock is out.
const OUTAGE: Duration = Duration::from_secs(4);
/// How long the kill switch is watched.
const WATCHED: Duration = Duration::from_secs(3);

/// Plays the demo.
///
/// # Errors
/// [`Failure`] when the folders are missing, or anything does not go as told.
pub async fn execute(args: &DemoArgs, config: &Path, console: &mut Console<'_>) -> Result {
    for folder in [&args.pipelines, &args.examples] {
        if !folder.is_dir() {
            return Err(Failure::new(format!(
                "there is no folder {}: run the demo in a checkout of landbridge, or name --pipelines and --examples",
                folder.display()
            )));
        }
    }
    let began = Instant::now();
    let mut scene = Scene::open(args, config).await?;
    let out = &mut *console.out;

    writeln!(out, "\n1. A daemon on a fresh SQLite file, simulated OpenAI and Bedrock behind the real clients")?;
    writeln!(out, "   API {}  pipelines: {}", scene.url(), scene.pipelines().await?.join(", "))?;

    let jobs = Scene::read_examples(&args.examples)?;
    let (first, second): (Vec<String>, Vec<String>) = halves(&jobs);
    let submitted = Instant::now();
    scene.submit(&first).await?;
    writeln!(
        out,
        "\n2. {} jobs from real Debian package descriptions, durable in {:.0} ms",
        first.len(),
        millis(submitted)
    )?;
    scene.until_ended(first.len() / 4).await?;
    writeln!(out, "   so far: {}", scene.progress().await?)?;

    let edit = scene.edit_percentage(EDITED).await?;
    writeln!(out, "\n3. An edit saved while they run: {}", edit.words)?;
    writeln!(out, "   saved -> routing: {:.0} ms; no restart, no job touched", edit.took.as_secs_f64() * 1_000.0)?;
    scene.until_ended(first.len() / 2).await?;
    writeln!(out, "   so far: {}", scene.progress().await?)?;

    scene.break_bedrock("bedrock=overloaded,status=503")?;
    writeln!(out, "\n4. Bedrock answers 503 to everything for {} s: the fallback takes over", OUTAGE.as_secs())?;
    tokio::time::sleep(OUTAGE).await;
    scene.mend_bedrock()?;
    writeln!(
        out,
        "   jobs rescued by fallback: {}; {}",
        scene.metric_sum("landbridge_fallbacks_total").await?,
        scene.progress().await?
    )?;

    scene.submit(&second).await?;
    let began_with = scene.progress().await?;
    let switch = scene.kill_switch(WATCHED).await?;
    writeln!(out, "\n5. {} more jobs, and the kill switch: landbridge flag set FORCE_OPENAI_PROVIDER", second.len())?;
    writeln!(out, "   before: {began_with}")?;
    writeln!(out, "   {}", switch.message)?;
    writeln!(
        out,
        "   last call begun at Bedrock {:.0} ms after the command; in the {} s after that: {} (OpenAI: {})",
        switch.last_call.as_secs_f64() * 1_000.0,
        WATCHED.as_secs(),
        switch.bedrock_after,
        switch.openai_after,
    )?;
    scene.clear_switch().await?;
    writeln!(out, "   cleared again")?;

    scene.until_ended(jobs.len()).await?;
    writeln!(out, "\n6. Every job has ended: {}", scene.progress().await?)?;
    let (example, why) = scene.one_story().await?;
    writeln!(out, "\n7. landbridge jobs why {example}")?;
    for line in why {
        writeln!(out, "   {line}")?;
    }
    writeln!(out, "\n8. The report, from the ledger")?;
    let report = report::of(&scene.records().await?);
    write!(out, "{report}")?;
    let lost = jobs.len() - report.ended();
    scene.close().await?;
    writeln!(
        out,
        "\n{} jobs submitted, {} ended, {lost} lost, in {:.0} s.",
        jobs.len(),
        report.ended(),
        began.elapsed().as_secs_f64()
    )?;
    writeln!(out, "Next: landbridge init, put your keys in the environment, landbridge doctor, landbridge run.")?;
    if lost == 0 { Ok(Exit::Success) } else { Err(Failure::new(format!("{lost} jobs did not end"))) }
}

/// Every other job, and the rest: each half has some of every pipeline.
fn halves(jobs: &[String]) -> (Vec<String>, Vec<String>) {
    let (even, odd): (Vec<_>, Vec<_>) = jobs.iter().cloned().enumerate().partition(|(n, _)| n % 2 == 0);
    let bare = |half: Vec<(usize, String)>| half.into_iter().map(|(_, job)| job).collect();
    (bare(even), bare(odd))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
