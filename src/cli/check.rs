//! `landbridge check`: every problem of specs and settings, without a daemon.

use std::path::{Path, PathBuf};

use super::{
    exit::{Exit, Result},
    offline,
    print::Console,
};
use crate::snapshot::{FileReport, report};

/// Validate specs and settings, and run the tests that specs carry
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Reports every problem of every file, with its line and what to write instead. Needs no daemon
and calls no provider. Without PATH: the settings and all that they name.

Examples:
  landbridge check
  landbridge check pipelines/ticket-triage.yaml --strict
  landbridge check --format sarif > landbridge.sarif

Exit codes: 0 no problems; 1 problems; 78 bad settings")]
pub struct CheckArgs {
    /// Spec files or folders; the settings' `pipelines` folder when none is given
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Warnings are problems too
    #[arg(long)]
    pub strict: bool,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Human)]
    pub format: ReportFormat,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// For people: the source line under a caret.
    Human,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code review tools.
    Sarif,
}

/// Checks; exit code 1 when there are problems.
///
/// # Errors
/// [`super::exit::Failure`] for wrong settings and paths that cannot be read.
pub fn execute(args: &CheckArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let offline = offline::load(config, &args.paths)?;
    let mut files = offline.snapshot.files.clone();
    if !offline.warnings.is_empty() {
        files.push(FileReport { file: config.display().to_string(), valid: true, diagnostics: offline.warnings });
    }
    let problems = files.iter().flat_map(|file| &file.diagnostics).filter(|problem| problem.is_error()).count();
    let warnings = files.iter().flat_map(|file| &file.diagnostics).count() - problems;
    let broken = files.iter().any(|file| !file.valid) || problems > 0;
    match args.format {
        ReportFormat::Human => {
            for diagnostic in files.iter().flat_map(|file| &file.diagnostics) {
                writeln!(console.out, "{diagnostic}\n")?;
            }
            let tests: usize = offline.snapshot.pipelines.values().map(|loaded| loaded.pipeline.tests.len()).sum();
            writeln!(
                console.out,
                "{} file(s), {} pipeline(s), {tests} in-spec test(s) passed: {problems} error(s), {warnings} warning(s)",
                files.len(),
                offline.snapshot.pipelines.len(),
            )?;
        }
        ReportFormat::Json => console.json(&report::json(&files))?,
        ReportFormat::Sarif => console.json(&report::sarif(&files))?,
    }
    Ok(if broken || (args.strict && warnings > 0) { Exit::Failed } else { Exit::Success })
}
