//! Whether the OpenClaw of this user is wired to the gateway: its file names the gateway's address and a model that is
//! served, and the plugin is there. One that is not installed is no fault: any OpenAI client will do.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde_json::Value;

use super::{Line, Mark};
use crate::topology::Topology;

/// The plugin's id, and the provider that it serves.
const ID: &str = "openclaw-rl";
/// The manifest of the plugin that belongs to this binary.
const SHIPPED: &str = include_str!("../../../configs/openclaw/plugin/openclaw.plugin.json");
const ADD_PROVIDER: &str = "openclaw config patch --file configs/openclaw/provider.json";
const INSTALL: &str = "openclaw plugins install --link configs/openclaw/plugin --force --accept-capabilities";

/// Where an OpenClaw keeps what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Client {
    config: PathBuf,
    state: PathBuf,
    home: PathBuf,
}

impl Client {
    /// As the client looks for it: `OPENCLAW_CONFIG_PATH`, `OPENCLAW_STATE_DIR`, `OPENCLAW_HOME`, else the home.
    fn find(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let given =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty());
        let user = PathBuf::from(given("HOME")?);
        let home = given("OPENCLAW_HOME").map_or_else(|| user.clone(), |home| from_home(&user, &home));
        let state = given("OPENCLAW_STATE_DIR").map(|dir| from_home(&home, &dir));
        let state = state.unwrap_or_else(|| home.join(".openclaw"));
        let config = given("OPENCLAW_CONFIG_PATH").map(|file| from_home(&home, &file));
        let config = config.unwrap_or_else(|| state.join("openclaw.json"));
        config.exists().then_some(Self { config, state, home })
    }
}

fn from_home(home: &Path, path: &str) -> PathBuf {
    match path.strip_prefix('~') {
        Some(rest) => home.join(rest.trim_start_matches('/')),
        None => PathBuf::from(path),
    }
}

/// Lines on the OpenClaw of this user.
pub fn lines(topology: Option<&Topology>) -> Vec<Line> {
    let absent = || {
        let told = "not installed for this user (no openclaw.json); any OpenAI client works";
        vec![Line::ok("openclaw", told)]
    };
    Client::find(|name| std::env::var(name).ok()).map_or_else(absent, |client| look(&client, topology))
}

fn look(client: &Client, topology: Option<&Topology>) -> Vec<Line> {
    let read = fs::read_to_string(&client.config).map_err(|error| error.to_string());
    let found = match read.and_then(|text| json5::from_str(&text).map_err(|error| error.to_string())) {
        Ok(config) => vec![provider(&config, topology), plugin(&config, client)],
        Err(error) => {
            vec![Err(format!("{} cannot be read: {error}; see `openclaw doctor`", client.config.display()))]
        }
    };
    let line = |found: Result<String, String>| match found {
        Ok(told) => Line::ok("openclaw", told),
        Err(told) => Line::new(Mark::Warn, "openclaw", told),
    };
    found.into_iter().map(line).collect()
}

/// A provider that speaks to the gateway of a model that is served, or what to do about it.
fn provider(config: &Value, topology: Option<&Topology>) -> Result<String, String> {
    let providers = &config["models"]["providers"];
    let own_url = providers[ID]["baseUrl"].as_str();
    // A port that is yet to be picked is in nobody's file.
    let gateway = topology.map(|topology| &topology.actors.gateway).filter(|g| g.listen.port() != 0);
    let Some(gateway) = gateway else {
        let url = own_url.ok_or_else(|| format!("models.providers has no {ID}: `{ADD_PROVIDER}`"))?;
        return Ok(format!("models.providers.{ID} speaks to {url}"));
    };
    let listen = gateway.listen;
    let mut speaking: Vec<_> = providers.as_object().into_iter().flatten().collect();
    speaking.retain(|(_, provider)| url_of(provider).is_some_and(|url| reaches(&url, listen)));
    speaking.sort_by_key(|(id, _)| *id != ID);
    let Some((id, provider)) = speaking.first() else {
        return Err(own_url.map_or_else(
            || format!("no provider speaks to http://{listen}/v1: `{ADD_PROVIDER}`"),
            |url| {
                format!(
                    "{ID} speaks to {url}, the gateway listens on {listen}: `openclaw config set \
                     models.providers.{ID}.baseUrl http://{listen}/v1`"
                )
            },
        ));
    };
    let key = format!("models.providers.{id}");
    if *id != ID {
        return Err(format!("{key} speaks to the gateway, but the plugin serves the name {ID}: rename it"));
    }
    let url = own_url.unwrap_or_default();
    if !url.trim_end_matches('/').ends_with("/v1") {
        return Err(format!("{key}.baseUrl is {url}: it must end with /v1"));
    }
    if provider["api"] != "openai-completions" {
        return Err(format!("{key}.api is {}: it must be \"openai-completions\"", provider["api"]));
    }
    let model = &gateway.served_model;
    let served = |id: &str| {
        id == model
            || id.strip_suffix("-side") == Some(model)
            || gateway.aliases.iter().any(|alias| alias == id)
    };
    let models = provider["models"].as_array().into_iter().flatten();
    let named: Vec<_> = models.filter_map(|model| model["id"].as_str()).collect();
    match named.iter().find(|id| !served(id)) {
        Some(id) => Err(format!("{key}.models has {id}, which the gateway does not serve: name it {model}")),
        None if named.is_empty() => Err(format!("{key}.models is empty: `{ADD_PROVIDER}`")),
        None => Ok(format!("{key} speaks to {url} of {}", named.join(", "))),
    }
}

