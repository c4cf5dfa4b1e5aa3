//! The models of a topology that serve and never change: a judge's, a teacher's, and what the KL term pulls to. Each is a base
//! model, with an adapter of its role or without; roles with the same share one engine.

use std::{collections::BTreeSet, path::PathBuf};

use super::sections::Topology;

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

    /// The names of the models that a node loads, each once.
    pub fn models_in_use(&self) -> BTreeSet<&String> {
        let actors = &self.actors;
        let teacher = actors.teacher.as_ref().map(|teacher| &teacher.model);
        [Some(&actors.policy.model), actors.judge.model.as_ref(), teacher].into_iter().flatten().collect()
    }

    /// Those that have an adapter, by the key that names it.
    pub fn role_adapters(&self) -> impl Iterator<Item = (&'static str, Frozen)> {
        let judge = ("actors.judge.adapter", self.frozen_judge());
        let teacher = ("actors.teacher.adapter", self.frozen_teacher());
        let stated = [judge, teacher].into_iter().filter_map(|(key, frozen)| Some((key, frozen?)));
        stated.filter(|(_, frozen)| frozen.adapter.is_some())
    }
}
