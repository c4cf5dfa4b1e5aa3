//! Harbor's `task.toml`, schema 1.0 to 1.4, with the keys that older folders still have.
use super::folder::{
    AgentSpec, Collect, EnvironmentSpec, FolderError, Form, Healthcheck, McpServer, McpTransport, Network,
    Report, StepRewards, StepSpec, TaskFolder, VerifierSpec, group_of,
};
use super::keys::{KeyError, Keys};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "task.toml";

/// Newest schema that is known: 1.`MINOR_MAX`.
const MINOR_MAX: u8 = 4;

/// Time for the check when the task does not say, as Harbor has it.
const VERIFIER_TIMEOUT_SECS: f64 = 600.0;

/// Most steps of one task.
const STEPS_MAX: usize = 100;

/// The task of a `task.toml`; instructions are in files beside it. `folder` is the id of a task without a name.
pub fn parse(folder: &str, toml: &str) -> Result<TaskFolder, FolderError> {
    let table: Map<String, Value> = toml::from_str(toml)
        .map_err(|error| FolderError::Syntax { file: FILE, message: error.to_string() })?;
    Ok(task(folder, table)?)
}

fn task(folder: &str, table: Map<String, Value>) -> Result<TaskFolder, KeyError> {
    let mut unknown_keys = Vec::new();
    let mut root = Keys::new(FILE, table, &mut unknown_keys);
    let minor = schema(&mut root)?;
    let _source = root.any("source");
    let step_rewards = match root.text("multi_step_reward_strategy")?.as_deref() {
        None | Some("mean") => StepRewards::Mean,
        Some("final") => StepRewards::Final,
        Some(other) => {
            let fault = format!("is {other:?}, expected mean or final");
            return Err(root.error("multi_step_reward_strategy", fault));
        }
    };
    let artifacts = root.list("artifacts")?;
    let mut metadata = root.object("metadata")?;

    let mut named = root.table("task")?;
    let id = named.text("name")?.unwrap_or_else(|| folder.to_owned());
    for key in ["version", "description", "authors", "keywords"] {
        if let Some(value) = named.any(key) {
            metadata.entry(key).or_insert(value);
        }
    }
    named.finish();

    let agent = agent(root.table("agent")?)?;
    let verifier = verifier(root.table("verifier")?)?;
    let environment = environment(root.table("environment")?)?;
    let mut solution = root.table("solution")?;
    let solution_env = solution.env("env")?;
    solution.finish();
    let steps = steps(&mut root)?;
    root.finish();
    Ok(TaskFolder {
        group: group_of(&id).to_owned(),
        id,
        form: Form::Harbor { minor },
        instruction: String::new(),
        metadata,
        agent,
        verifier,
        environment,
        solution_env,
        steps,
        step_rewards,
        artifacts,
        unknown_keys,
    })
}

/// Folders of the first schema call it `version`.
fn schema(root: &mut Keys<'_>) -> Result<u8, KeyError> {
    let new = root.text_or_number("schema_version")?;
    let old = root.text_or_number("version")?;
    if let (Some(new), Some(old)) = (&new, &old)
        && new != old
    {
        return Err(root.error("version", format!("is {old:?} but `schema_version` is {new:?}")));
    }
    let key = if new.is_some() { "schema_version" } else { "version" };
    let Some(version) = new.or(old) else { return Ok(0) };
    match version.strip_prefix("1.").and_then(|minor| minor.parse().ok()) {
        Some(minor) if minor <= MINOR_MAX => Ok(minor),
        _ => Err(root.error(key, format!("is {version:?}, known are 1.0 to 1.{MINOR_MAX}"))),
    }
}

fn agent(mut keys: Keys<'_>) -> Result<AgentSpec, KeyError> {
    let agent = AgentSpec {
        timeout_secs: keys.secs("timeout_sec")?,
        user: keys.text_or_number("user")?,
        network: network(&mut keys)?,
    };
    keys.finish();
    Ok(agent)
}

