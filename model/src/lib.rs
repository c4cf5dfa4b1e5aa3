//! A transformer that can speak, score and learn. Knows no actor and no tokio.

pub mod adapter;
mod backward;
mod base;
mod batcher;
mod blocks;
pub mod bpe;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod constraint;
pub mod detokenizer;
pub mod dialogue;
pub mod durable;
pub mod exact_json;
pub mod family;
pub mod generation_config;
pub mod gguf;
mod mapped;
pub mod messages;
pub mod output_parser;
mod pace;
pub mod params;
mod pass;
mod prefix_cache;
pub mod prompt;
pub mod python_json;
mod reply_split;
mod response;
mod sampler;
mod schedule;
mod scoring;
pub mod serving;
mod stop_strings;
mod strftime;
mod template_value;
pub mod text_error;
pub mod tokenizer;
pub mod training;
pub mod transformer;

pub use adapter::{AdapterConfig, AdapterError, AdapterLayout, Target, load_adapter, save_adapter};
pub use base::HostWeights;
pub use batcher::{Batcher, BatcherConfig, BatcherError, BatcherStats, SequenceId, SubmitError};
pub use bpe::train_bpe;
pub use chat_template::{ChatTemplate, NANO_TEMPLATE};
pub use checkpoint::{
    CheckpointError, Inspection, StoredVersion, VersionFolders, WeightDtype, fingerprint, inspect, text_files,
};
pub use config::{ConfigError, ModelConfig};
pub use constraint::{CallableTool, Constraint, ConstraintError, ConstraintFailed, Grammars, ToolCalls};
pub use detokenizer::IncrementalDetokenizer;
pub use dialogue::Dialogue;
pub use family::{Family, RopeScaling};
pub use generation_config::GenerationConfig;
pub use mapped::{Mapped, cache_folder as base_cache_folder};
pub use messages::{normalize_messages, unseen_parts};
pub use output_parser::{OutputDelta, OutputParser, ParserConfig, answer_in};
pub use params::{Parameter, ParameterLayout};
pub use prompt::{Prompt, PromptScript};
pub use python_json::PythonJson;
pub use reply_split::ReplySplit;
pub use sampler::{NotFinite, Sampler, SamplingError};
pub use serving::{
    FinishReason, GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest, Scored, TokenLogprob,
};
pub use stop_strings::{StopMatcher, StopStep};
pub use text_error::TextError;
pub use tokenizer::{NamedTokens, Tokenizer};
pub use training::{
    AdamWConfig, CandidateObjective, Objective, PolicyObjective, StateView, StepReport, SurrogateKind,
    TrainCandidate, TrainRow, TrainSequence, Trainer, TrainerState,
};
pub use transformer::{KvPool, PagedStep, Transformer, Weights, random_weights};
