//! `landbridge completions`: a script that completes landbridge's commands in a shell.

use clap::{Args, Command};

use super::{
    exit::{Exit, Result},
    print::Console,
};

/// For which shell
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  landbridge completions bash > /etc/bash_completion.d/landbridge
  landbridge completions zsh > \"${fpath[1]}/_landbridge\"
  landbridge completions fish > ~/.config/fish/completions/landbridge.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Runs the command.
pub fn execute(args: &CompletionsArgs, program: &mut Command, console: &mut Console<'_>) -> Result {
    // Written to memory first: the generator panics when its output goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, program, "landbridge", &mut script);
    console.out.write_all(&script)?;
    Ok(Exit::Success)
}