fn verifier(mut keys: Keys<'_>) -> Result<VerifierSpec, KeyError> {
    let separate = match keys.text("environment_mode")?.as_deref() {
        None | Some("shared") => false,
        Some("separate") => true,
        Some(other) => {
            return Err(keys.error("environment_mode", format!("is {other:?}, expected shared or separate")));
        }
    };
    let mut collect = Vec::new();
    for (at, item) in keys.list("collect")?.into_iter().enumerate() {
        let mut item = keys.element("collect", at, item)?;
        collect.push(Collect {
            command: required(&mut item, "command")?,
            service: item.text("service")?,
            timeout_secs: item.secs("timeout_sec")?,
        });
        item.finish();
    }
    let verifier = VerifierSpec {
        timeout_secs: keys.secs("timeout_sec")?.unwrap_or(VERIFIER_TIMEOUT_SECS),
        script: PathBuf::from("tests/test.sh"),
        env: keys.env("env")?,
        user: keys.text_or_number("user")?,
        separate,
        environment: keys.object("environment")?,
        collect,
        report: Report::RewardFiles,
        weights: BTreeMap::new(),
    };
    keys.finish();
    Ok(verifier)
}

fn environment(mut keys: Keys<'_>) -> Result<EnvironmentSpec, KeyError> {
    let mut mcp_servers = Vec::new();
    for (at, item) in keys.list("mcp_servers")?.into_iter().enumerate() {
        mcp_servers.push(mcp_server(keys.element("mcp_servers", at, item)?)?);
    }
    let healthcheck =
        if keys.has("healthcheck") { Some(healthcheck(keys.table("healthcheck")?)?) } else { None };
    let environment = EnvironmentSpec {
        build_timeout_secs: keys.secs("build_timeout_sec")?,
        docker_image: keys.text("docker_image")?,
        os: keys.text("os")?,
        cpus: cpus(&mut keys)?,
        memory_mb: mebibytes(&mut keys, "memory_mb", "memory")?,
        storage_mb: mebibytes(&mut keys, "storage_mb", "storage")?,
        gpus: keys.count("gpus")?,
        network: network(&mut keys)?,
        env: keys.env("env")?,
        workdir: keys.text("workdir")?,
        healthcheck,
        mcp_servers,
        skills_dir: keys.text("skills_dir")?,
    };
    keys.finish();
    Ok(environment)
}

fn cpus(keys: &mut Keys<'_>) -> Result<Option<f64>, KeyError> {
    match keys.number("cpus")? {
        Some(cpus) if cpus <= 0.0 || cpus > 1024.0 => {
            Err(keys.error("cpus", format!("is {cpus}, expected more than 0 and at most 1024")))
        }
        cpus => Ok(cpus),
    }
}

/// `network_mode` and `allowed_hosts`, or the older `allow_internet`.
fn network(keys: &mut Keys<'_>) -> Result<Option<Network>, KeyError> {
    let hosts = keys.texts("allowed_hosts")?;
    let mode = match keys.text("network_mode")?.as_deref() {
        None => None,
        Some("no-network") => Some(Network::None),
        Some("public") => Some(Network::Public),
        Some("allowlist") => Some(Network::Allowlist(hosts.clone())),
        Some(other) => {
            let fault = format!("is {other:?}, expected no-network, public or allowlist");
            return Err(keys.error("network_mode", fault));
        }
    };
    if !hosts.is_empty() && !matches!(mode, Some(Network::Allowlist(_))) {
        return Err(keys.error("allowed_hosts", "needs network_mode = \"allowlist\""));
    }
    let allowed = keys.bool("allow_internet")?;
    match (&mode, allowed) {
        (Some(Network::None), Some(true)) | (Some(Network::Public | Network::Allowlist(_)), Some(false)) => {
            Err(keys.error("allow_internet", "contradicts `network_mode`"))
        }
        (None, Some(allowed)) => Ok(Some(if allowed { Network::Public } else { Network::None })),
        _ => Ok(mode),
    }
}

