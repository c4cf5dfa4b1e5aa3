//! What an engine thread drives: the model side of an engine.

use std::sync::Arc;

pub use openclaw_kernels::{Device, Place};
use openclaw_model::{
    Batcher, BatcherStats, ChatTemplate, GenerateEvent, GenerateRequest, Prompt, ScoreRequest, Scored,
    SequenceId, TextError, Tokenizer, Weights,
};
use serde_json::{Map, Value};

/// What an engine thread drives.
pub trait ServingModel {
    /// Names a sequence; ids are not reused.
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String>;
    /// Forgets a sequence or a scoring.
    fn cancel(&mut self, sequence: u64);
    /// Moves every running sequence on by a token or a chunk of its prompt.
    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String>;
    /// No sequence runs or waits.
    fn is_idle(&self) -> bool;
    /// New sequences use these weights; running ones end on theirs.
    fn load(&mut self, version: u64, weights: PolicyWeights) -> Result<(), String>;
    /// Names a scoring, as [`ServingModel::submit`] does a sequence.
    fn submit_score(&mut self, request: ScoreRequest) -> Result<u64, String>;
    /// Moves scorings on by a piece, and returns those that are complete.
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String>;
    /// A scoring runs or waits.
    fn is_scoring(&self) -> bool;
    /// The version that new sequences use.
    fn version(&self) -> u64;
    /// What it has done and holds; zeros where it does not count.
    fn stats(&self) -> BatcherStats {
        BatcherStats::default()
    }
    /// What its GPU's memory is used for; none on a CPU.
    fn gpu_memory(&self) -> Option<GpuMemory> {
        None
    }
}

/// What a GPU's memory is used for by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    /// In buffers.
    pub live_bytes: u64,
    /// Kept for later buffers.
    pub kept_bytes: u64,
    /// All that it has.
    pub total_bytes: u64,
}

impl ServingModel for Batcher<Device> {
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String> {
        Batcher::submit(self, request).map(|SequenceId(id)| id).map_err(|error| error.to_string())
    }
    fn cancel(&mut self, sequence: u64) {
        Batcher::cancel(self, SequenceId(sequence));
    }
    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
        let events = Batcher::step(self).map_err(|error| error.to_string())?;
        Ok(events.into_iter().map(|(SequenceId(id), event)| (id, event)).collect())
    }
    fn is_idle(&self) -> bool {
        Batcher::is_idle(self)
    }
    fn load(&mut self, version: u64, weights: PolicyWeights) -> Result<(), String> {
        Batcher::load(self, version, weights);
        Ok(())
    }
    fn submit_score(&mut self, request: ScoreRequest) -> Result<u64, String> {
        Batcher::submit_score(self, request).map(|SequenceId(id)| id).map_err(|error| error.to_string())
    }
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
        let scored = Batcher::step_scores(self).map_err(|error| error.to_string())?;
        Ok(scored.into_iter().map(|(SequenceId(id), scored)| (id, scored)).collect())
    }
    fn is_scoring(&self) -> bool {
        Batcher::is_scoring(self)
    }
    fn version(&self) -> u64 {
        Batcher::version(self)
    }
    fn stats(&self) -> BatcherStats {
        Batcher::stats(self)
    }
    fn gpu_memory(&self) -> Option<GpuMemory> {
        let Device::Cuda(cuda) = self.device() else { return None };
        let used = cuda.memory_use();
        let (live_bytes, kept_bytes) = (used.live_bytes as u64, used.kept_bytes as u64);
        Some(GpuMemory { live_bytes, kept_bytes, total_bytes: cuda.properties().memory_bytes })
    }
}

/// One version's parameters.
pub type PolicyWeights = Arc<Weights<Device>>;

/// How an engine's model reads and writes text.
#[derive(Clone, Debug)]
pub struct EngineText {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to a prompt.
    pub template: ChatTemplate,
    /// Most tokens of a prompt and its response.
    pub context_tokens: usize,
}

impl EngineText {
    /// The ids of the prompt that asks for the assistant's next message.
    pub fn prompt_ids(
        &self,
        messages: &[Value],
        tools: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Vec<u32>, TextError> {
        Ok(Prompt::new(&self.tokenizer, &self.template, messages, tools, kwargs)?.ids)
    }

    /// Whether what follows these ids stands within a thought that the prompt has opened.
    pub fn opens_a_thought(&self, prompt_ids: &[u32]) -> bool {
        // The mark is a token of its own or a few short ones, and blank lines may follow it.
        let last = &prompt_ids[prompt_ids.len().saturating_sub(16)..];
        self.tokenizer.decode(last, false).trim_end().ends_with("<think>")
    }
}
