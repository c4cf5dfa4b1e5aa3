//! The file of a server: `[server]`, and `[environments.NAME]` as in a topology.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_environments::{
    registry,
    world::{Environment, WorldError},
};
use serde::Deserialize;
use toml::{Table, Value};

use crate::leases::Limits;

/// The least of a token, in bytes.
const TOKEN_BYTES: usize = 16;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path}: {why}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A key of it cannot be used.
    #[error("{key}: {why}")]
    Key {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// Where it listens.
    bind: SocketAddr,
    /// The variable that holds the token that every request has to show.
    #[serde(default = "default_token_env")]
    token_env: String,
    /// Connections at once.
    #[serde(default = "default_connections")]
    connections: usize,
    /// Of images that are kept for each lease, in MiB.
    #[serde(default = "default_images_mb")]
    images_mb: usize,
    #[serde(default = "default_task_slots")]
    task_slots: usize,
    #[serde(default = "default_run_slots")]
    run_slots: usize,
    #[serde(default = "default_ttl_secs")]
    ttl_secs: f64,
    #[serde(default = "default_answers_mb")]
    answers_mb: usize,
}

fn default_token_env() -> String {
    "OPENCLAW_ENV_TOKEN".to_owned()
}

fn default_connections() -> usize {
    1024
}

fn default_images_mb() -> usize {
    64
}

fn default_task_slots() -> usize {
    Limits::default().task_slots
}

fn default_run_slots() -> usize {
    Limits::default().run_slots
}

fn default_ttl_secs() -> f64 {
    Limits::default().ttl_secs
}

fn default_answers_mb() -> usize {
    Limits::default().answers_mb
}

/// An environment that is served.
#[derive(Clone)]
pub struct Served {
    /// What worlds are of.
    pub environment: Arc<dyn Environment>,
    /// Its kind.
    pub kind: String,
    /// The image of its sandboxes, where they have one.
    pub image: Option<String>,
}

/// What a server is to do.
#[derive(Clone)]
pub struct Config {
    /// Where it listens; port 0 is one that is free.
    pub bind: SocketAddr,
    /// What every request has to show.
    pub token: String,
    /// Connections at once.
    pub connections: usize,
    /// Of images that are kept for each lease, in bytes.
    pub image_bytes: usize,
    /// Of leases.
    pub limits: Limits,
    /// By name.
    pub environments: BTreeMap<String, Served>,
}

impl Config {
    /// From a file; the token from the environment of this process.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Toml {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        Self::read(table, |variable| env::var(variable).ok())
    }

    /// From a table; `variable` tells what the environment of the process has.
    pub fn read(mut table: Table, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let section = table.remove("server").ok_or_else(|| key("server", "missing"))?;
        let section: Section = serde_path_to_error::deserialize(section).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { "server".to_owned() } else { format!("server.{path}") };
            key(&path, error.inner().message())
        })?;
        let environments = match table.remove("environments") {
            Some(Value::Table(environments)) if !environments.is_empty() => environments,
            _ => return Err(key("environments", "there is none: [environments.NAME] with a kind")),
        };
        if let Some(unknown) = table.keys().next() {
            return Err(key(unknown, "unknown: a server has [server] and [environments.NAME]"));
        }
        let token = token(&section.token_env, variable)?;
        let limits = limits(&section)?;
        for (name, value, most) in
            [("connections", section.connections, 1 << 16), ("images_mb", section.images_mb, 1 << 20)]
        {
            between(name, value, most)?;
        }
        let environments = environments.into_iter().map(|(name, value)| {
            let served = served(&name, value)?;
            Ok((name, served))
        });
        Ok(Self {
            bind: section.bind,
            token,
            connections: section.connections,
            image_bytes: section.images_mb << 20,
            limits,
            environments: environments.collect::<Result<_, ConfigError>>()?,
        })
    }
}

fn key(key: &str, why: &str) -> ConfigError {
    ConfigError::Key { key: key.to_owned(), why: why.to_owned() }
}

fn between(name: &str, value: usize, most: usize) -> Result<(), ConfigError> {
    match (1..=most).contains(&value) {
        true => Ok(()),
        false => Err(key(&format!("server.{name}"), &format!("{value} is not from 1 to {most}"))),
    }
}

