//! Looks at the machine before a launch: are the files and environment variables there that a topology names?

use std::path::Path;

use openclaw_kernels::Cuda;

use super::{
    problems::Problems,
    sections::{Device, Model, Topology},
};

/// Adds what is missing on this machine.
pub fn check(topology: &Topology, problems: &mut Problems) {
    if topology.run.dir.exists() && !topology.run.dir.is_dir() {
        problems.add("run.dir", format!("{} is not a folder", topology.run.dir.display()));
    }
    for (name, node) in &topology.nodes {
        if let Device::Cuda(number) = node.device
            && let Err(error) = Cuda::can_open(number)
        {
            problems.add(&format!("nodes.{name}.device"), error.to_string());
        }
    }
    for (name, model) in &topology.models {
        if let Some(message) = missing_from_checkpoint(model) {
            problems.add(&format!("models.{name}.path"), message);
        }
    }
    let gateway = &topology.actors.gateway;
    environment_variable("actors.gateway.api_key_env", gateway.api_key_env.as_deref(), problems);
    let engine = topology.actors.judge.engine.as_ref();
    let variable = engine.and_then(|engine| engine.api_key_env.as_deref());
    environment_variable("actors.judge.engine.api_key_env", variable, problems);
}

fn environment_variable(key: &str, name: Option<&str>, problems: &mut Problems) {
    let Some(name) = name else { return };
    if std::env::var(name).map_or(true, |value| value.trim().is_empty()) {
        problems.add(key, format!("the environment variable {name} is not set"));
    }
}

fn missing_from_checkpoint(model: &Model) -> Option<String> {
    let path = &model.path;
    if !path.is_dir() {
        return Some(format!("{} is not a folder", path.display()));
    }
    let needed = ["config.json", "tokenizer.json"];
    if let Some(file) = needed.iter().find(|file| !path.join(file).is_file()) {
        return Some(format!("{} has no {file}", path.display()));
    }
    (!has_weights(path)).then(|| format!("{} has no model.safetensors", path.display()))
}

fn has_weights(path: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json"].iter().any(|file| path.join(file).is_file())
}