fn url_of(provider: &Value) -> Option<Url> {
    Url::parse(provider["baseUrl"].as_str()?).ok()
}

/// Whether a client on this machine that asks for `url` comes to the address that is listened on.
fn reaches(url: &Url, listen: SocketAddr) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let listened = listen.ip();
    let here = match host.parse::<IpAddr>() {
        Ok(asked) => asked == listened || listened.is_unspecified(),
        Err(_) => host == "localhost" && (listened.is_loopback() || listened.is_unspecified()),
    };
    here && url.port_or_known_default() == Some(listen.port())
}

/// The plugin, installed, not switched off, and the one that is shipped; or what to do about it.
fn plugin(config: &Value, client: &Client) -> Result<String, String> {
    let plugins = &config["plugins"];
    let (dir, version) = installed(plugins, client).ok_or_else(|| {
        format!(
            "no plugin: sessions and turn types are read from the traffic, and ends are not told: `{INSTALL}`"
        )
    })?;
    let names = |list: &str| plugins[list].as_array().map(|ids| ids.iter().any(|id| id == ID));
    let off = [
        (plugins["enabled"] == false, "plugins.enabled is false"),
        (plugins["entries"][ID]["enabled"] == false, "plugins.entries has it disabled"),
        (names("deny") == Some(true), "plugins.deny names it"),
        (names("allow") == Some(false), "plugins.allow does not name it"),
    ];
    if let Some((_, why)) = off.into_iter().find(|(off, _)| *off) {
        return Err(format!("the plugin is off: {why}; `openclaw plugins enable {ID}`"));
    }
    let shipped = version_of(SHIPPED);
    if version != shipped {
        let dir = dir.display();
        return Err(format!("the plugin in {dir} is {version}, this release has {shipped}: `{INSTALL}`"));
    }
    Ok(format!("plugin {version} in {}", dir.display()))
}

