//! The topology file: what runs, where, on which model, and how it learns. One TOML file, read strictly: unknown
//! keys are errors, and every problem is told at once with its key and line.
//!
//! `sections` is the reference of keys and defaults; `check` says what must hold between them; `preflight` looks
//! at the machine: files and environment variables.

mod adapter;
mod agents;
mod check;
mod frozen;
mod method;
mod overrides;
mod people;
mod preflight;
mod problems;
mod read;
mod sections;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use adapter::{Adapter, Adapting};
pub use agents::{Agent, Environment, StepJudge};
pub use frozen::Frozen;
pub use overrides::Override;
pub use people::{AdapterBy, People};
pub(crate) use preflight::inspected;
pub(crate) use problems::did_you_mean;
pub use problems::{Origin, Problem, TopologyError};
pub use sections::{
    Actors, AdamW, Device, Dtype, Engine, EngineKind, Gateway, Judge, Model, Node, Policy, Rollout, Run,
    Sessions, Teacher, Topology, Trainer, TurnType, Votes, WhenFailing,
};

use crate::hub::HubName;
use problems::Problems;
use read::FromToml;

/// The file in a run's folder that holds its topology, as it was resolved.
pub const RESOLVED_FILE: &str = "topology.toml";

/// A process cannot be a node that the topology does not name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("no node named \"{name}\" under [nodes]{hint}")]
pub struct UnknownNode {
    name: String,
    hint: String,
}

impl Topology {
    /// Reads and checks a file, without a look at the rest of the machine.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, TopologyError> {
        Self::parse(&read_file(path)?, path, overrides)
    }

    /// [`Self::load`], and checks that the files and environment variables it names are there, and that its models
    /// can be opened: what `check` and `launch` do.
    pub fn load_for_launch(path: &Path, overrides: &[Override]) -> Result<Self, TopologyError> {
        Ok(Self::load_with_warnings(path, overrides)?.0)
    }

    /// [`Self::load_for_launch`], and what works and is probably not meant so.
    pub fn load_with_warnings(
        path: &Path,
        overrides: &[Override],
    ) -> Result<(Self, Vec<Problem>), TopologyError> {
        let (text, mut warnings) = (read_file(path)?, Problems::default());
        let topology = Self::build(&text, path, overrides, |topology, problems| {
            preflight::check_machine(topology, problems);
            preflight::check_models(topology, problems, &mut warnings);
        })?;
        Ok((topology, warnings.into_sorted()))
    }

    /// [`Self::load`], and what is missing of that which a launch needs beside the models: those are told one by one
    /// by [`inspected`].
    pub fn load_and_look(path: &Path, overrides: &[Override]) -> Result<(Self, Vec<Problem>), TopologyError> {
        let topology = Self::load(path, overrides)?;
        let mut problems = Problems::default();
        preflight::check_machine(&topology, &mut problems);
        Ok((topology, problems.into_sorted()))
    }

    /// Reads and checks the text of a file; `path` is for messages.
    pub fn parse(text: &str, path: &Path, overrides: &[Override]) -> Result<Self, TopologyError> {
        Self::build(text, path, overrides, |_, _| ())
    }

    fn build(
        text: &str,
        path: &Path,
        overrides: &[Override],
        look: impl FnOnce(&Self, &mut Problems),
    ) -> Result<Self, TopologyError> {
        let invalid = |problems| TopologyError::Invalid { path: path.to_owned(), problems };
        let (table, mut problems) = source::parse(text, overrides).map_err(invalid)?;
        let mut topology = Self::from_toml(&toml::Value::Table(table), "", &mut problems);
        for (name, model) in &mut topology.models {
            match HubName::of_path(&model.path) {
                Some(Ok(hub)) => model.path = hub.cached().unwrap_or_else(|| model.path.clone()),
                Some(Err(wrong)) => problems.add(&format!("models.{name}.path"), wrong),
                None => {}
            }
        }
        check::check(&topology, &mut problems);
        look(&topology, &mut problems);
        let problems = problems.into_sorted();
        if problems.is_empty() { Ok(topology) } else { Err(invalid(problems)) }
    }

    /// The node that a process is: the named one, or the only one.
    pub fn node(&self, name: Option<&str>) -> Result<(&str, &Node), UnknownNode> {
        let mut nodes = self.nodes.iter();
        let found = match name {
            Some(name) => nodes.find(|(known, _)| *known == name),
            None => nodes.next(),
        };
        found.map(|(name, node)| (name.as_str(), node)).ok_or_else(|| {
            let name = name.unwrap_or_default();
            UnknownNode { name: name.to_owned(), hint: did_you_mean(name, self.nodes.keys()) }
        })
    }

    /// The topology with every default written out, as a file that reads back to the same. It names
    /// environment variables and never holds what is in them.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every key is a string and every value a TOML value")
    }

    /// Writes the resolved copy into the run's folder, and says where.
    pub fn write_resolved(&self) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(&self.run.dir)?;
        let path = self.run.dir.join(RESOLVED_FILE);
        std::fs::write(&path, self.to_toml())?;
        Ok(path)
    }
}

fn read_file(path: &Path) -> Result<String, TopologyError> {
    std::fs::read_to_string(path).map_err(|source| TopologyError::Read { path: path.to_owned(), source })
}
