//! The models of a topology that serve and never change: a judge's, a teacher's, and what the KL term pulls to. Each is a base
//! model, with an adapter of its role or without; roles with the same share one engine.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{preflight::chain, problems::Problems, sections::Topology};
use openclaw_model::{ModelConfig, load_adapter};

/// A model that does not change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frozen {
    /// Its name under `[models]`.
    pub model: String,
    /// The folder of the adapter on it.
    pub adapter: Option<PathBuf>,
}

impl Topology {
    /// The judge's, where a model of the node judges.
    pub fn frozen_judge(&self) -> Option<Frozen> {
        let judge = &self.actors.judge;
        judge.model.clone().map(|model| Frozen { model, adapter: judge.adapter.clone() })
    }

    /// The teacher's, where it does not take the policy's weights.
    pub fn frozen_teacher(&self) -> Option<Frozen> {
        let teacher = self.actors.teacher.as_ref().filter(|teacher| teacher.refresh_every.is_none())?;
        Some(Frozen { model: teacher.model.clone(), adapter: teacher.adapter.clone() })
    }

    /// What the KL term pulls the policy to.
    pub fn frozen_reference(&self) -> Option<Frozen> {
        let model = self.actors.policy.model.clone();
        (self.method.kl.coef > 0.0).then_some(Frozen { model, adapter: None })
    }

    /// All of them, each once.
    pub fn frozen(&self) -> BTreeSet<Frozen> {
        [self.frozen_judge(), self.frozen_teacher(), self.frozen_reference()].into_iter().flatten().collect()
    }

    /// The adapters of roles: the key of each, the name of its model, and its folder.
    pub fn role_adapters(&self) -> impl Iterator<Item = (&'static str, Frozen, &Path)> {
        let judge = ("actors.judge.adapter", self.frozen_judge(), self.actors.judge.adapter.as_deref());
        let teacher = self.actors.teacher.as_ref().and_then(|teacher| teacher.adapter.as_deref());
        let teacher = ("actors.teacher.adapter", self.frozen_teacher(), teacher);
        [judge, teacher].into_iter().filter_map(|(key, frozen, folder)| Some((key, frozen?, folder?)))
    }
}

/// Adds what is wrong with the folders of the roles' adapters.
pub(super) fn check_adapters(topology: &Topology, problems: &mut Problems) {
    for (key, frozen, folder) in topology.role_adapters() {
        // What is wrong with the model is told where it is named.
        let Some(model) = topology.models.get(&frozen.model) else { continue };
        let Ok(config) = ModelConfig::from_dir(&model.path) else { continue };
        if let Err(error) = load_adapter(folder, &config) {
            problems.add(key, chain(&error));
        }
    }
}