/// Where the plugin lies and its version: in a folder that is linked, or where OpenClaw copies plugins to.
fn installed(plugins: &Value, client: &Client) -> Option<(PathBuf, String)> {
    let linked = plugins["load"]["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let linked = linked.map(|path| from_home(&client.home, path));
    linked.chain([client.state.join("extensions").join(ID)]).find_map(|dir| {
        let manifest = fs::read_to_string(dir.join("openclaw.plugin.json")).ok()?;
        let read: Value = json5::from_str(&manifest).ok()?;
        (read["id"] == ID).then(|| (dir, version_of(&manifest)))
    })
}

fn version_of(manifest: &str) -> String {
    let read: Value = json5::from_str(manifest).unwrap_or_default();
    read["version"].as_str().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = include_str!("../../../configs/openclaw/provider.json");

    fn personal(sets: &[&str]) -> Topology {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sets: Vec<_> = sets.iter().map(|set| set.parse().unwrap()).collect();
        Topology::load(&root.join("configs/personal-agent.toml"), &sets).unwrap()
    }

    fn provider_with(change: impl Fn(&mut Value), sets: &[&str]) -> Result<String, String> {
        let mut config: Value = json5::from_str(PROVIDER).unwrap();
        change(&mut config["models"]["providers"]);
        provider(&config, Some(&personal(sets)))
    }

    #[test]
    fn the_shipped_provider_speaks_to_the_shipped_topology() {
        let told = provider_with(|_| {}, &[]).unwrap();
        assert!(told.contains("http://127.0.0.1:30000/v1 of policy"), "{told}");
        for listen in ["0.0.0.0:30000", "127.0.0.1:0"] {
            let listen = format!("actors.gateway.listen={listen}");
            let key = "actors.gateway.api_key_env=KEY";
            assert!(provider_with(|_| {}, &[&listen, key]).is_ok(), "{listen}");
        }
        let localhost = |all: &mut Value| all[ID]["baseUrl"] = "http://localhost:30000/v1/".into();
        assert!(provider_with(localhost, &[]).is_ok());
    }

    #[test]
    fn a_provider_that_cannot_serve_says_what_to_do() {
        let told = |change: fn(&mut Value), sets: &[&str]| provider_with(change, sets).unwrap_err();
        let moved = told(|_| {}, &["actors.gateway.listen=127.0.0.1:31000"]);
        assert!(moved.contains("baseUrl http://127.0.0.1:31000/v1`"), "{moved}");
        assert!(told(|all| *all = Value::Null, &[]).contains(ADD_PROVIDER));
        assert!(told(|all| all[ID]["baseUrl"] = "http://127.0.0.1:30000".into(), &[]).contains("/v1"));
        assert!(told(|all| all[ID]["api"] = "anthropic-messages".into(), &[]).contains("openai-completions"));
        assert!(told(|all| all[ID]["models"] = Value::Null, &[]).contains("is empty"));
        let other = told(|_| {}, &["actors.gateway.served_model=mine"]);
        assert!(other.contains("models has policy") && other.contains("name it mine"), "{other}");
        let renamed = |all: &mut Value| *all = serde_json::json!({"local": all[ID].clone()});
        assert!(told(renamed, &[]).contains("models.providers.local"));
    }

    #[test]
    fn the_file_is_found_where_the_client_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in [".openclaw", "else/.openclaw", "state"] {
            fs::create_dir_all(at(folder)).unwrap();
            fs::write(at(folder).join("openclaw.json"), "{}").unwrap();
        }
        let home = dir.path().display().to_string();
        let found = |set: &[(&str, &str)]| {
            let set = [&[("HOME", home.as_str())], set].concat();
            let value =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Client::find(value).map(|client| client.config)
        };
        assert_eq!(found(&[]), Some(at(".openclaw/openclaw.json")));
        assert_eq!(found(&[("OPENCLAW_HOME", "~/else")]), Some(at("else/.openclaw/openclaw.json")));
        assert_eq!(found(&[("OPENCLAW_STATE_DIR", "~/state")]), Some(at("state/openclaw.json")));
        assert_eq!(found(&[("OPENCLAW_CONFIG_PATH", "~/none.json")]), None);
    }

    #[test]
    fn the_plugin_is_found_linked_and_copied_and_must_be_on_and_ours() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client {
            config: dir.path().join("openclaw.json"),
            state: dir.path().to_owned(),
            home: dir.path().to_owned(),
        };
        let told = |config: &str| plugin(&json5::from_str(config).unwrap(), &client);
        assert!(told("{}").unwrap_err().contains(INSTALL));
        let put = |folder: &str, manifest: &str| {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("openclaw.plugin.json"), manifest).unwrap();
        };
        put("linked", SHIPPED);
        assert!(told("{plugins: {load: {paths: ['~/linked']}}}").unwrap().contains("linked"));
        put("extensions/openclaw-rl", SHIPPED);
        assert!(told("{}").unwrap().contains("extensions"));
        for off in [
            "enabled: false",
            "entries: {'openclaw-rl': {enabled: false}}",
            "deny: ['openclaw-rl']",
            "allow: ['telegram'] // the list of all that may load",
        ] {
            assert!(
                told(&format!("{{plugins: {{{off}\n}}}}")).unwrap_err().contains("plugins enable"),
                "{off}"
            );
        }
        put("extensions/openclaw-rl", r#"{"id": "openclaw-rl", "version": "0.0.1"}"#);
        assert!(told("{}").unwrap_err().contains("is 0.0.1"));
    }
}
