//! `landbridge run`: the arguments of the daemon.

use clap::Args;

/// Run the daemon
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Specs are watched: save one, and it routes within half a second. SIGHUP reloads at once;
SIGTERM and SIGINT let calls in flight finish (`drain` in the settings), a second one does not.

Examples:
  landbridge run
  landbridge run --simulate
  landbridge --config /etc/landbridge/landbridge.yaml run

Exit codes: 0 after a drain; 78 bad settings; 1 anything else that failed")]
pub struct RunArgs {
    /// Put built-in simulated OpenAI and Bedrock endpoints behind the real clients: nothing is spent
    #[arg(long)]
    pub simulate: bool,
}