/// A size in MiB, or the older text such as `2G`.
fn mebibytes(keys: &mut Keys<'_>, key: &str, old_key: &str) -> Result<Option<u64>, KeyError> {
    let new = keys.count(key)?;
    let Some(text) = keys.text_or_number(old_key)? else { return Ok(new) };
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: Option<f64> = text[..text.len() - unit.len()].parse().ok();
    let per_mib = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "k" => Some(1.0 / 1024.0),
        "m" => Some(1.0),
        "g" => Some(1024.0),
        "t" => Some(1024.0 * 1024.0),
        _ => None,
    };
    let Some(old) = number.zip(per_mib).map(|(number, per_mib)| (number * per_mib).ceil() as u64) else {
        return Err(keys.error(old_key, format!("is {text:?}, expected a size such as \"2G\"")));
    };
    match new {
        Some(new) if new != old => Err(keys.error(old_key, format!("is {old} MiB but `{key}` is {new}"))),
        _ => Ok(Some(old)),
    }
}

fn healthcheck(mut keys: Keys<'_>) -> Result<Healthcheck, KeyError> {
    let healthcheck = Healthcheck {
        command: required(&mut keys, "command")?,
        interval_secs: keys.secs("interval_sec")?,
        timeout_secs: keys.secs("timeout_sec")?,
        // May be 0, unlike the others.
        start_period_secs: keys.number("start_period_sec")?.filter(|secs| *secs > 0.0),
        retries: keys.count("retries")?,
    };
    keys.finish();
    Ok(healthcheck)
}

fn mcp_server(mut keys: Keys<'_>) -> Result<McpServer, KeyError> {
    let name = required(&mut keys, "name")?;
    let transport = match keys.text("transport")?.as_deref() {
        None | Some("sse") => McpTransport::Sse(required(&mut keys, "url")?),
        Some("streamable-http") => McpTransport::StreamableHttp(required(&mut keys, "url")?),
        Some("stdio") => McpTransport::Stdio(required(&mut keys, "command")?, keys.texts("args")?),
        Some(other) => {
            let fault = format!("is {other:?}, expected sse, streamable-http or stdio");
            return Err(keys.error("transport", fault));
        }
    };
    keys.finish();
    Ok(McpServer { name, transport })
}

fn steps(root: &mut Keys<'_>) -> Result<Vec<StepSpec>, KeyError> {
    let items = root.list("steps")?;
    if items.len() > STEPS_MAX {
        return Err(root.error("steps", format!("has {} steps, at most {STEPS_MAX} are read", items.len())));
    }
    let mut steps: Vec<StepSpec> = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let mut keys = root.element("steps", at, item)?;
        let name = required(&mut keys, "name")?;
        // The name becomes a path.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(keys.error("name", format!("is {name:?}, expected the name of a folder in steps/")));
        }
        if steps.iter().any(|step| step.name == name) {
            return Err(keys.error("name", format!("{name:?} is there twice")));
        }
        let agent_timeout_secs = agent(keys.table("agent")?)?.timeout_secs;
        let mut verifier = keys.table("verifier")?;
        let verifier_timeout_secs = verifier.secs("timeout_sec")?;
        verifier.finish();
        steps.push(StepSpec {
            name,
            instruction: String::new(),
            agent_timeout_secs,
            verifier_timeout_secs,
            min_reward: min_reward(&mut keys)?,
            artifacts: keys.list("artifacts")?,
        });
        keys.finish();
    }
    Ok(steps)
}

/// A number for `reward`, or a number for each name.
fn min_reward(keys: &mut Keys<'_>) -> Result<BTreeMap<String, f64>, KeyError> {
    let table = match keys.any("min_reward") {
        None => Map::new(),
        Some(Value::Object(table)) => table,
        Some(number) => Map::from_iter([("reward".to_owned(), number)]),
    };
    let mut least = BTreeMap::new();
    for (name, value) in table {
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => least.insert(name, number),
            None => {
                return Err(keys.error("min_reward", format!("{name} is {value}, expected a finite number")));
            }
        };
    }
    Ok(least)
}

fn required(keys: &mut Keys<'_>, key: &str) -> Result<String, KeyError> {
    match keys.text(key)? {
        Some(text) => Ok(text),
        None => Err(keys.error(key, "is missing")),
    }
}

#[cfg(test)]
#[path = "harbor_tests.rs"]
mod tests;
