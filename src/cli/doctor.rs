//! `landbridge doctor`: its arguments.

use clap::Args;

use super::print::Format;

/// Check credentials, regions, quotas and limits of this machine
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Makes one call of one token to each target (which is billed), unless --no-calls is given.

Examples:
  landbridge doctor
  landbridge doctor --no-calls --format json

Exit codes: 0 all well; 1 problems; 78 bad settings")]
pub struct DoctorArgs {
    /// Call no provider
    #[arg(long)]
    pub no_calls: bool,
    /// json: {\"checks\": [{\"check\", \"ok\", \"message\"}]}
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
