//! `landbridge rollout finish`: the spec without a rollout that has come to its end, as a diff.
//!
//! Invariant: nothing is written; what is printed was checked as `check` would, and `patch` applies it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    cli::{
        exit::{Exit, Failure, Result},
        offline,
        print::Console,
    },
    money::BasisPoints,
    names::{PipelineName, RolloutName},
    spec::{Course, collapse::collapse},
};

/// Which rollout to finish
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Prints a unified diff that sends everybody to the candidate, and removes the rollout and a
baseline that nothing else leads to. Comments stay. Nothing is written.

Example:
  landbridge rollout finish ticket-triage/to-bedrock | patch -p1

Exit codes: 0 printed; 1 the rollout is not at 100 %, or the spec cannot be edited for sure")]
pub struct FinishArgs {
    /// The rollout
    #[arg(value_name = "PIPELINE/ROLLOUT")]
    pub rollout: String,
    /// It has steps, and `rollout show` says that it is done
    #[arg(long)]
    pub done: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when there is no such rollout, it is not at its end, or the result would not be a good spec.
pub fn execute(args: &FinishArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let names = args
        .rollout
        .split_once('/')
        .and_then(|(pipeline, rollout)| Some((PipelineName::new(pipeline).ok()?, RolloutName::new(rollout).ok()?)));
    let Some((pipeline, name)) = names else {
        return Err(Failure::usage(format!(
            "{:?} is not PIPELINE/ROLLOUT, such as ticket-triage/to-bedrock",
            args.rollout
        )));
    };
    let offline = offline::load(config, &[])?;
    let loaded = offline
        .snapshot
        .pipeline(&pipeline)
        .ok_or_else(|| Failure::new(offline.snapshot.explain_missing(&pipeline)))?;
    let rollout = loaded.pipeline.rollouts.iter().find(|rollout| rollout.name == name).ok_or_else(|| {
        let known: Vec<String> = loaded.pipeline.rollouts.iter().map(|rollout| format!("`{}`", rollout.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Failure::new(format!("`{pipeline}` has no rollout `{name}`; it has {known}"))
    })?;
    match rollout.course {
        Course::Percent(BasisPoints::ALL) => {}
        Course::Percent(percent) => {
            return Err(Failure::new(format!("rollout `{name}` is at {percent}: finish it when it has held at 100 %")));
        }
        Course::Steps(_) if args.done => {}
        Course::Steps(_) => {
            return Err(Failure::new(format!(
                "rollout `{name}` has steps, and only the daemon knows how far it has come: once `landbridge rollout show \
                 {pipeline}/{name}` says that it is done, say --done"
            )));
        }
    }
    let path = shown(&offline.settings.pipelines.join(&loaded.file));
    let collapsed = collapse(&path, &loaded.text, name.as_str()).map_err(Failure::new)?;
    check(&offline, &loaded.file, &collapsed.text, &path)?;
    let diff = similar::TextDiff::from_lines(&*loaded.text, &collapsed.text)
        .unified_diff()
        .header(&format!("a/{path}"), &format!("b/{path}"))
        .to_string();
    write!(console.out, "{diff}")?;
    for target in &collapsed.removed {
        let provider = loaded.pipeline.targets.iter().find(|known| known.name.as_str() == target);
        let provider = provider.map(|target| target.provider.as_str().to_uppercase().replace('-', "_"));
        writeln!(
            console.err,
            "target `{target}` goes too, as nothing else leads to it: FORCE_{}_PROVIDER would hold the jobs of `{pipeline}` then; \
             put it into `fallback` first to keep the way back",
            provider.unwrap_or_default()
        )?;
    }
    Ok(Exit::Success)
}

/// The path from here, where there is one.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path: PathBuf = path.strip_prefix(&here).map_or_else(|_| path.to_owned(), Path::to_owned);
    path.display().to_string().trim_start_matches("./").to_owned()
}

/// Whether the result is a good spec among the others.
fn check(offline: &offline::Offline, file: &str, text: &str, path: &str) -> Result<()> {
    let mut sources = offline.snapshot.sources();
    sources.specs.insert(file.to_owned(), text.as_bytes().to_vec());
    let after = offline::load_sources(&offline.settings, &sources);
    let broken = after.files.iter().find(|report| report.file == file && !report.valid);
    match broken {
        None => Ok(()),
        Some(report) => {
            let problems: Vec<String> =
                report.diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
            Err(Failure::new(format!(
                "without the rollout, {path} would not be a good spec (tests of the spec that expect the baseline?):\n{}",
                problems.join("\n\n")
            )))
        }
    }
}
