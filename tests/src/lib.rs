//! What the end-to-end tests share: the binary they run, and the node it becomes.

mod browser;
pub mod dashboard;
mod hosted;
mod ledger;
mod node;
mod prometheus;
mod terminal;

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use tokio::time::{sleep, timeout};

pub use browser::Browser;
pub use hosted::{HostedNode, stream};
pub use ledger::Ledger;
pub use node::{Launch, Node};
pub use prometheus::{Prometheus, has_prometheus, promtool};
pub use terminal::Terminal;

/// What a test waits for comes long before, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`; an error when it does not within a minute.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) -> Result<(), tokio::time::error::Elapsed> {
    timeout(PATIENCE, async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The `openclaw-rl` binary of this tree: the one named by `OPENCLAW_BIN`, or one that is built now, in the
/// profile of the tests.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("OPENCLAW_BIN").map_or_else(build, PathBuf::from)).clone()
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let profile_dir = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // A test beside the binary gives both the features of `cargo test`: dependencies are built once.
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace"]);
    build.args(["--bin", "openclaw-rl", "--test", "launched"]);
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo can be run").success(), "the binary could not be built");
    profile_dir.join("openclaw-rl")
}
