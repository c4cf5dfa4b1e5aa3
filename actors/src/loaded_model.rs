//! A checkpoint folder opened once: text, weights, and how to serve and train it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use openclaw_kernels::KernelError;
use openclaw_model::{
    AdamWConfig, AdapterConfig, AdapterError, AdapterLayout, Batcher, BatcherConfig, BatcherError,
    ChatTemplate, CheckpointError, GenerationConfig, TextError, Tokenizer, Trainer, Transformer,
    VersionFolders, WeightDtype, Weights, checkpoint,
    checkpoint::{InFolder, fingerprint_in},
    load_adapter,
};

use crate::{
    engine::{Device, EngineText, Place, PolicyWeights, ServingModel},
    optimizer::BuildTrainer,
    policy::BuildModel,
};

/// Tokens of a block of the key-value cache.
const BLOCK_TOKENS: usize = 16;
/// Sequences that one engine runs at once.
const MOST_SEQUENCES: usize = 64;
/// Sequences that wait in one engine for a place.
const MOST_WAITING: usize = 1024;
/// How long a step should take while replies are drawn. With a step of scores in between and a busy machine, the gap
/// between two tokens of a reply stays below what a reader notices.
const STEP_TIME: Duration = Duration::from_millis(70);

/// In training a larger model keeps the inputs of its layers alone, and computes the rest of them again.
const LARGE: usize = 50_000_000;

/// Why a checkpoint folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its configuration or its weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An adapter on it.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Its tokenizer, template or generation settings.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The device that it is for.
    #[error(transparent)]
    Device(#[from] KernelError),
    /// The device cannot hold its shape.
    #[error("cannot prepare the model in {}", path.display())]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: KernelError,
    },
}

/// An opened checkpoint folder.
pub struct LoadedModel {
    /// The folder.
    pub path: PathBuf,
    /// How it reads and writes text.
    pub text: EngineText,
    /// Tokens that end a response.
    pub end_ids: Vec<u32>,
    /// The weights of its folder.
    pub base: PolicyWeights,
    /// [`fingerprint`] of them.
    pub fingerprint: String,
    /// Version 0: these, with an adapter that adds nothing yet where one is trained.
    pub weights: PolicyWeights,
    /// Its shape.
    pub transformer: Transformer<Device>,
    place: Place,
}

impl LoadedModel {
    /// Reads a checkpoint folder onto a device; `threads`, where that is the CPU, are for what is asked of
    /// [`LoadedModel::transformer`] itself.
    pub fn open(path: &Path, place: Place, threads: usize) -> Result<Self, LoadError> {
        Self::open_as(path, place, threads, |_| WeightDtype::F32, None)
    }

    /// The same with weights in the type that is wanted of what is there. Those in `bf16` are frozen, and in a file of the
    /// folder `cache` where that is given.
    pub fn open_as(
        path: &Path,
        place: Place,
        threads: usize,
        dtype: impl FnOnce(InFolder) -> WeightDtype,
        cache: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let (config, flat) = checkpoint::load_as(path, dtype, cache)?;
        let fingerprint = fingerprint_in(&config, &flat);
        let tokenizer = Tokenizer::from_dir(path)?;
        let template = ChatTemplate::from_dir(path)?;
        let generation = GenerationConfig::from_dir(path)?;
        let context_tokens = config.max_positions;
        let device = Device::new(place, "model", threads)?;
        let transformer = Transformer::new(config, device)
            .map_err(|source| LoadError::Prepare { path: path.to_owned(), source })?;
        let weights = Arc::new(Weights::adopt(&transformer, flat)?);
        let text = EngineText { tokenizer, template, context_tokens };
        Ok(Self {
            path: path.to_owned(),
            text,
            end_ids: generation.eos_token_ids,
            base: weights.clone(),
            fingerprint,
            weights,
            transformer,
            place,
        })
    }

