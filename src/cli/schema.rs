//! `landbridge schema`: the JSON schema of pipeline specs, for editors.

use clap::Args;

use super::{
    exit::{Exit, Result},
    print::Console,
};

/// Print the JSON schema of pipeline specs
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Editors complete and check a spec whose first line names the schema:
  # yaml-language-server: $schema=../config/pipeline.schema.json

Example:
  landbridge schema > config/pipeline.schema.json")]
pub struct SchemaArgs {}

/// Prints the schema.
///
/// # Errors
/// When the output cannot be written.
pub fn execute(_args: &SchemaArgs, console: &mut Console<'_>) -> Result {
    console.json(&crate::spec::schema::pipeline_schema())?;
    Ok(Exit::Success)
}
