//! The command line: arguments, commands, exit codes.
//!
//! Invariant: a command returns how it ended and prints through its console; only [`run`] turns that into an exit code.
//! Commands that ask a daemon do so over HTTP alone ([`connection`]).

pub mod ask;
pub mod audit;
pub mod completions;
pub mod config;
pub mod connection;
pub mod exit;
pub mod flag;
pub mod iam_policy;
pub mod init;
pub mod jobs;
pub mod key;
pub mod lever;
pub mod local;
pub mod models;
pub mod offline;
pub mod patience;
pub mod plan;
pub mod print;
pub mod progress;
pub mod quota;
pub mod rehearse;
pub mod reload;
pub mod report;
pub mod results;
pub mod rollback;
pub mod rollout;
pub mod schema;
pub mod simulate;
pub mod store;
pub mod submit;

pub mod check;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod run;

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    future::Future,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use self::{
    exit::{Exit, Failure, Result},
    print::Console,
};

/// Carries queued prompt jobs from OpenAI to Amazon Bedrock, as gradually as you want, and back in a second
#[derive(Debug, Parser)]
#[command(
    name = "landbridge",
    version,
    propagate_version = false,
    after_help = "\
Exit codes: 0 all well; 1 something failed; 3 jobs ended without a result (submit --wait, jobs wait);
64 wrong usage; 69 daemon not reachable; 78 bad settings.
LANDBRIDGE_KEY holds the key for daemons that want one.

Start with `landbridge init`. `landbridge COMMAND --help` has examples for each command."
)]
pub struct Cli {
    /// The settings file
    #[arg(
        long,
        global = true,
        env = "LANDBRIDGE_CONFIG",
        value_name = "FILE",
        default_value = "config/landbridge.yaml"
    )]
    pub config: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a starter folder
    Init(init::InitArgs),
    /// Check credentials, regions, quotas and limits of this machine
    Doctor(doctor::DoctorArgs),
    /// Run the daemon
    Run(Box<run::RunArgs>),
    /// Show the whole story in a minute on simulated endpoints
    Demo(demo::DemoArgs),
    /// Validate specs and settings, and run the tests that specs carry
    Check(check::CheckArgs),
    /// Say where a job would go, and each reason for it
    Explain(explain::ExplainArgs),
    /// Say what specs at hand would change for the jobs that a daemon has recorded
    Plan(plan::PlanArgs),
    /// Put jobs into the queue
    Submit(submit::SubmitArgs),
    /// See and steer the queue
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Set, clear and list flags: kill switches, pauses
    #[command(subcommand)]
    Flag(flag::FlagCommand),
    /// Have a daemon read its files again, now
    Reload(reload::ReloadArgs),
    /// See and set what providers grant
    #[command(subcommand)]
    Quota(quota::QuotaCommand),
    /// Send everything back to the baseline provider
    Rollback(rollback::RollbackArgs),
    /// Undo a rollback
    Resume(rollback::ResumeArgs),
    /// Try a rollout's gates on made-up jobs with a regression
    Rehearse(Box<rehearse::RehearseArgs>),
    /// See rollouts, and move those with steps
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Make, list and revoke keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// See what was in force, compare, and go back
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show who did what, when, and why
    Audit(audit::AuditArgs),
    /// Report response times, errors, cost and savings, from the ledger
    Report(report::ReportArgs),
    /// Ask a model one prompt, and see the answer come, its time and its cost
    Ask(ask::AskArgs),
    /// Back up a store, or move it to PostgreSQL
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// List models: prices, limits, lifecycles, uses, substitutes
    Models(models::ModelsArgs),
    /// Print the least that AWS must allow for the specs at hand
    IamPolicy(iam_policy::IamPolicyArgs),
    /// Print the JSON schema of pipeline specs
    Schema(schema::SchemaArgs),
    /// Serve simulated OpenAI and Bedrock endpoints on loopback
    Simulate(Box<simulate::SimulateArgs>),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
}

/// The program: reads the arguments, runs the command, says how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let progress = err.is_terminal();
    let exit = run_with(arguments, &mut Console { out: &mut out, err: &mut err, progress });
    exit.into()
}

/// The same, writing to a given console.
pub fn run_with(arguments: impl IntoIterator<Item = OsString>, console: &mut Console<'_>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let (exit, stream) = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (Exit::Success, &mut console.out),
                _ => (Exit::Usage, &mut console.err),
            };
            // A reader that went away needs no help.
            let _ = write!(stream, "{}", error.render());
            return exit;
        }
    };
    match cli.execute(console).and_then(|exit| Ok(console.out.flush().map(|()| exit)?)) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(console.err, "landbridge: {}", print::printable_lines(&failure.message));
            }
            failure.exit
        }
    }
}

impl Cli {
    fn execute(&self, console: &mut Console<'_>) -> Result {
        let config = &self.config;
        match &self.command {
            Command::Init(args) => init::execute(args, console),
            Command::Doctor(args) => wait_for(doctor::execute(args, config, console)),
            Command::Run(args) => serve(run::execute(args, config)),
            Command::Demo(args) => serve(demo::execute(args, config, console)),
            Command::Check(args) => check::execute(args, config, console),
            Command::Explain(args) => explain::execute(args, config, console),
            Command::Plan(args) => wait_for(plan::execute(args, config, console)),
            Command::Schema(args) => schema::execute(args, console),
            Command::Simulate(args) => serve(simulate::execute(args, config, console)),
            Command::Submit(args) => wait_for(submit::execute(args, config, console)),
            Command::Jobs(command) => wait_for(jobs::execute(command, config, console)),
            Command::Flag(command) => wait_for(flag::execute(command, config, console)),
            Command::Quota(command) => wait_for(quota::execute(command, config, console)),
            Command::Reload(args) => wait_for(reload::execute(args, config, console)),
            Command::Rollback(args) => wait_for(rollback::execute(args, config, console)),
            Command::Rollout(command) => wait_for(rollout::execute(command, config, console)),
            Command::Resume(args) => wait_for(rollback::execute_resume(args, config, console)),
            Command::Config(command) => wait_for(config::execute(command, config, console)),
            Command::Rehearse(args) => rehearse::execute(args, config, console),
            Command::Key(command) => wait_for(key::execute(command, config, console)),
            Command::Audit(args) => wait_for(audit::execute(args, config, console)),
            Command::Report(args) => wait_for(report::execute(args, config, console)),
            Command::Ask(args) => serve(ask::execute(args, config, console)),
            Command::Store(command) => serve(store::execute(command, config, console)),
            Command::Models(args) => wait_for(models::execute(args, config, console)),
            Command::IamPolicy(args) => iam_policy::execute(args, config, console),
            Command::Completions(args) => completions::execute(args, &mut Self::command(), console),
        }
    }
}

/// Runs a daemon on a runtime of all processors.
fn serve(command: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}

/// Runs a client command on a runtime of its own.
fn wait_for(command: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(command);
    // A read of standard input may still be blocked; nobody waits for it any more.
    runtime.shutdown_background();
    ended
}
