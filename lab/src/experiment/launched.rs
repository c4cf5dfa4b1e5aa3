//! A node in a process of its own, for what can only be measured from outside: memory, and being killed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A process that serves; killed when dropped.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    /// Where clients connect: `http://host:port/v1`.
    pub url: String,
}

impl Launched {
    /// Launches this very binary on `topology`, and waits until it serves. `sets` go over the file's keys.
    pub async fn start(topology: &Path, sets: &[String]) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let mut command = Command::new(binary);
        command.arg("launch").arg(topology).env("RUST_LOG", "info").kill_on_drop(true);
        for set in sets {
            command.args(["--set", set]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot launch a node")?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        while let Some(line) = lines.next_line().await? {
            if let Some((_, url)) = line.split_once("gateway=").filter(|_| line.contains("serving")) {
                let url = url.trim().to_owned();
                // Read to the end, so that the node never waits for a reader.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { child, url });
            }
            said.push(line);
        }
        bail!("the node ended before it served: {}", said.join("; "))
    }

    /// Gives an order to the node, whose run is in `run_dir`, by this binary's own command line; what it printed.
    pub async fn operate(&self, run_dir: &Path, order: &[&str]) -> anyhow::Result<String> {
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let mut command = Command::new(binary);
        command.args(order).arg("--run").arg(run_dir);
        let output = command.output().await.context("cannot run this binary")?;
        ensure!(
            output.status.success(),
            "`{}` failed: {}",
            order.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What Linux tells of the process.
    pub fn proc(&self) -> anyhow::Result<PathBuf> {
        let id = self.child.id().context("the node has ended")?;
        Ok(PathBuf::from(format!("/proc/{id}")))
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(self.proc()?.join("status"))
            .context("cannot read the node's memory: this needs Linux")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS in its status")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// `kill -9`, and waits for its end.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the node")
    }
}
