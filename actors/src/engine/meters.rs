//! What an engine's thread counts. It holds its handles: it turns its loop thousands of times a second.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use openclaw_model::BatcherStats;

use super::{ServingModel, serving_model::GpuMemory};

/// Handles of one engine's metrics.
pub(super) struct Meters {
    pub cancelled: Counter,
    pub refused: Counter,
    pub version: Gauge,
    generated: Counter,
    scored: Counter,
    prompt: Counter,
    cached: Counter,
    preemptions: Counter,
    step: Histogram,
    score: Histogram,
    load: Histogram,
    sequences: Gauge,
    blocks_used: Gauge,
    blocks_cached: Gauge,
    blocks_free: Gauge,
    gpu_live: Gauge,
    gpu_kept: Gauge,
    gpu_free: Gauge,
    /// The model's own counts when they were last read: they begin anew with each thread, the counters do not.
    seen: BatcherStats,
}

impl Meters {
    /// `engine` comes from the topology.
    pub fn new(engine: &str) -> Self {
        let engine = || engine.to_owned();
        let blocks =
            |state: &'static str| gauge!("openclaw_engine_kv_blocks", "engine" => engine(), "state" => state);
        // Of the process, whichever engine tells: all engines of a node share its GPU.
        let gpu = |state: &'static str| gauge!("openclaw_gpu_memory_bytes", "state" => state);
        Self {
            cancelled: counter!("openclaw_engine_cancelled_total", "engine" => engine()),
            refused: counter!("openclaw_engine_refused_total", "engine" => engine()),
            version: gauge!("openclaw_engine_policy_version", "engine" => engine()),
            generated: counter!("openclaw_engine_generated_tokens_total", "engine" => engine()),
            scored: counter!("openclaw_engine_scored_tokens_total", "engine" => engine()),
            prompt: counter!("openclaw_engine_prompt_tokens_total", "engine" => engine()),
            cached: counter!("openclaw_engine_cached_tokens_total", "engine" => engine()),
            preemptions: counter!("openclaw_engine_preemptions_total", "engine" => engine()),
            step: histogram!("openclaw_engine_step_seconds", "engine" => engine()),
            score: histogram!("openclaw_engine_score_seconds", "engine" => engine()),
            load: histogram!("openclaw_engine_load_seconds", "engine" => engine()),
            sequences: gauge!("openclaw_engine_sequences", "engine" => engine()),
            blocks_used: blocks("used"),
            blocks_cached: blocks("cached"),
            blocks_free: blocks("free"),
            gpu_live: gpu("live"),
            gpu_kept: gpu("kept"),
            gpu_free: gpu("free"),
            seen: BatcherStats::default(),
        }
    }

    /// A forward pass drew `tokens`; `sequences` go on.
    pub fn stepped(&mut self, took: Duration, tokens: u64, sequences: usize, model: &dyn ServingModel) {
        let stats = model.stats();
        self.step.record(took);
        self.generated.increment(tokens);
        self.sequences.set(sequences as f64);
        let seen = std::mem::replace(&mut self.seen, stats);
        self.prompt.increment(stats.prompt_tokens.saturating_sub(seen.prompt_tokens));
        self.cached.increment(stats.cached_tokens.saturating_sub(seen.cached_tokens));
        self.preemptions.increment(stats.preemptions.saturating_sub(seen.preemptions));
        let (used, cached) = (stats.kv_blocks_used, stats.kv_blocks_cached);
        self.blocks_used.set(used as f64);
        self.blocks_cached.set(cached as f64);
        self.blocks_free.set(stats.kv_blocks_total.saturating_sub(used + cached) as f64);
        if let Some(GpuMemory { live_bytes, kept_bytes, total_bytes }) = model.gpu_memory() {
            self.gpu_live.set(live_bytes as f64);
            self.gpu_kept.set(kept_bytes as f64);
            self.gpu_free.set(total_bytes.saturating_sub(live_bytes + kept_bytes) as f64);
        }
    }

    /// A request of `tokens` was scored.
    pub fn scored(&self, took: Duration, tokens: usize) {
        self.score.record(took);
        self.scored.increment(tokens as u64);
    }

    /// `version` serves from now on.
    pub fn loaded(&self, took: Duration, version: u64) {
        self.load.record(took);
        self.version.set(version as f64);
    }

    /// The thread ends, with everything that ran.
    pub fn ended(&self) {
        self.sequences.set(0.0);
        self.blocks_used.set(0.0);
    }
}
