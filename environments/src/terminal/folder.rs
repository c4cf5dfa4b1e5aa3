//! A task folder in the one form that the rest of the runtime knows, whether it was written for Harbor or for
//! the older Terminal-Bench.
use super::keys::KeyError;
use super::{harbor, task_yaml};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file of a task that is read as text, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A task: what the agent is told, where it works and how it is checked. Times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFolder {
    /// `org/name` if the task says so, else the name of the folder.
    pub id: String,
    /// The id without a variant's ending: variants of one task belong in one split.
    pub group: String,
    /// Which form it was written in.
    pub form: Form,
    /// What the agent is told; empty for a task of several steps, which have their own.
    pub instruction: String,
    /// Free keys: author, difficulty, category, tags.
    pub metadata: Map<String, Value>,
    /// How long and as whom the agent works.
    pub agent: AgentSpec,
    /// How the result is checked.
    pub verifier: VerifierSpec,
    /// Where the agent works.
    pub environment: EnvironmentSpec,
    /// Variables of the reference solution.
    pub solution_env: BTreeMap<String, String>,
    /// Steps of a task that has several.
    pub steps: Vec<StepSpec>,
    /// How the rewards of the steps become one.
    pub step_rewards: StepRewards,
    /// What is carried from the agent's box to a separate verifier: paths or tables, as written.
    pub artifacts: Vec<Value>,
    /// Keys that were not understood and had no effect.
    pub unknown_keys: Vec<String>,
}

/// The form of a task folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `task.toml` of schema 1.`minor`.
    Harbor {
        /// 0 to 4.
        minor: u8,
    },
    /// `task.yaml`.
    TerminalBench,
}

/// The agent's side of a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentSpec {
    /// `None`: the runner's own limit.
    pub timeout_secs: Option<f64>,
    /// User name or number in the box.
    pub user: Option<String>,
    /// `None`: that of the environment.
    pub network: Option<Network>,
}

/// The verifier's side of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifierSpec {
    /// Time for the whole check.
    pub timeout_secs: f64,
    /// The script that checks, relative to the folder.
    pub script: PathBuf,
    /// Its variables; values may hold `${NAME:-default}`, see [`expand`].
    pub env: BTreeMap<String, String>,
    /// User name or number.
    pub user: Option<String>,
    /// Whether it runs in a box of its own, which sees declared artifacts alone.
    pub separate: bool,
    /// That box, if the task describes one.
    pub environment: Map<String, Value>,
    /// What is run in the agent's box before the check.
    pub collect: Vec<Collect>,
    /// Who reads its output.
    pub report: Report,
    /// Weight of each test; empty: all count the same.
    pub weights: BTreeMap<String, f64>,
}

/// A command that collects what a separate verifier needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Collect {
    /// Run by a shell.
    pub command: String,
    /// The service of a compose file; `None`: the agent's own.
    pub service: Option<String>,
    /// Its limit.
    pub timeout_secs: Option<f64>,
}

/// How a verifier says what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Reward files, and per-test results beside them.
    RewardFiles,
    /// The summary of pytest in its output.
    Pytest,
    /// A parser of another benchmark, by name; the task can be read but not graded.
    Foreign(String),
}

/// The box.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvironmentSpec {
    /// Time to build it.
    pub build_timeout_secs: Option<f64>,
    /// A ready image instead of a Dockerfile.
    pub docker_image: Option<String>,
    /// `linux`, `windows`, ... as written.
    pub os: Option<String>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Memory, in MiB.
    pub memory_mb: Option<u64>,
    /// Disk, in MiB.
    pub storage_mb: Option<u64>,
    /// GPUs.
    pub gpus: Option<u64>,
    /// `None`: the task does not say.
    pub network: Option<Network>,
    /// Its variables; see [`expand`].
    pub env: BTreeMap<String, String>,
    /// Where commands start.
    pub workdir: Option<String>,
    /// When the box counts as up.
    pub healthcheck: Option<Healthcheck>,
    /// Tool servers that the agent may call.
    pub mcp_servers: Vec<McpServer>,
    /// Folder of skills in the box.
    pub skills_dir: Option<String>,
}

/// What the box may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// Everything.
    Public,
    /// These hosts alone.
    Allowlist(Vec<String>),
}

/// A command that succeeds once the box is up.
#[derive(Clone, Debug, PartialEq)]
pub struct Healthcheck {
    /// Run by a shell.
    pub command: String,
    /// Between two tries.
    pub interval_secs: Option<f64>,
    /// Of one try.
    pub timeout_secs: Option<f64>,
    /// Before the first try counts.
    pub start_period_secs: Option<f64>,
    /// Failures that are borne.
    pub retries: Option<u64>,
}

