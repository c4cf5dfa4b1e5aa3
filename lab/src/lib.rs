//! What makes and measures models: pretraining, fine-tuning, evaluation, and the experiments behind the project's tables.

pub mod evaluate;
pub mod experiment;
pub mod judging;
pub mod muon;
pub mod pretrain;
pub mod schedule;
pub mod score;
pub mod sft;
pub mod supervised;
