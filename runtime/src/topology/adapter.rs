//! `adapter` of `[models.NAME]`: what is trained of a model, all of it or an adapter.

use openclaw_model::{AdapterConfig, Target};
use toml::Value;

use super::{
    problems::{Problems, did_you_mean},
    read::{FromToml, section},
};

/// A larger base is frozen unless the topology says otherwise: all of it takes four times its size to train.
const LARGE: usize = 50_000_000;

section! {
    /// `adapter = { rank = 16, alpha = 32, targets = "all" }`: the base is frozen, and a low-rank adapter on it is trained.
    pub struct Adapter {
        /// Rows of each matrix `A`.
        rank: usize = 16,
        /// What the adapter adds is scaled by `alpha / rank`.
        alpha: f64 = 32.0,
        /// The matrices that have one: `"all"`, or some of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`,
        /// `down_proj`.
        targets: Targets = Targets(Target::ALL.into()),
    }
}

/// The matrices that have an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets(std::collections::BTreeSet<Target>);

/// What is trained of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapting {
    /// An adapter of a base with more than 50 M parameters, all of a smaller one.
    Auto,
    /// All of it.
    No,
    /// An adapter.
    Yes(Adapter),
}

impl Adapter {
    /// As the model has it.
    fn config(&self) -> AdapterConfig {
        AdapterConfig { rank: self.rank, alpha: self.alpha as f32, targets: self.targets.0.clone() }
    }

    /// Adds what is wrong with it, at `key`.
    pub fn check(&self, key: &str, problems: &mut Problems) {
        if !(1..=512).contains(&self.rank) {
            problems.add(&format!("{key}.rank"), format!("{} is not from 1 to 512", self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha <= 1e4) {
            problems.add(&format!("{key}.alpha"), format!("{} is not above 0, up to 10000", self.alpha));
        }
        if self.targets.0.is_empty() {
            problems.add(&format!("{key}.targets"), "no matrix is named");
        }
    }
}

impl Adapting {
    /// The adapter of a model with so many parameters, if it has one.
    pub fn of(&self, parameters: usize) -> Option<AdapterConfig> {
        match self {
            Self::Auto if parameters > LARGE => Some(AdapterConfig::of_all(16, 32.0)),
            Self::Auto | Self::No => None,
            Self::Yes(adapter) => Some(adapter.config()),
        }
    }
}

impl FromToml for Adapting {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        match value {
            Value::String(word) if word == "auto" => Self::Auto,
            Value::String(word) if word == "none" => Self::No,
            Value::Table(_) => Self::Yes(Adapter::from_toml(value, key, problems)),
            _ => {
                problems.add(key, "expected \"auto\", \"none\" or a table of rank, alpha and targets");
                Self::placeholder()
            }
        }
    }

    fn placeholder() -> Self {
        Self::No
    }
}

impl serde::Serialize for Adapting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::No => serializer.serialize_str("none"),
            Self::Yes(adapter) => adapter.serialize(serializer),
        }
    }
}

impl FromToml for Targets {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        match value {
            Value::String(word) if word == "all" => Self(Target::ALL.into()),
            Value::Array(_) => {
                let names = Vec::<String>::from_toml(value, key, problems);
                let named = names.iter().enumerate().filter_map(|(nth, name)| {
                    let target = Target::named(name);
                    if target.is_none() && !name.is_empty() {
                        let known = Target::ALL.map(Target::name);
                        let hint = did_you_mean(name, known);
                        problems
                            .add(&format!("{key}[{nth}]"), format!("no matrix is named \"{name}\"{hint}"));
                    }
                    target
                });
                Self(named.collect())
            }
            _ => {
                problems.add(key, "expected \"all\" or an array of matrices");
                Self::placeholder()
            }
        }
    }

    fn placeholder() -> Self {
        Self(Target::ALL.into())
    }
}

impl serde::Serialize for Targets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.len() == Target::ALL.len() {
            true => serializer.serialize_str("all"),
            false => serializer.collect_seq(self.0.iter().map(|target| target.name())),
        }
    }
}