/// A tool server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// What the agent calls it.
    pub name: String,
    /// How it is reached.
    pub transport: McpTransport,
}

/// How a tool server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpTransport {
    /// Server-sent events at this address.
    Sse(String),
    /// Streamable HTTP at this address.
    StreamableHttp(String),
    /// A process: the command and its arguments.
    Stdio(String, Vec<String>),
}

/// One step of a task of several.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Its folder in `steps/`.
    pub name: String,
    /// What the agent is told.
    pub instruction: String,
    /// `None`: that of the task.
    pub agent_timeout_secs: Option<f64>,
    /// `None`: that of the task.
    pub verifier_timeout_secs: Option<f64>,
    /// Least reward, by name (`reward` for a bare number), to go on to the next step.
    pub min_reward: BTreeMap<String, f64>,
    /// As for the task.
    pub artifacts: Vec<Value>,
}

/// How the rewards of several steps become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepRewards {
    /// Their mean.
    #[default]
    Mean,
    /// That of the last.
    Final,
}

/// A folder that is no task.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FolderError {
    #[error("{} has neither task.toml nor task.yaml", .0.display())]
    NoTask(PathBuf),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("{file}: {message}")]
    Syntax { file: &'static str, message: String },
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl TaskFolder {
    /// Reads the task in `folder`; `task.toml` goes before `task.yaml`.
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(toml) = read_text(&folder.join("task.toml"))? {
            let mut task = harbor::parse(&name, &toml)?;
            if task.steps.is_empty() {
                task.instruction = required(folder, Path::new("instruction.md"))?;
            }
            for step in &mut task.steps {
                step.instruction =
                    required(folder, &Path::new("steps").join(&step.name).join("instruction.md"))?;
            }
            return Ok(task);
        }
        if let Some(yaml) = read_text(&folder.join("task.yaml"))? {
            let weights = read_text(&folder.join("weights.json"))?;
            return task_yaml::parse(&name, &yaml, weights.as_deref());
        }
        Err(FolderError::NoTask(folder.to_owned()))
    }
}

fn required(folder: &Path, file: &Path) -> Result<String, FolderError> {
    let path = folder.join(file);
    read_text(&path)?.ok_or_else(|| FolderError::Read { path, source: std::io::ErrorKind::NotFound.into() })
}

/// The text of a file, `None` if there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, FolderError> {
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FolderError::TooLong(path.to_owned()));
    }
    Ok(Some(text))
}

/// `id` without the endings of a variant (`__b1`: other context, `__d2`: other difficulty), of which it may have several.
pub fn group_of(id: &str) -> &str {
    let variant = |ending: &str| {
        let number = ending.strip_prefix(['b', 'd'])?;
        (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(())
    };
    match id.rsplit_once("__") {
        Some((group, ending)) if !group.is_empty() && variant(ending).is_some() => group_of(group),
        _ => id,
    }
}

/// `value` with every `${NAME}` and `${NAME:-default}` replaced; the error is a name without value and default.
pub fn expand(value: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        let Some(end) = rest[at..].find('}') else { break };
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..at + end];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        // As in a shell, `:-` also stands in for an empty value.
        let found = lookup(name).filter(|value| default.is_none() || !value.is_empty());
        out.push_str(&found.or(default.map(str::to_owned)).ok_or_else(|| name.to_owned())?);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_share_a_group() {
        assert_eq!(group_of("ask_ubuntu__12__b1"), "ask_ubuntu__12");
        assert_eq!(group_of("ask_ubuntu__12__d10"), "ask_ubuntu__12");
        assert_eq!(group_of("ask_ubuntu__12__b1__d2"), "ask_ubuntu__12");
        assert_eq!(group_of("ask_ubuntu__12"), "ask_ubuntu__12");
        assert_eq!(group_of("a__b"), "a__b");
        assert_eq!(group_of("__b1"), "__b1");
    }

    #[test]
    fn variables_are_expanded_or_named() {
        let lookup = |name: &str| (name == "KEY").then(|| "v".to_owned());
        assert_eq!(expand("a${KEY}b${NO:-d}$KEY", lookup).unwrap(), "avbd$KEY");
        assert_eq!(expand("${NO}", lookup).unwrap_err(), "NO");
        assert_eq!(expand("${KEY", lookup).unwrap(), "${KEY");
        assert_eq!(expand("${NO:-}", lookup).unwrap(), "");
    }
}
