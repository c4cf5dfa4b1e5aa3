//! The kinds of environments there are, by name. A new one is a line here.

use std::sync::Arc;

use serde::de::DeserializeOwned;
pub use toml::Table;
use toml::Value;

use crate::{
    agent::{Agent, ToolAgent},
    browser, calculator, desktop, openenv, persona, remote, swe, terminal, tool_call,
    world::{Environment, WorldError},
};

/// A kind of environment.
pub struct Kind {
    /// As a config names it.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Makes one from the settings of its table, `kind` left out.
    pub make: fn(Table) -> Result<Arc<dyn Environment>, WorldError>,
}

/// All of them.
pub const KINDS: &[Kind] = &[
    browser::KIND,
    calculator::KIND,
    desktop::KIND,
    openenv::KIND,
    persona::KIND,
    remote::KIND,
    swe::KIND,
    terminal::KIND,
    tool_call::KIND,
];

/// The environment of a kind with these settings.
pub fn make(kind: &str, settings: Table) -> Result<Arc<dyn Environment>, WorldError> {
    match KINDS.iter().find(|known| known.name == kind) {
        Some(known) => (known.make)(settings),
        None => {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            Err(WorldError::Settings(format!("kind: \"{kind}\" is not one of {}", known.join(", "))))
        }
    }
}

/// A way to talk to a model, by its name.
pub fn agent(name: &str) -> Option<Box<dyn Agent>> {
    if name == ToolAgent::NAME {
        return Some(Box::new(ToolAgent::default()));
    }
    let talk = swe::Talk::ALL.into_iter().find(|talk| talk.name() == name)?;
    Some(Box::new(swe::BashAgent::new(talk)))
}

/// Numbers of settings, each with its key, the least and the most that it may be.
pub(crate) fn within<'a>(
    numbers: impl IntoIterator<Item = (&'a str, u64, u64, u64)>,
) -> Result<(), WorldError> {
    for (key, number, least, most) in numbers {
        if !(least..=most).contains(&number) {
            return Err(WorldError::Settings(format!("{key}: {number} is not from {least} to {most}")));
        }
    }
    Ok(())
}

/// Settings of a kind from its table; what is unknown, missing or of another type is named by its key.
pub fn settings<T: DeserializeOwned>(table: Table) -> Result<T, WorldError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let fault = error.inner().message();
        // Of a key that is not there the fault says the name, and the path where it would be.
        WorldError::Settings(if key == "." { fault.to_owned() } else { format!("{key}: {fault}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_settings_names_its_key() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "it is read and no more")]
        struct Inner {
            size: u32,
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "it is read and no more")]
        struct Outer {
            name: String,
            pair: (u32, u32),
            list: Vec<Inner>,
        }
        let fault = |text: &str| {
            let table = text.parse().expect("a table");
            settings::<Outer>(table).expect_err("it is refused").to_string()
        };
        let rest = "pair = [1, 2]\nlist = []";
        assert_eq!(fault(rest), "missing field `name`");
        assert_eq!(fault(&format!("name = 1\n{rest}")), "name: invalid type: integer `1`, expected a string");
        assert!(fault(&format!("name = 'a'\nmood = 1\n{rest}")).starts_with("mood: unknown field `mood`"));
        let pair = |value: &str| fault(&format!("name = 'a'\npair = {value}\nlist = []"));
        assert!(pair("'x'").starts_with("pair: invalid type: string \"x\""), "{}", pair("'x'"));
        assert!(pair("[1, 'x']").starts_with("pair[1]: invalid type: string \"x\""), "{}", pair("[1, 'x']"));
        assert!(pair("[1, -2]").starts_with("pair[1]: invalid value: integer `-2`"), "{}", pair("[1, -2]"));
        let list =
            |value: &str| fault(&format!("name = 'a'\npair = [1, 2]\nlist = [{{ size = 1 }}, {value}]"));
        assert_eq!(list("{ size = true }"), "list[1].size: invalid type: boolean `true`, expected u32");
        assert_eq!(list("{}"), "list[1]: missing field `size`");
        assert!(
            list("{ sise = 1 }").starts_with("list[1].sise: unknown field `sise`"),
            "{}",
            list("{ sise = 1 }")
        );
    }

    #[test]
    fn the_kinds_name_their_keys() {
        let problem = |kind: &str, text: &str| {
            let table = text.parse().expect("a table");
            make(kind, table).map(|_| ()).expect_err("it is refused").to_string()
        };
        for (kind, text, key) in [
            ("browser", "families = ['gw9']", "families[0]: "),
            ("browser", "show = 'all'", "show: "),
            ("browser", "buttons = [1, 4]", "buttons: "),
            ("browser", "tasks = ['click-test']", "pages: "),
            ("calculator", "digits = \"x\"", "digits: "),
            ("calculator", "operators = ['+', 1]", "operators[1]: "),
            ("desktop", "show = 'all'", "show: "),
            ("desktop", "families = ['dt9']", "families[0]: "),
            ("terminal", "step_secs = 'long'", "step_secs: "),
            ("terminal", "families = ['te9']", "families[0]: "),
            ("swe", "agent = 'vim'", "agent: "),
            ("swe", "families = ['sw9']", "families[0]: "),
            ("swe", "tools = 'edit'\nagent = 'bash-block'", "agent: "),
            ("swe", "rows = '/no/such.jsonl'", "rows: "),
            ("swe", "sandbox = 'docker'", "image: "),
            ("swe", "patch_bytes = 1", "patch_bytes: "),
            ("tool_call", "digits = [1]", "digits: "),
            ("tool_call", "mcp = [{ name = 'a', url = 1 }]", "mcp[0].url: "),
            ("persona", "personas = 'all'", "personas: "),
            ("remote", "url = 3", "url: "),
            ("remote", "url = 'http://a'\nwait_secs = 'long'", "wait_secs: "),
            ("openenv", "url = 'ws://a'\nreward = 'mean'", "reward: "),
            ("openenv", "url = 'ws://a'\ntasks = [1]", "tasks: "),
        ] {
            let said = problem(kind, text);
            assert!(said.starts_with(key), "{kind}, {text}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let problem = |kind: &str, text: &str| {
            let table = text.parse().expect("a table");
            make(kind, table).map(|_| ()).expect_err("it is refused").to_string()
        };
        assert!(problem("clock", "").contains("\"clock\" is not one of browser, calculator"));
        assert!(problem("calculator", "digts = [1, 2]").contains("digts"));
        assert!(problem("calculator", "digits = [4, 2]").contains("digits"));
    }
}
