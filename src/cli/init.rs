//! `landbridge init`: a folder to start from.
//!
//! Invariant: nothing that exists is touched; either all files are new or none is written.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    exit::{Exit, Failure, Result},
    print::Console,
};

/// The starter files by path, as they are written.
pub const STARTER: &[(&str, &str)] = &[
    ("config/landbridge.yaml", include_str!("starter/landbridge.yaml")),
    ("config/flags.yaml", include_str!("starter/flags.yaml")),
    ("pipelines/example.yaml", include_str!("starter/example.yaml")),
];

/// Where the schema of specs is written, for editors.
pub const SCHEMA: &str = "config/pipeline.schema.json";

/// Where to start
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Writes config/landbridge.yaml, config/flags.yaml, pipelines/example.yaml, and the schema of
specs for editors. Files that exist are never overwritten.

Examples:
  landbridge init
  landbridge init my-project

Exit codes: 0 written; 1 a file exists already, or cannot be written")]
pub struct InitArgs {
    /// The folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    pub folder: PathBuf,
}

/// Runs the command.
pub fn execute(args: &InitArgs, console: &mut Console<'_>) -> Result {
    let schema = format!("{:#}\n", crate::spec::schema::pipeline_schema());
    let files = || STARTER.iter().copied().chain([(SCHEMA, schema.as_str())]);
    let existing: Vec<String> = files()
        .map(|(path, _)| args.folder.join(path))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !existing.is_empty() {
        return Err(Failure::new(format!(
            "{} exists already, and nothing was written: choose another folder, or move it away",
            existing.join(", ")
        )));
    }
    for (path, text) in files() {
        let path = args.folder.join(path);
        write(&path, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        writeln!(console.out, "wrote {}", path.display())?;
    }
    let there = if args.folder == Path::new(".") { String::new() } else { format!("cd {} && ", args.folder.display()) };
    write!(
        console.out,
        "\nnext:\n  {there}landbridge check           # the specs are valid, their tests pass\n  {there}landbridge run --simulate  # a daemon on simulated providers: nothing is spent\n"
    )?;
    Ok(Exit::Success)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
