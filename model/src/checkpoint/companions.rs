//! The files of a checkpoint folder that are not weights: a published version takes them along.

use std::{collections::BTreeMap, fs, path::Path};

use sha2::{Digest, Sha256};

use super::{CheckpointError, hex, io};
use crate::chat_template::FURTHER_TEMPLATES;

const FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", GENERATION, "special_tokens_map.json"];
/// How the model is sampled; ids and prompts are made without it.
const GENERATION: &str = "generation_config.json";

/// Whether an entry of a folder is one of these, or holds some.
pub(super) fn is_companion(name: &str) -> bool {
    FILES.contains(&name) || name == FURTHER_TEMPLATES
}

/// Those of `dir`, by their path in it.
pub(super) fn companions(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, CheckpointError> {
    let mut names: Vec<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    let further = dir.join(FURTHER_TEMPLATES);
    if further.is_dir() {
        for entry in fs::read_dir(&further).map_err(io(&further))? {
            let name = entry.map_err(io(&further))?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".jinja") {
                names.push(format!("{FURTHER_TEMPLATES}/{name}"));
            }
        }
    }
    let mut files = BTreeMap::new();
    for name in names {
        let from = dir.join(&name);
        if from.exists() {
            files.insert(name, fs::read(&from).map_err(io(&from))?);
        }
    }
    Ok(files)
}

/// SHA-256 of each file of a checkpoint folder that decides which ids a conversation has, by its path in the folder.
pub fn text_files(dir: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let files = companions(dir)?.into_iter().filter(|(name, _)| name != GENERATION);
    Ok(files.map(|(name, bytes)| (name, hex(Sha256::new_with_prefix(bytes)))).collect())
}
