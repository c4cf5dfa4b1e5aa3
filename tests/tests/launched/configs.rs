//! Every topology file that is shipped can be launched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use openclaw_runtime::topology::{Override, Topology};

fn shipped() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be listed").path();
            // Model folders hold no topology.
            if path.is_dir() && !path.ends_with("models") {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs"), &mut found);
    found.sort();
    found
}

/// `pretrain-*.toml` belong to `openclaw-rl pretrain`, `env-server.toml` to `openclaw-rl env-server`, and have tests of
/// their own.
fn topologies() -> Vec<PathBuf> {
    let of_another_verb = |name: &str| name.starts_with("pretrain") || name == "env-server.toml";
    let is_topology =
        |path: &PathBuf| !path.file_name().is_some_and(|name| of_another_verb(&name.to_string_lossy()));
    shipped().into_iter().filter(is_topology).collect()
}

#[test]
fn every_shipped_topology_passes_check() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let set: Override = format!("models.policy.path={}", model.display()).parse().unwrap();
    let files = topologies();
    assert!(files.len() >= 7, "found {files:?}");
    for file in files {
        let loaded = match Topology::load(&file, &[]) {
            // Its adapter is made of the model that its reader brings.
            Ok(topology) if topology.role_adapters().next().is_some() => Ok(topology),
            _ => Topology::load_for_launch(&file, std::slice::from_ref(&set)),
        };
        loaded.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn every_resolved_copy_reads_back_to_the_same_topology() {
    for file in topologies() {
        let topology = Topology::load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
        let resolved = topology.to_toml();
        let again =
            Topology::parse(&resolved, Path::new("resolved"), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, topology, "{}", file.display());
    }
}

/// The lines of personal-agent.toml that show an optional key: `# key = value   # comment`.
fn with_optional_keys(text: &str) -> String {
    let uncommented = text.lines().map(|line| {
        let rest = line.strip_prefix("# ").unwrap_or(line);
        let is_key = rest
            .split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        if is_key || rest.starts_with('[') { rest } else { line }
    });
    uncommented.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_optional_keys_that_the_reference_file_shows_are_real() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/personal-agent.toml");
    let text = fs::read_to_string(path).unwrap();
    // A judge is a model, which may have an adapter, or an engine: the file shows all of them.
    let text = with_optional_keys(&text)
        .replace("model = \"policy\"                  # or, in its place:", "")
        .replace("adapter = \"models/judge\"", "");
    let shown = Topology::parse(&text, Path::new("shown"), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shown.actors.rollout[0].seed, Some(17));
    assert_eq!(shown.actors.teacher.unwrap().refresh_every, Some(50));
    assert_eq!(shown.method.dual_clip, Some(3.0));
}

#[test]
fn the_defaults_that_the_reference_file_shows_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/personal-agent.toml");
    let text = fs::read_to_string(path).unwrap();
    let has_default = |line: &str| {
        let other = [
            "by default",
            "default:",
            "# engine",
            "[[actors.rollout]]",
            "# environment",
            "# [environments",
            "# kind",
            "# personas",
            "# workers",
        ];
        !other.iter().any(|words| line.contains(words))
    };
    let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') || has_default(line)).collect();
    // Without its header, the rollout group's own default has no table to stand in.
    let shown = with_optional_keys(&shown.join("\n")).replace("max_sessions = 72", "");
    let read =
        |text: &str| Topology::parse(text, Path::new("t"), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&shown), read(&text));
}
