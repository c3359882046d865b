//! `landbridge simulate`: the simulated endpoints alone, for rehearsing with any client.

use std::path::Path;

use super::{
    exit::{Exit, Failure, Result},
    offline,
    print::Console,
};
use crate::simulate::{SimulateOptions, Simulation};

/// Serve simulated OpenAI and Bedrock endpoints on loopback
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Both wire protocols, with latencies, quotas, the real headers and error shapes, and faults. Change
everything at run time by PUT /_simulate/config; see calls at /_simulate/journal and /_simulate/counts.

Examples:
  landbridge simulate --port 4200
  landbridge simulate --bedrock-latency lognormal:median=700ms,p95=2s --fault bedrock=overloaded,probability=0.05
  landbridge simulate --quota openai=requests_per_minute=600")]
pub struct SimulateArgs {
    /// How they behave.
    #[command(flatten)]
    pub options: SimulateOptions,
}

/// Gives simulated endpoints the facts on models that the daemon would have.
pub trait CatalogOfOptions {
    /// The same options with the built-in catalogue under the operator's `catalog.yaml`, where there is one.
    fn with_catalog(self, config: &Path) -> Self;
}

impl CatalogOfOptions for SimulateOptions {
    fn with_catalog(mut self, config: &Path) -> Self {
        self.catalog = offline::catalog(config);
        self
    }
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// [`Failure`] when the port cannot be had.
pub async fn execute(args: &SimulateArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let simulation = Simulation::start(args.options.clone().with_catalog(config))
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    writeln!(console.out, "OpenAI form:   {}", simulation.openai_base_url())?;
    writeln!(console.out, "Bedrock:       {}", simulation.bedrock_endpoint_url())?;
    writeln!(
        console.out,
        "At run time:   {}/_simulate/config, …/journal, …/counts, …/reset",
        simulation.bedrock_endpoint_url()
    )?;
    console.out.flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::new(format!("signals cannot be followed: {error}")))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    simulation.stop().await;
    Ok(Exit::Success)
}
