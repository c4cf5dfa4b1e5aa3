//! What a topology will take of memory and disk, reckoned from the shapes of its models before any is loaded.

use std::{collections::BTreeMap, path::PathBuf};

use openclaw_model::{AdapterLayout, ModelConfig, ParameterLayout, WeightDtype};

use super::machine;
use crate::{
    measures::size,
    topology::{Dtype, Model, Topology},
};

/// Bytes of an f32.
const F32_BYTES: u64 = 4;
/// Of the optimizer: weights, gradients and two moments. What it goes back to lies on the disk, and is written as it lies.
const TRAINER_COPIES: u64 = 4;
/// Weights and moments of steps that have no checkpoint.
const UNSAVED_COPIES: u64 = 3;
/// Versions that keep the optimizer's moments: the newest, and the one that is written beside it.
const MOMENT_VERSIONS: u64 = 2;
/// A version that serves, and the one before it, on which responses still end.
const VERSION_COPIES: u64 = 2;

/// Something that takes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What.
    pub what: String,
    /// How many.
    pub bytes: u64,
}

/// What a topology needs for as long as it runs. Activations of the passes under way come on top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// In memory.
    pub memory: Vec<Need>,
    /// On the disk of `run.dir`.
    pub disk: Vec<Need>,
}

/// It cannot fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CannotFit {
    /// Into memory.
    #[error(
        "this topology needs {} of memory and {} are available: {}; choose smaller models ({}), or lower \
         actors.policy.kv_tokens, actors.policy.replicas or people.awake",
        size(*.needed), size(*.available), told(needs), models.join(", ")
    )]
    Memory {
        /// Bytes.
        needed: u64,
        /// Bytes.
        available: u64,
        /// For what.
        needs: Vec<Need>,
        /// The keys of the models.
        models: Vec<String>,
    },
    /// Onto the disk.
    #[error(
        "this topology needs {} more on the disk of {} and {} are free: {}; lower actors.optimizer.keep_versions, \
         or move run.dir",
        size(*.needed), dir.display(), size(*.free), told(needs)
    )]
    Disk {
        /// `run.dir`.
        dir: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// For what.
        needs: Vec<Need>,
    },
}

fn told(needs: &[Need]) -> String {
    let parts = needs.iter().map(|need| format!("{} {}", need.what, size(need.bytes)));
    parts.collect::<Vec<_>>().join(", ")
}

fn total(needs: &[Need]) -> u64 {
    needs.iter().map(|need| need.bytes).fold(0, u64::saturating_add)
}

struct Shape {
    weights: u64,
    /// Of what is trained: all of it, or an adapter.
    trained: u64,
    kv_token: u64,
}

impl Shape {
    fn of(config: &ModelConfig, model: &Model, is_policy: bool) -> Self {
        let parameters = ParameterLayout::new(config).len();
        let adapter = model.adapter.of(parameters).map(|adapter| AdapterLayout::new(config, adapter).len());
        let bytes = match model.in_memory(parameters, is_policy) {
            WeightDtype::F32 => F32_BYTES,
            WeightDtype::Bf16 => F32_BYTES / 2,
        };
        Self {
            weights: parameters as u64 * bytes,
            trained: adapter.unwrap_or(parameters) as u64 * F32_BYTES,
            kv_token: config.kv_values() as u64 * F32_BYTES,
        }
    }
}

