//! The `openclaw-rl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    openclaw_runtime::cli::main()
}