    /// From now on an adapter is trained, and the base is frozen; `seed` draws what it begins with.
    pub fn adapt(&mut self, config: AdapterConfig, seed: u64) -> Result<(), KernelError> {
        let layout = Arc::new(AdapterLayout::new(&self.transformer.config, config));
        let fresh = layout.fresh(seed);
        self.weights = Arc::new(self.base.adapted(&self.transformer, layout, &fresh)?);
        Ok(())
    }

    /// Its base with the adapter of a folder: the base itself is shared.
    pub fn with_adapter(&self, folder: &Path) -> Result<PolicyWeights, LoadError> {
        let (layout, values) = load_adapter(folder, &self.transformer.config)?;
        Ok(Arc::new(self.base.adapted(&self.transformer, layout, &values)?))
    }

    /// Its parameters, those of an adapter aside.
    pub fn parameters(&self) -> usize {
        self.transformer.layout.len()
    }

    /// A batcher on this model's own threads.
    pub fn batcher(&self, weights: PolicyWeights, kv_tokens: usize) -> Result<Batcher<Device>, BatcherError> {
        let config = batcher_config(2048, kv_tokens);
        let (tokenizer, end_ids) = (self.text.tokenizer.clone(), self.end_ids.clone());
        Batcher::new(self.transformer.clone(), tokenizer, end_ids, config, 0, weights)
    }

    /// Where versions of it are kept.
    pub fn folders(&self, dir: PathBuf, dtype: WeightDtype) -> VersionFolders {
        VersionFolders {
            dir,
            config: self.transformer.config.clone(),
            dtype,
            template: self.path.clone(),
            end_ids: self.end_ids.clone(),
            adapter: self.weights.adapter_layout().cloned(),
        }
    }

    /// Builds a serving engine's model, on threads of its own, that keys and values of `kv_tokens` fit into.
    pub fn serving(
        &self,
        max_batch_tokens: usize,
        kv_tokens: usize,
        threads: usize,
        name: &str,
    ) -> BuildModel {
        let (transformer, tokenizer) = (self.transformer.clone(), self.text.tokenizer.clone());
        let (end_ids, name, place) = (self.end_ids.clone(), name.to_owned(), self.place);
        let config = batcher_config(max_batch_tokens, kv_tokens);
        Arc::new(move |version| {
            let device = Device::new(place, &name, threads).map_err(|error| error.to_string())?;
            let transformer = transformer.on(device);
            let (tokenizer, end_ids) = (tokenizer.clone(), end_ids.clone());
            Batcher::new(transformer, tokenizer, end_ids, config, version.number, version.weights)
                .map(|batcher| Box::new(batcher) as Box<dyn ServingModel>)
                .map_err(|error| error.to_string())
        })
    }

    /// Builds the trainer, on threads of its own, with the weights it ships with.
    pub fn training(&self, config: AdamWConfig, micro_batch_tokens: usize, threads: usize) -> BuildTrainer {
        let (transformer, weights, place) = (self.transformer.clone(), self.weights.clone(), self.place);
        let recompute = self.parameters() > LARGE;
        Arc::new(move || {
            let error = |error: KernelError| error.to_string();
            let transformer = transformer.on(Device::new(place, "train", threads).map_err(error)?);
            let mut trainer = Trainer::of(transformer, &weights, config).map_err(error)?;
            trainer.micro_batch_tokens = micro_batch_tokens;
            trainer.recompute = recompute;
            Ok(trainer)
        })
    }
}

fn batcher_config(max_batch_tokens: usize, kv_tokens: usize) -> BatcherConfig {
    BatcherConfig {
        max_batch_tokens,
        max_sequences: MOST_SEQUENCES,
        kv_blocks: kv_tokens.div_ceil(BLOCK_TOKENS),
        block_size: BLOCK_TOKENS,
        max_waiting: MOST_WAITING,
        step_time: Some(STEP_TIME),
    }
}
