//! A Qwen3-family transformer that can speak, score and learn. Knows no actor and no tokio.

pub mod checkpoint;
pub mod config;
pub mod params;
pub mod serving;
pub mod transformer;

pub use checkpoint::{CheckpointError, WeightDtype};
pub use config::{ConfigError, ModelConfig};
pub use params::{Parameter, ParameterLayout};
pub use serving::{
    FinishReason, GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest, Scored, TokenLogprob,
};
pub use transformer::{KvPool, PagedStep, Transformer, Weights, random_weights};
