//! `export model`: a version as a folder that other tools serve: the checkpoint or the adapter that it is, or the adapter
//! merged into its base.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use openclaw_kernels::Cpu;
use openclaw_model::{
    GenerationConfig, Transformer, WeightDtype, Weights, adapter, checkpoint, durable, fingerprint,
    load_adapter,
};

use super::{ExportError, Force};
use crate::{import::Stored, run_dir};

/// For `--help`.
pub const HELP: &str = "\
A version of a run that trains an adapter is the adapter's folder, which PEFT, vLLM and SGLang take beside the base model; with \
--merge it is added to the base, and the result is a checkpoint folder of its own.

Examples:
  openclaw-rl export model --out learnt
  openclaw-rl export model --version 12 --merge --dtype bf16 --out merged";

/// Arguments of `export model`.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which version; without it the newest that is on the disk.
    #[arg(long, value_name = "V")]
    version: Option<u64>,
    /// Adds an adapter to its base.
    #[arg(long)]
    merge: bool,
    /// How merged weights are stored. What an adapter changes may be less than bf16 keeps.
    #[arg(long, value_enum, requires = "merge", default_value_t)]
    dtype: Stored,
}

impl ModelArgs {
    /// The folder to write.
    pub fn out(&self) -> &Path {
        &self.out
    }
}

/// Writes the folder of a version of the run in `dir`; returns what it is.
pub fn export(dir: &Path, args: &ModelArgs, force: Force) -> anyhow::Result<String> {
    let (number, folder) = find(&dir.join("versions"), args.version)?;
    let is_adapter = adapter::is_folder(&folder);
    let out = &args.out;
    if args.merge && is_adapter {
        checkpoint::may_write(out, force.force)?;
        merge(dir, &folder, out, args.dtype.into())?;
        return Ok(format!("version {number}, merged into its base"));
    }
    ensure!(!args.merge, "version {number} is no adapter: there is nothing to merge");
    let is_taken = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken && !force.force {
        return Err(ExportError::Exists { path: out.clone() }.into());
    }
    if !is_adapter {
        checkpoint::may_write(out, force.force)?;
    }
    let kept = |name: &str| if is_adapter { adapter::belongs(name) } else { checkpoint::belongs(name) };
    copy(&folder, out, &kept)?;
    Ok(format!("version {number}, {}", if is_adapter { "an adapter" } else { "a checkpoint" }))
}

/// The folder of a version, or of the newest.
fn find(versions: &Path, wanted: Option<u64>) -> anyhow::Result<(u64, PathBuf)> {
    let entries = fs::read_dir(versions).into_iter().flatten().flatten();
    let mut kept: Vec<u64> =
        entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    kept.sort_unstable();
    let Some(newest) = kept.last().copied() else { bail!("no version is kept in {}", versions.display()) };
    let number = wanted.unwrap_or(newest);
    let numbers = || kept.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    ensure!(kept.contains(&number), "version {number} is not kept in {}: {}", versions.display(), numbers());
    Ok((number, versions.join(number.to_string())))
}

fn merge(dir: &Path, folder: &Path, out: &Path, dtype: WeightDtype) -> anyhow::Result<()> {
    let base = run_dir::base(dir)?;
    let (config, flat) = checkpoint::load(&base.model)?;
    ensure!(
        fingerprint(&config, &flat) == base.fingerprint,
        "{} is not the base model that {} was begun with",
        base.model.display(),
        dir.display()
    );
    let (layout, adapter) = load_adapter(folder, &config)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let transformer = Transformer::new(config.clone(), Cpu::new("merge", threads)?)?;
    let weights = Weights::from_host(&transformer, &flat)?.adapted(&transformer, layout, &adapter)?;
    let merged = transformer.merged(&weights)?;
    let ends = GenerationConfig::from_dir(&base.model)?.eos_token_ids;
    checkpoint::save(out, &config, &merged, dtype, &ends, Some(&base.model))?;
    Ok(())
}

/// Copies the files of a folder and of those in it.
fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        if !wanted(&name) {
            continue;
        }
        let target = to.join(&*name);
        if path.is_dir() {
            copy(&path, &target, &|_| true)?;
        } else {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            durable::write(&target, &bytes, durable::Access::Umask)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}
