//! The `landbridge` program: exit codes only; everything else is in the library.

fn main() -> std::process::ExitCode {
    landbridge::cli::run(std::env::args_os())
}
