//! How a command ends: its exit code and what it says when it fails. Scripts rely on the numbers.

use std::{fmt, io};

/// The program's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Success = 0,
    /// Something that has no code of its own failed.
    Failed = 1,
    /// `plan --detailed-exitcode`: something would change.
    Changed = 2,
    /// `submit --wait` or `jobs wait`: the jobs ended, but not all of them with a result.
    JobsFailed = 3,
    /// The command line is wrong.
    Usage = 64,
    /// The daemon cannot be reached.
    Unreachable = 69,
    /// The settings are wrong.
    Settings = 78,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed. An empty message is not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure without a code of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// Arguments that do not go together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// Settings that cannot be used.
    pub fn settings(message: impl Into<String>) -> Self {
        Self { exit: Exit::Settings, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Failures to print. A reader that went away (`landbridge jobs list | head`) ends the command without a word.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self { exit: Exit::Success, message: String::new() }
        } else {
            Self::new(format!("cannot write the output: {error}"))
        }
    }
}

/// What a command gives.
pub type Result<T = Exit, E = Failure> = std::result::Result<T, E>;
