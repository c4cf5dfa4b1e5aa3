//! Tests that stand in for those of the package: run under the name of one of its binaries, some of them hang, end the
//! process or fail. Under this binary's own name they pass.

use std::{env, path::Path};

/// Whether this process was started as this binary of the package.
fn is_played_as(binary: &str) -> bool {
    env::args_os().next().is_some_and(|path| Path::new(&path).file_name().is_some_and(|name| name == binary))
}

mod cuda {
    use super::is_played_as;

    #[test]
    fn a_passes() {}

    #[test]
    fn b_ends_the_process() {
        if is_played_as("transformer") {
            std::process::exit(3);
        }
    }

    #[test]
    fn c_hangs() {
        while is_played_as("losses") {
            std::thread::park();
        }
    }

    #[test]
    fn d_fails() {
        assert!(!is_played_as("transformer"), "it fails as it should");
    }

    #[test]
    fn e_passes() {}
}