fn limits(section: &Section) -> Result<Limits, ConfigError> {
    between("task_slots", section.task_slots, 1 << 16)?;
    between("run_slots", section.run_slots, 1 << 16)?;
    between("answers_mb", section.answers_mb, 1 << 20)?;
    if !(0.1..=24.0 * 3600.0).contains(&section.ttl_secs) {
        return Err(key("server.ttl_secs", &format!("{} is not from 0.1 to 86400", section.ttl_secs)));
    }
    Ok(Limits {
        task_slots: section.task_slots,
        run_slots: section.run_slots,
        ttl_secs: section.ttl_secs,
        answers_mb: section.answers_mb,
    })
}

fn token(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let token = variable(name).unwrap_or_default();
    let refuse = |why: String| Err(key("server.token_env", &why));
    match token.as_str() {
        "" => refuse(format!("{name} is not set: every request has to show a token")),
        short if short.len() < TOKEN_BYTES => {
            refuse(format!("the token in {name} has {} bytes, and needs {TOKEN_BYTES}", short.len()))
        }
        odd if !odd.bytes().all(|byte| byte.is_ascii_graphic()) => {
            refuse(format!("the token in {name} has other characters than letters, digits and signs"))
        }
        _ => Ok(token),
    }
}

fn served(name: &str, value: Value) -> Result<Served, ConfigError> {
    let path = format!("environments.{name}");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(key(&path, "a name has up to 64 small letters, digits, - and _"));
    }
    let Value::Table(mut settings) = value else { return Err(key(&path, "expected a table")) };
    let kind = match settings.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(key(&format!("{path}.kind"), "expected a string")),
        None => return Err(key(&format!("{path}.kind"), "missing")),
    };
    let image = settings.get("image").and_then(Value::as_str).map(str::to_owned);
    let environment = registry::make(&kind, settings).map_err(|error| match error {
        WorldError::Settings(why) => key(&path, &why),
        error => key(&path, &error.to_string()),
    })?;
    Ok(Served { environment, kind, image })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, token: Option<&str>) -> Result<Config, ConfigError> {
        Config::read(text.parse().expect("a table"), |name| {
            assert_eq!(name, "TOKEN");
            token.map(str::to_owned)
        })
    }

    const WHOLE: &str =
        "[server]\nbind = '127.0.0.1:0'\ntoken_env = 'TOKEN'\n[environments.sums]\nkind = 'calculator'\n";

    #[test]
    fn a_server_without_a_token_does_not_start() {
        let said = |token| read(WHOLE, token).map(|_| ()).expect_err("it is refused").to_string();
        assert_eq!(said(None), "server.token_env: TOKEN is not set: every request has to show a token");
        assert!(said(Some("short")).contains("has 5 bytes, and needs 16"));
        assert!(said(Some("with a space in it, that")).contains("other characters"));
        let config = read(WHOLE, Some("0123456789abcdef")).expect("it is read");
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.environments["sums"].kind, "calculator");
    }

    #[test]
    fn the_shipped_file_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/env-server.toml");
        let text = fs::read_to_string(path).expect("it is shipped");
        let config = Config::read(text.parse().expect("TOML"), |_| Some("0123456789abcdef".to_owned()));
        let names: Vec<String> = config.expect("it is read").environments.into_keys().collect();
        assert_eq!(names, ["shell", "sums"]);
    }

    #[test]
    fn every_fault_of_a_file_names_its_key() {
        let said = |text: &str| {
            read(text, Some("0123456789abcdef")).map(|_| ()).expect_err("it is refused").to_string()
        };
        let with =
            |line: &str| said(&WHOLE.replace("token_env = 'TOKEN'", &format!("token_env = 'TOKEN'\n{line}")));
        assert_eq!(said("[environments.a]\nkind = 'calculator'"), "server: missing");
        assert!(with("task_slot = 3").starts_with("server.task_slot: unknown field"));
        assert!(with("ttl_secs = 'long'").starts_with("server.ttl_secs: invalid type"));
        assert_eq!(with("ttl_secs = 0.0"), "server.ttl_secs: 0 is not from 0.1 to 86400");
        assert_eq!(with("run_slots = 0"), "server.run_slots: 0 is not from 1 to 65536");
        let kind = |line: &str| said(&WHOLE.replace("kind = 'calculator'", line));
        assert_eq!(kind(""), "environments.sums.kind: missing");
        assert!(kind("kind = 'clock'").starts_with("environments.sums: kind: \"clock\" is not one of"));
        assert!(kind("kind = 'calculator'\ndigits = [4, 2]").starts_with("environments.sums: digits: "));
        assert!(said(&format!("{WHOLE}[run]\nname = 'a'")).starts_with("run: unknown"));
        assert!(said(&WHOLE.replace("sums", "'My Sums'")).starts_with("environments.My Sums: a name has"));
    }
}
