//! A Qwen3-family transformer that can speak, score and learn. Knows no actor and no tokio.

pub mod serving;

pub use serving::{
    FinishReason, GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest, Scored, TokenLogprob,
};