impl Needs {
    /// Of a topology. A model whose shape cannot be read counts as nothing: loading it tells what is wrong.
    pub fn of(topology: &Topology) -> Self {
        let mut shapes = BTreeMap::new();
        for (name, model) in &topology.models {
            if let Ok(config) = ModelConfig::from_dir(&model.path) {
                let is_policy = *name == topology.actors.policy.model;
                shapes.insert(name.as_str(), Shape::of(&config, model, is_policy));
            }
        }
        let mut needs = Self::default();
        let actors = &topology.actors;
        let mut memory = |what: String, bytes: u64| needs.memory.push(Need { what, bytes });
        let teacher = actors.teacher.as_ref();
        for name in topology.models_in_use() {
            if let Some(shape) = shapes.get(name.as_str()) {
                memory(format!("weights of {name}"), shape.weights);
            }
        }
        let kv_tokens = actors.policy.kv_tokens as u64;
        let mut caches = |engine: &str, count: usize, model: &str| {
            if let Some(shape) = shapes.get(model) {
                let bytes = shape.kv_token.saturating_mul(kv_tokens).saturating_mul(count as u64);
                memory(format!("key-value cache of {engine}"), bytes);
            }
        };
        let replicas = actors.policy.replicas.max(1);
        caches(&format!("{replicas} x policy"), replicas, &actors.policy.model);
        for (number, frozen) in topology.frozen().iter().enumerate() {
            caches(&format!("base.{number}"), 1, &frozen.model);
        }
        if let Some(refreshed) = teacher.filter(|teacher| teacher.refresh_every.is_some()) {
            caches("teacher.engine", 1, &refreshed.model);
        }
        if let Some(policy) = shapes.get(actors.policy.model.as_str()) {
            let weights = policy.trained;
            if actors.optimizer.learns {
                memory("optimizer".to_owned(), weights.saturating_mul(TRAINER_COPIES));
                if actors.optimizer.checkpoint_every_steps > 1 || actors.optimizer.moments_every_steps > 1 {
                    memory(
                        "steps that no folder has whole".to_owned(),
                        weights.saturating_mul(UNSAVED_COPIES),
                    );
                }
            }
            memory("published versions".to_owned(), weights.saturating_mul(VERSION_COPIES));
            let stored = match topology.models.get(&actors.policy.model).map(|model| model.dtype) {
                // The rounded weights and the exact ones.
                Some(Dtype::Bf16) if policy.trained == policy.weights => weights / 2 + weights,
                _ => weights,
            };
            // One is written beside those that are kept.
            let count = actors.optimizer.keep_versions as u64 + 1;
            let what = format!("{count} versions of {}", size(stored));
            needs.disk.push(Need { what, bytes: stored.saturating_mul(count) });
            // Two moments each.
            let bytes = weights.saturating_mul(2 * MOMENT_VERSIONS);
            needs.disk.push(Need { what: "the optimizer's moments".to_owned(), bytes });
        }
        if let Some(people) = &topology.people {
            let shared: Vec<String> = topology
                .models
                .iter()
                .filter(|(_, model)| model.is_shared(true))
                .map(|(name, _)| format!("weights of {name}"))
                .collect();
            let each = |need: &mut Need| {
                if shared.contains(&need.what) {
                    return;
                }
                need.what = format!("{} x {}", people.awake, need.what);
                need.bytes = need.bytes.saturating_mul(people.awake as u64);
            };
            needs.memory.iter_mut().chain(&mut needs.disk).for_each(each);
        }
        needs
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> u64 {
        total(&self.memory)
    }

    /// Bytes on disk, of which a run that goes on has some already.
    pub fn disk_bytes(&self) -> u64 {
        total(&self.disk)
    }

    /// Where `available` bytes of memory are too few.
    pub fn check_memory(&self, topology: &Topology, available: u64) -> Result<(), CannotFit> {
        let needed = self.memory_bytes();
        if needed <= available {
            return Ok(());
        }
        let models = topology.models.keys().map(|name| format!("models.{name}.path")).collect();
        Err(CannotFit::Memory { needed, available, needs: self.memory.clone(), models })
    }

    /// Where `free` bytes on the disk are too few for what is not written yet.
    pub fn check_disk(&self, topology: &Topology, free: u64) -> Result<(), CannotFit> {
        let dir = topology.run.dir.clone();
        let needed = self.disk_bytes().saturating_sub(machine::folder_size(&dir.join("versions")));
        if needed <= free {
            return Ok(());
        }
        Err(CannotFit::Disk { dir, needed, free, needs: self.disk.clone() })
    }
}

/// What `launch` asks before it loads anything. What cannot be known is not in the way.
pub fn must_fit(topology: &Topology) -> Result<(), CannotFit> {
    let needs = Needs::of(topology);
    if let Some(available) = machine::available_memory() {
        needs.check_memory(topology, available)?;
    }
    if let Ok(free) = machine::free_disk(&machine::existing(&topology.run.dir)) {
        needs.check_disk(topology, free)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn quickstart(sets: &[&str]) -> Topology {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let nano = format!("models.policy.path={}", root.join("configs/models/nano").display());
        let sets: Vec<_> = [nano.as_str()].iter().chain(sets).map(|set| set.parse().unwrap()).collect();
        Topology::load(&root.join("configs/personal-agent.toml"), &sets).unwrap()
    }

    #[test]
    fn a_topology_needs_its_weights_caches_training_and_versions() {
        let topology = quickstart(&["actors.policy.kv_tokens=1024", "actors.optimizer.keep_versions=3"]);
        let config = ModelConfig::from_dir(&topology.models["policy"].path).unwrap();
        let weights = ParameterLayout::new(&config).len() as u64 * 4;
        let cache = (2 * config.layers * config.kv_heads * config.head_dim * 4 * 1024) as u64;
        let needs = Needs::of(&topology);
        // The policy's cache and the base version's; the weights once as they are shipped, and twice as versions.
        assert_eq!(needs.memory_bytes(), (3 + TRAINER_COPIES) * weights + 2 * cache);
        assert_eq!(needs.disk_bytes(), 4 * weights + 2 * 2 * weights);
        let unsaved =
            quickstart(&["actors.policy.kv_tokens=1024", "actors.optimizer.checkpoint_every_steps=9"]);
        assert_eq!(Needs::of(&unsaved).memory_bytes(), needs.memory_bytes() + UNSAVED_COPIES * weights);
        let more = Needs::of(&quickstart(&["actors.policy.kv_tokens=1024", "actors.policy.replicas=3"]));
        assert_eq!(more.memory_bytes(), needs.memory_bytes() + 2 * cache);
        let rounded = quickstart(&["models.policy.dtype=bf16", "actors.optimizer.keep_versions=3"]);
        assert_eq!(Needs::of(&rounded).disk_bytes(), 4 * (weights + weights / 2) + 2 * 2 * weights);
    }

    #[test]
    fn what_cannot_fit_is_told_with_numbers_and_the_keys_to_change() {
        let topology = quickstart(&[]);
        let needs = Needs::of(&topology);
        assert_eq!(needs.check_memory(&topology, needs.memory_bytes()), Ok(()));
        let told = needs.check_memory(&topology, 1 << 20).unwrap_err().to_string();
        for part in ["1.0 MiB are available", "optimizer ", "models.policy.path", "actors.policy.kv_tokens"] {
            assert!(told.contains(part), "{told}");
        }
        let told = needs.check_disk(&topology, 1 << 10).unwrap_err().to_string();
        for part in
            ["1.0 KiB are free", "21 versions of ", "actors.optimizer.keep_versions", "runs/personal-agent"]
        {
            assert!(told.contains(part), "{told}");
        }
    }
}
