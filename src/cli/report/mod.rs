//! `landbridge report`: what the migration came to, as a table, JSON, Markdown or a page with charts.
//!
//! Invariant: the figures are the daemon's; this only lays them out, and says nothing that they do not.

mod chart;
mod html;
pub(super) mod markdown;
pub(super) mod sheet;

use std::{path::Path, time::Duration};

use clap::Args;

use super::{
    connection::{Connection, Daemon},
    exit::{Exit, Result},
    print::{Console, Table},
};
use sheet::sheets;

/// A ledger of many millions of calls takes this long.
const PATIENCE: Duration = Duration::from_mins(10);

/// What to report
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Figures are of calls that ended in the time asked about. Percentiles are exact to 1 %.
Availability leaves out throttles, and requests that were refused for what they are.
Savings compare what answers cost with the baseline's average cost in the ledger
(list prices where it has too few answers, and then says so).

Examples:
  landbridge report
  landbridge report --since 30d --by label.team
  landbridge report --format html > report.html
  landbridge report --since 24h --format json | jq .savings")]
pub struct ReportArgs {
    /// From then on: a span such as 7d, or a time in RFC 3339
    #[arg(long, value_name = "SPAN|TIME", default_value = "7d", value_parser = super::audit::parse_since)]
    pub since: crate::clock::Timestamp,
    /// Also by the values of a label of the pipelines
    #[arg(long, value_name = "label.NAME")]
    pub by: Option<String>,
    /// The form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: ReportForm,
    /// The daemon
    #[command(flatten)]
    pub connection: Connection,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ReportForm {
    /// Tables for a terminal
    #[default]
    Table,
    /// One JSON object
    Json,
    /// For a wiki or a pull request
    Markdown,
    /// One page with charts that needs nothing else
    Html,
}

/// Runs the command.
pub async fn execute(args: &ReportArgs, config: &Path, console: &mut Console<'_>) -> Result {
    let daemon = Daemon::new(&args.connection, config)?;
    let mut request = daemon.get(&["v1", "ops", "report"]).query("since", &args.since.to_string()).patient(PATIENCE);
    if let Some(by) = &args.by {
        request = request.query("by", by);
    }
    let report = request.send().await?;
    match args.format {
        ReportForm::Json => console.json(&report)?,
        ReportForm::Markdown => write!(console.out, "{}", markdown::page(&report, args.by.as_deref()))?,
        ReportForm::Html => write!(console.out, "{}", html::page(&report, args.by.as_deref()))?,
        ReportForm::Table => {
            writeln!(console.out, "{}", sheet::span(&report))?;
            for sheet in sheets(&report, args.by.as_deref()) {
                let header: Vec<String> = sheet.header.iter().map(|title| title.to_uppercase()).collect();
                let mut table = Table::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
                for row in sheet.rows {
                    table.row(row);
                }
                write!(console.out, "\n{}\n{table}", sheet.title)?;
            }
            for note in sheet::notes(&report) {
                writeln!(console.err, "{note}")?;
            }
        }
    }
    Ok(Exit::Success)
}
