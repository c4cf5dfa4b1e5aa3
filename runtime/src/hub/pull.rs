//! `openclaw-rl pull`: fetches the files of a model, each once, and holds them against the hub's sums.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use hf_hub::{
    Cache, CacheRepo,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};
use indicatif::HumanBytes;
use openclaw_model::{ModelConfig, checkpoint};

use super::{
    HubName,
    listing::{Listed, Listing},
};
use crate::{
    doctor::{described, existing, free_disk},
    topology::{Override, Topology},
};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Fetches what a checkpoint takes: configuration, tokenizer, chat template, safetensors. What is there already is not fetched \
again, what was cut off goes on where it was, and what is not what the hub lists is thrown away.

Environment:
  HF_HOME      folder of the cache (default: ~/.cache/huggingface)
  HF_TOKEN     for models that ask for one
  HF_ENDPOINT  another hub (default: https://huggingface.co)

Examples:
  openclaw-rl pull Qwen/Qwen3-0.6B
  openclaw-rl launch my.toml --set models.policy.path=hf:Qwen/Qwen3-0.6B
  openclaw-rl pull Qwen/Qwen2.5-0.5B-Instruct-GGUF --file qwen2.5-0.5b-instruct-q4_k_m.gguf";

/// How often a connection that breaks is taken up again, for each file.
const RETRIES: usize = 5;
/// Left free on the disk.
const ROOM: u64 = 64 << 20;

/// Arguments of `pull`.
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// OWNER/NAME on the hub.
    #[arg(value_name = "MODEL")]
    name: HubName,
    /// A branch, a tag or a commit.
    #[arg(long)]
    revision: Option<String>,
    /// Only this file, such as a GGUF file to import; can be repeated.
    #[arg(long = "file", value_name = "NAME")]
    files: Vec<String>,
}

/// Fetches, and says where it lies.
pub fn run(args: &PullArgs) -> anyhow::Result<()> {
    let name = match &args.revision {
        None => args.name.clone(),
        Some(revision) => {
            format!("{}@{revision}", args.name.repository).parse().map_err(anyhow::Error::msg)?
        }
    };
    let mut out = io::stdout();
    if !args.files.is_empty() {
        for path in pull_files(&name, &args.files)? {
            writeln!(out, "{}", path.display())?;
        }
        return Ok(());
    }
    let folder = pull(&name)?;
    let found = openclaw_model::inspect(&folder).map_err(|wrong| {
        let wrong = wrong.into_iter().map(|error| format!("{:#}", anyhow::Error::from(error)));
        anyhow::anyhow!("{name} was pulled, but cannot be used: {}", wrong.collect::<Vec<_>>().join("; "))
    })?;
    writeln!(out, "{}: {}", folder.display(), described(&found))?;
    writeln!(out, "in a topology: path = \"hf:{name}\"")?;
    Ok(())
}

/// Fetches the models that a topology names and the cache has not. What is wrong with the file is told by whoever reads it
/// next.
pub fn pull_missing(file: &Path, overrides: &[Override]) -> anyhow::Result<()> {
    let Ok(topology) = Topology::load(file, overrides) else { return Ok(()) };
    for (key, model) in &topology.models {
        if let Some(Ok(name)) = HubName::of_path(&model.path) {
            pull(&name).with_context(|| format!("models.{key}.path"))?;
        }
    }
    Ok(())
}

/// Fetches a checkpoint; returns its folder.
fn pull(name: &HubName) -> anyhow::Result<PathBuf> {
    let hub = Hub::open(name)?;
    let wanted: Vec<&Listed> = hub.listing.siblings.iter().filter(|file| is_wanted(&file.name)).collect();
    let Some(config) = hub.listing.file("config.json") else { bail!("{name}: {}", lacking(&hub.listing)) };
    if !wanted.iter().any(|file| file.name.ends_with(".safetensors")) {
        bail!("{name}: {}", lacking(&hub.listing));
    }
    if hub.listing.file("tokenizer.json").is_none() {
        bail!("{name} has no tokenizer.json");
    }
    // A model that cannot be run is refused before its weights are fetched.
    let folder = hub.get(config)?.parent().context("a file of the cache lies in a folder")?.to_owned();
    ModelConfig::from_dir(&folder).with_context(|| format!("{name} cannot be run"))?;
    hub.must_fit(&wanted)?;
    for file in wanted {
        hub.get(file)?;
    }
    hub.remember()?;
    Ok(folder)
}

/// Fetches files by their names.
fn pull_files(name: &HubName, files: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let hub = Hub::open(name)?;
    let find = |file: &String| {
        let listed = hub.listing.file(file).filter(|file| stays_inside(&file.name));
        listed.with_context(|| format!("{name} has no file {file}{}", one_of(&hub.listing.ending(".gguf"))))
    };
    let wanted = files.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    hub.must_fit(&wanted)?;
    let paths = wanted.into_iter().map(|file| hub.get(file)).collect::<anyhow::Result<_>>()?;
    hub.remember()?;
    Ok(paths)
}

/// Whether a path of a repository is part of a checkpoint.
fn is_wanted(name: &str) -> bool {
    checkpoint::belongs(name) && stays_inside(name)
}

fn stays_inside(name: &str) -> bool {
    !name.starts_with('/') && !name.split('/').any(|part| part == "..")
}

