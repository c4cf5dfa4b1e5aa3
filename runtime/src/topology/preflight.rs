//! Looks at the machine before a launch: are the files and environment variables there that a topology names, and can
//! the models be opened?

use std::error::Error;

use openclaw_kernels::Cuda;
use openclaw_lab::judging::Judging;
use openclaw_model::{CheckpointError, Inspection, ModelConfig, load_adapter};

use crate::hub::HubName;

use super::{
    frozen::Frozen,
    problems::Problems,
    sections::{Device, Model, Topology},
};

/// Adds what is missing on this machine, the models aside.
pub fn check_machine(topology: &Topology, problems: &mut Problems) {
    // What is missing of its path is made.
    let there = topology.run.dir.ancestors().find(|path| path.exists());
    if let Some(path) = there.filter(|path| !path.is_dir()) {
        problems.add("run.dir", format!("{} is not a folder", path.display()));
    }
    for (name, node) in &topology.nodes {
        if let Device::Cuda(number) = node.device
            && let Err(error) = Cuda::can_open(number)
        {
            problems.add(&format!("nodes.{name}.device"), error.to_string());
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

/// Adds what is wrong with the checkpoint folders, each opened as far as its shapes and its text.
pub fn check_models(topology: &Topology, problems: &mut Problems, warnings: &mut Problems) {
    for (name, model) in &topology.models {
        let key = format!("models.{name}.path");
        match inspected(model) {
            Ok(found) => warnings.add_all(&key, found.warnings),
            Err(wrong) => problems.add_all(&key, wrong),
        }
    }
    for (key, frozen) in topology.role_adapters() {
        // What is wrong with the model is told where it is named.
        let Some(model) = topology.models.get(&frozen.model) else { continue };
        let (Some(folder), Ok(config)) = (&frozen.adapter, ModelConfig::from_dir(&model.path)) else {
            continue;
        };
        if let Err(error) = load_adapter(folder, &config) {
            problems.add(key, chain(&error));
        }
    }
    if let Some((key, told)) = unproven_judge(topology) {
        warnings.add(key, told);
    }
}

/// A judge on this node that nobody has measured, or that was found to misread people.
fn unproven_judge(topology: &Topology) -> Option<(&'static str, String)> {
    let Frozen { model, adapter } = topology.frozen_judge()?;
    let path = &topology.models.get(&model)?.path;
    let (key, folder) = match &adapter {
        Some(adapter) => ("actors.judge.adapter", adapter),
        None => ("actors.judge.model", path),
    };
    match Judging::read(folder) {
        Some(judging) => judging.fault().map(|fault| (key, fault)),
        None => {
            let adapter = adapter.as_ref().map(|adapter| format!(" --adapter {}", adapter.display()));
            let told = format!(
                "nobody has measured how it reads people: openclaw-rl evaluate {}{} --group reaction --score-margin 1 --cases 25",
                path.display(),
                adapter.unwrap_or_default()
            );
            folder.is_dir().then_some((key, told))
        }
    }
}

/// What a model's folder holds, or everything that is wrong with it.
pub fn inspected(model: &Model) -> Result<Inspection, Vec<String>> {
    if let Some(Ok(name)) = HubName::of_path(&model.path) {
        let path = model.path.display();
        return Err(vec![format!("{path} is not on this machine yet: openclaw-rl pull {name}")]);
    }
    if !model.path.is_dir() {
        return Err(vec![format!("{} is not a folder", model.path.display())]);
    }
    openclaw_model::inspect(&model.path)
        .map_err(|wrong| wrong.iter().map(|error: &CheckpointError| chain(error)).collect())
}

/// An error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    // Parsers draw the place; a problem is one line.
    let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(line(error.to_string()), |told, cause| format!("{told}: {}", line(cause.to_string())))
}
