//! One person's node: a process of this binary, in a run's folder of its own. The actor beside it starts it, tells when it
//! has ended by itself, and ends it. It stops when the pipe to its standard input closes, so that it also goes when this
//! process is killed.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use openclaw_model::durable::{self, Access};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::person::Person;
use crate::{
    admin::{self, AdminClient},
    supervisor::{ChildSpec, RunningChild, StartError},
    telemetry::LogFormat,
    topology::Topology,
};

/// Between two looks at a process that starts or ends.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// A node that has not said where it serves by then is given up.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// One that still ends keeps its folder this long at most.
const FOLDER_PATIENCE: Duration = Duration::from_secs(60);
/// A node that does not stop by then is killed: longer than it takes to write down what it has.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How a person's node is started.
pub struct PersonNode {
    /// Whose.
    pub person: Person,
    /// What the house runs.
    pub topology: Arc<Topology>,
    /// Below it lies the folder of each person.
    pub people: PathBuf,
    /// How it logs.
    pub log_format: LogFormat,
    /// Where it serves, while it does.
    pub address: watch::Sender<Option<SocketAddr>>,
}

impl PersonNode {
    /// The child of the supervisor.
    pub fn child(self: Arc<Self>) -> ChildSpec {
        let name = self.person.actor();
        let mut spec = ChildSpec::new(name, "person", move |supervisor: ActorCell| {
            let node = self.clone();
            async move {
                let started = node.start().await.map_err(|error| StartError::from(format!("{error:#}")))?;
                let (actor, task) =
                    Actor::spawn_linked(None, PersonActor, (node, started), supervisor).await?;
                Ok(RunningChild { cell: actor.get_cell(), task })
            }
        });
        spec.starts_down = true;
        spec.shutdown_timeout = STOP_PATIENCE + Duration::from_secs(10);
        spec
    }

    async fn start(&self) -> anyhow::Result<Started> {
        let (name, dir) = (self.person.folder(), self.person.dir(&self.people));
        // One that was ended by a kill of the house writes down what it has.
        let free = async {
            while openclaw_journal::is_in_use(&dir) || admin::is_live(&dir).unwrap_or(false) {
                sleep(LOOK_PERIOD).await;
            }
        };
        let taken = || format!("another process has {}", dir.display());
        timeout(FOLDER_PATIENCE, free).await.with_context(taken)?;
        // No person's folder is called so.
        let file = self.people.join(format!("{name}@.toml"));
        let text = self.topology.of_person(name, dir.clone()).to_toml();
        durable::write(&file, text.as_bytes(), Access::Owner)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let log = self.people.join(format!("{name}@.log"));
        let stderr = anew(&log).with_context(|| format!("cannot write {}", log.display()))?;
        // This program, also when another one has been put in its place.
        let mut process = Command::new("/proc/self/exe")
            .arg0("openclaw-rl")
            .arg("launch")
            .arg(&file)
            .args(["--until-input-ends", "--log-format", self.log_format.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            // A Ctrl-C is for the house, which then ends it in its turn.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process")?;
        // A wait would close it.
        let input = process.stdin.take();
        let address = tokio::select! {
            ended = process.wait() => bail!("{}; {} says: {}", how(&ended?), log.display(), last_line(&log)),
            address = timeout(START_PATIENCE, serving(&dir)) => {
                address.with_context(|| format!("it does not serve after {} s", START_PATIENCE.as_secs()))?
            }
        };
        self.address.send_replace(Some(address));
        Ok(Started { process, input })
    }
}

/// A process that serves, until its input is closed.
struct Started {
    process: Child,
    input: Option<ChildStdin>,
}

/// Where the node in this folder serves, once it does.
async fn serving(dir: &Path) -> SocketAddr {
    loop {
        if let Ok(client) = AdminClient::connect(dir)
            && let Ok(status) = client.status().await
            && let Some(address) = status.gateway.as_deref().and_then(address_of)
        {
            return address;
        }
        sleep(LOOK_PERIOD).await;
    }
}

fn address_of(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("http://")?.strip_suffix("/v1")?.parse().ok()
}

/// An empty file; the one before it is kept beside it.
fn anew(log: &Path) -> io::Result<File> {
    match fs::rename(log, log.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create(log)
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned()
}

fn how(status: &ExitStatus) -> String {
    format!("its process ended: {status}")
}

/// The process, as its actor has it.
struct Process {
    stop: Option<oneshot::Sender<()>>,
    /// Waits for its end. Dropped with the actor, as a kill drops it, it kills the process.
    waiting: JoinHandle<()>,
    address: watch::Sender<Option<SocketAddr>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.address.send_replace(None);
        self.waiting.abort();
    }
}

struct PersonActor;

impl Actor for PersonActor {
    /// The process has ended by itself.
    type Msg = String;
    type State = Process;
    type Arguments = (Arc<PersonNode>, Started);

    async fn pre_start(
        &self,
        myself: ActorRef<String>,
        (node, Started { mut process, input }): (Arc<PersonNode>, Started),
    ) -> Result<Process, ActorProcessingErr> {
        let (stop, told) = oneshot::channel();
        let waiting = tokio::spawn(async move {
            tokio::select! {
                // An error means that nobody can stop it in order any more.
                _ = told => {
                    drop(input);
                    if timeout(STOP_PATIENCE, process.wait()).await.is_err() {
                        tracing::warn!("a person's node did not stop in time, and is killed");
                        // An error means that it has ended in between.
                        let _ = process.kill().await;
                    }
                }
                ended = process.wait() => {
                    let how = ended.as_ref().map_or_else(ToString::to_string, how);
                    // An error means that the actor is ending, too.
                    let _ = myself.cast(how);
                }
            }
        });
        Ok(Process { stop: Some(stop), waiting, address: node.address.clone() })
    }

    async fn handle(
        &self,
        _: ActorRef<String>,
        ended: String,
        _: &mut Process,
    ) -> Result<(), ActorProcessingErr> {
        Err(ended.into())
    }

    async fn post_stop(&self, _: ActorRef<String>, process: &mut Process) -> Result<(), ActorProcessingErr> {
        process.address.send_replace(None);
        if let Some(stop) = process.stop.take() {
            // An error means that it has ended.
            let _ = stop.send(());
        }
        (&mut process.waiting).await.map_err(Into::into)
    }
}