/// Why a repository is no checkpoint.
fn lacking(listing: &Listing) -> String {
    let gguf = listing.ending(".gguf");
    if !gguf.is_empty() {
        return format!(
            "holds GGUF files: pull one with --file NAME and import it with openclaw-rl import{}",
            one_of(&gguf)
        );
    }
    let missing = if listing.file("config.json").is_none() { "config.json" } else { "model.safetensors" };
    format!("has no {missing}")
}

fn one_of(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    if names.is_empty() {
        return String::new();
    }
    let more = if names.len() > SHOWN { ", .." } else { "" };
    format!(" ({}{more})", names[..names.len().min(SHOWN)].join(", "))
}

/// A repository at one commit, and where its files are kept.
struct Hub<'a> {
    name: &'a HubName,
    listing: Listing,
    remote: ApiRepo,
    cache: CacheRepo,
}

impl<'a> Hub<'a> {
    fn open(name: &'a HubName) -> anyhow::Result<Self> {
        let cache = Cache::from_env();
        let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty());
        let api = ApiBuilder::from_env()
            .with_token(token.or_else(|| cache.token()))
            .with_retries(RETRIES)
            .with_progress(io::stderr().is_terminal())
            .build()?;
        let listing = Self::listed(&api, name)?;
        let commit = name.at(&listing.sha);
        Ok(Self { name, remote: api.repo(commit.clone()), cache: cache.repo(commit), listing })
    }

    /// What the repository holds now.
    fn listed(api: &Api, name: &HubName) -> anyhow::Result<Listing> {
        let request = api.repo(name.at(&name.revision)).info_request().query("blobs", "true");
        let mut response = request.call().map_err(refused).with_context(|| format!("cannot pull {name}"))?;
        let listing: Listing = response
            .body_mut()
            .read_json()
            .with_context(|| format!("cannot pull {name}: the hub's list of its files"))?;
        anyhow::ensure!(listing.is_sound(), "cannot pull {name}: the hub names no commit");
        Ok(listing)
    }

    /// Where a file lies, if it was fetched.
    fn found(&self, file: &Listed) -> Option<PathBuf> {
        let path = self.cache.pointer_path(&self.listing.sha).join(&file.name);
        path.exists().then_some(path)
    }

    /// Where a file lies; fetched if it does not yet.
    fn get(&self, file: &Listed) -> anyhow::Result<PathBuf> {
        let told = || format!("cannot pull {} of {}", file.name, self.name);
        if let Some(found) = self.found(file) {
            return Ok(found);
        }
        if !io::stderr().is_terminal() {
            eprintln!("{}: {} ({})", self.name, file.name, HumanBytes(file.size.unwrap_or_default()));
        }
        // What is left of an earlier try is gone on with. Where that comes to nothing, it begins anew, once.
        for last in [false, true] {
            match self.remote.download(&file.name) {
                Ok(path) if file.is_at(&path).with_context(told)? => return Ok(path),
                Ok(path) => {
                    self.forget(file, Some(&path));
                    if last {
                        bail!("{}: it is not what the hub lists", told());
                    }
                }
                Err(error) if !last && is_stale(&error) => self.forget(file, None),
                Err(ApiError::RequestError(error)) => return Err(refused(*error).context(told())),
                Err(error) => return Err(anyhow::Error::from(error).context(told())),
            }
        }
        unreachable!("the last try returns")
    }

    /// Takes a file, whole or in part, out of the cache.
    fn forget(&self, file: &Listed, path: Option<&Path>) {
        // What is not there need not go.
        let remove = |path: &Path| drop(fs::remove_file(path));
        if let Some(path) = path {
            if let Ok(content) = path.canonicalize() {
                remove(&content);
            }
            remove(path);
        }
        if let Some(sum) = file.sum() {
            remove(&self.cache.blob_path(sum).with_extension("part"));
        }
    }

    /// Refuses what the disk has no room for.
    fn must_fit(&self, wanted: &[&Listed]) -> anyhow::Result<()> {
        let missing = wanted.iter().filter(|file| self.found(file).is_none());
        let needed: u64 = missing.filter_map(|file| file.size).sum();
        let folder = existing(Cache::from_env().path());
        let free = free_disk(&folder).with_context(|| format!("cannot look at {}", folder.display()))?;
        anyhow::ensure!(
            needed == 0 || needed + ROOM <= free,
            "{}: {} are to be fetched, and {} has {} free (HF_HOME names another folder)",
            self.name,
            HumanBytes(needed),
            folder.display(),
            HumanBytes(free)
        );
        Ok(())
    }

    /// From now on the name means this commit.
    fn remember(&self) -> anyhow::Result<()> {
        let named = Cache::from_env().repo(self.name.at(&self.name.revision));
        named.create_ref(&self.listing.sha).context("the cache cannot be written")
    }
}

/// What the hub's answer means.
fn refused(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::StatusCode(code @ (401 | 403)) => anyhow::anyhow!(
            "the hub says {code}: there is no such model, or it is for those who accepted its terms and show it (HF_TOKEN)"
        ),
        ureq::Error::StatusCode(404) => anyhow::anyhow!("the hub has no such model, revision or file"),
        error => error.into(),
    }
}

/// Whether what lies there in part is no beginning of the file: nothing follows it.
fn is_stale(error: &ApiError) -> bool {
    match error {
        ApiError::InvalidResume => true,
        ApiError::RequestError(error) => matches!(**error, ureq::Error::StatusCode(416)),
        ApiError::TooManyRetries(error) => is_stale(error),
        _ => false,
    }
}
