//! The `landbridge` program: exit codes only; everything else is in the library.

fn main() {}
