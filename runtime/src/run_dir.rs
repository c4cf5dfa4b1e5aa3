//! The folder of a run: which base model it belongs to, and how it makes room for another run.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use openclaw_model::durable::{self, Access};
use rustix::{fs::Mode, process::umask};
use serde::{Deserialize, Serialize};

/// Says which base model a run is of.
pub const BASE_FILE: &str = "base.json";

/// What [`BASE_FILE`] holds: the model that every version of the run grew from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Base {
    /// Its checkpoint folder.
    pub model: PathBuf,
    /// `openclaw_model::fingerprint` of its weights.
    pub fingerprint: String,
    /// `openclaw_model::text_files` of the folder; empty where a launch of old wrote this.
    #[serde(default)]
    pub text: BTreeMap<String, String>,
    /// The adapter that is trained on it; none where all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
}

/// Makes the folder, all that lies in it, and all that this process will write, its owner's alone: a run holds what
/// people said. The umask is the whole process's.
pub fn make_private(dir: &Path) -> anyhow::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    let private = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        close(dir)
    };
    private().with_context(|| format!("cannot make run.dir {} its owner's alone", dir.display()))
}

fn close(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            close(&entry.path())?;
        } else if !kind.is_symlink() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// What is to be noted of a run's base model.
pub struct Claim {
    /// `base.json`.
    path: PathBuf,
    /// None where it is noted already.
    base: Option<Base>,
}

impl Claim {
    /// Notes it. The folder is there.
    pub fn write(self) -> anyhow::Result<()> {
        let Self { path, base: Some(mut base) } = self else { return Ok(()) };
        // Others look for it from elsewhere.
        base.model = std::path::absolute(&base.model).unwrap_or(base.model);
        let json = serde_json::to_vec_pretty(&base)?;
        durable::write(&path, &json, Access::Umask)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Whether the base model may be the run's: refuses to go on with another one. Writes nothing.
pub fn claim(dir: &Path, base: Base) -> anyhow::Result<Claim> {
    let path = dir.join(BASE_FILE);
    match fs::read(&path) {
        Ok(json) => {
            let found: Base = serde_json::from_slice(&json)
                .with_context(|| format!("{} is not what a launch wrote", path.display()))?;
            ensure!(
                found.fingerprint == base.fingerprint,
                "run.dir {} is of the base model in {} ({:.16}), the topology names {} ({:.16}): use another \
                 run.dir, or `--fresh`",
                dir.display(),
                found.model.display(),
                found.fingerprint,
                base.model.display(),
                base.fingerprint,
            );
            let trained = |base: &Base| match &base.adapter {
                Some(adapter) => format!("an adapter ({adapter})"),
                None => "all of the model".to_owned(),
            };
            ensure!(
                found.adapter == base.adapter,
                "run.dir {} trains {}, and the topology asks for {}: set the `adapter` of the policy's model as it was, \
                 use another run.dir, or `--fresh`",
                dir.display(),
                trained(&found),
                trained(&base),
            );
            if found.text.is_empty() {
                return Ok(Claim { path, base: Some(Base { text: base.text, ..found }) });
            }
            let mut names = found.text.keys().chain(base.text.keys());
            if let Some(name) = names.find(|name| found.text.get(*name) != base.text.get(*name)) {
                let print = |text: &BTreeMap<String, String>| match text.get(name) {
                    Some(print) => format!("{print:.16}"),
                    None => "none".to_owned(),
                };
                bail!(
                    "{} is not the one that run.dir {} was begun with ({}, now {}): what it has learnt is of other \
                     prompts. Put the file back, use another run.dir, or `--fresh`",
                    base.model.join(name).display(),
                    dir.display(),
                    print(&found.text),
                    print(&base.text),
                );
            }
            Ok(Claim { path, base: None })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Claim { path, base: Some(base) }),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The base model of a run.
pub fn base(dir: &Path) -> anyhow::Result<Base> {
    let path = dir.join(BASE_FILE);
    let json = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&json).with_context(|| format!("{} is not what a launch wrote", path.display()))
}

/// What the folder of a run's base model is called.
pub fn base_model(dir: &Path) -> Option<String> {
    Some(base(dir).ok()?.model.file_name()?.to_str()?.to_owned())
}

/// Renames the folder to `<dir>.<n>`, the first that is free; returns it, if there was a folder.
pub fn set_aside(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    let numbered = |number: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let free = (1..).map(numbered).find(|path| !path.exists()).expect("some number is free");
    fs::rename(dir, &free).with_context(|| format!("cannot rename run.dir {}", dir.display()))?;
    Ok(Some(free))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(model: &str, fingerprint: &str, files: &[(&str, &str)]) -> Base {
        let own = |(name, print): &(&str, &str)| ((*name).to_owned(), (*print).to_owned());
        Base {
            model: model.into(),
            fingerprint: fingerprint.to_owned(),
            text: files.iter().map(own).collect(),
            adapter: None,
        }
    }

    #[test]
    fn a_run_goes_on_with_its_own_base_model_alone() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dir = scratch.path().join("run");
        let claim = |model: &str, print: &str, adapter: Option<&str>| {
            let adapter = adapter.map(str::to_owned);
            super::claim(&dir, Base { adapter, ..base(model, print, &[]) })?.write()
        };
        fs::create_dir(&dir).expect("a folder");
        claim("models/a", "aaaa", None).expect("a new run");
        claim("moved/a", "aaaa", None).expect("the same model from elsewhere");
        let error = claim("models/b", "bbbb", None).expect_err("another model").to_string();
        for part in ["models/a", "models/b", "aaaa", "bbbb"] {
            assert!(error.contains(part), "{error}");
        }
        let error =
            claim("models/a", "aaaa", Some("rank 8")).expect_err("versions of another kind").to_string();
        assert!(
            error.contains("trains all of the model") && error.contains("an adapter (rank 8)"),
            "{error}"
        );
    }

    #[test]
    fn a_run_goes_on_with_its_own_tokenizer_and_templates_alone() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dir = scratch.path().join("run");
        fs::create_dir(&dir).expect("a folder");
        let with = |files: &[(&str, &str)]| claim(&dir, base("models/a", "aaaa", files))?.write();
        with(&[]).expect("a run of old, which did not note them");
        let begun = [("chat_template.jinja", "1111"), ("tokenizer.json", "2222")];
        with(&begun).expect("they are noted");
        with(&begun).expect("and are the same");
        for (changed, file) in [
            (&[("chat_template.jinja", "1111"), ("tokenizer.json", "3333")][..], "models/a/tokenizer.json"),
            (&begun[1..], "models/a/chat_template.jinja"),
            (
                &[begun[0], begun[1], ("additional_chat_templates/tool_use.jinja", "4444")],
                "models/a/additional_chat_templates/tool_use.jinja",
            ),
        ] {
            let error = with(changed).expect_err(file).to_string();
            assert!(error.starts_with(file), "{error}");
        }
        with(&begun).expect("a refusal changed nothing");
    }

    #[test]
    fn a_fresh_start_deletes_nothing() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let dir = scratch.path().join("run");
        assert_eq!(set_aside(&dir).expect("nothing is there"), None);
        for name in ["run.1", "run.2"] {
            fs::create_dir(&dir).expect("a folder");
            claim(&dir, base("model", name, &[])).and_then(Claim::write).expect("a new run");
            assert_eq!(set_aside(&dir).expect("renamed"), Some(scratch.path().join(name)));
            let kept = fs::read_to_string(scratch.path().join(name).join("base.json")).expect("kept");
            assert!(kept.contains(name) && !dir.exists());
        }
    }
}
