//! The kinds of environments there are, by name. A new one is a line here.

use std::sync::Arc;

use serde::de::DeserializeOwned;
pub use toml::Table;

use crate::{
    calculator, persona, terminal, tool_call,
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
pub const KINDS: &[Kind] = &[calculator::KIND, persona::KIND, terminal::KIND, tool_call::KIND];

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

/// Settings of a kind from its table; what is unknown, missing or of another type is named.
pub fn settings<T: DeserializeOwned>(table: Table) -> Result<T, WorldError> {
    table.try_into().map_err(|error: toml::de::Error| WorldError::Settings(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let problem = |kind: &str, text: &str| {
            let table = text.parse().expect("a table");
            make(kind, table).map(|_| ()).expect_err("it is refused").to_string()
        };
        assert!(problem("clock", "").contains("\"clock\" is not one of calculator"));
        assert!(problem("calculator", "digts = [1, 2]").contains("digts"));
        assert!(problem("calculator", "digits = [4, 2]").contains("digits"));
    }
}
