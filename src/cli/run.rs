//! `landbridge run`: the daemon in the foreground, until SIGTERM or SIGINT.

use std::path::Path;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::{
    exit::{Exit, Failure, Result},
    simulate::CatalogOfOptions,
};
use crate::{
    daemon::{Daemon, DaemonError, Options},
    settings::{self, Override},
    simulate::SimulateOptions,
};

/// Run the daemon
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Specs are watched: save one, and it routes within half a second. SIGHUP reloads at once;
SIGTERM and SIGINT let calls in flight finish (`drain` in the settings), a second one does not.
RUST_LOG chooses what is logged.

Examples:
  landbridge run
  landbridge run --simulate --fault bedrock=throttled,probability=0.1
  landbridge --config /etc/landbridge/landbridge.yaml run --log json

Exit codes: 0 after a drain; 78 bad settings; 1 anything else that failed")]
pub struct RunArgs {
    /// Put simulated OpenAI and Bedrock endpoints behind the real clients: no call leaves this machine
    #[arg(long)]
    pub simulate: bool,
    /// How the simulated endpoints behave
    #[command(flatten, next_help_heading = "Simulated endpoints (with --simulate)")]
    pub simulated: SimulateOptions,
    /// Where to listen, instead of `listen` in the settings
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<std::net::SocketAddr>,
    /// The form of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Failure`] with exit code 78 for wrong settings, 1 for anything else.
pub async fn execute(args: &RunArgs, config: &Path) -> Result {
    start_log(args.log);
    let options = Options {
        config: config.to_owned(),
        overrides: args
            .listen
            .map(|address| Override {
                option: "--listen".to_owned(),
                path: "listen".to_owned(),
                value: address.to_string(),
            })
            .into_iter()
            .collect(),
        environment: settings::environment(),
        simulate: args.simulate.then(|| args.simulated.clone().with_catalog(config)),
    };
    let daemon = Daemon::start(options).await.map_err(failure)?;
    daemon.run().await.map_err(failure)?;
    Ok(Exit::Success)
}

/// A daemon's failure as a command's.
pub(super) fn failure(error: DaemonError) -> Failure {
    let message = error.to_string();
    match error {
        DaemonError::Settings(_) => Failure::settings(message),
        DaemonError::Store(_) | DaemonError::Listen { .. } | DaemonError::Other(_) => Failure::new(message),
    }
}

/// Logs to standard error; `RUST_LOG` chooses what, `info` by default.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::registry().with(filter);
    // A second start in one process keeps the first log.
    let _already_started = match format {
        LogFormat::Text => log.with(fmt::layer().with_writer(std::io::stderr).with_target(false)).try_init(),
        LogFormat::Json => log.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}
