//! Learning rates of a supervised run: linear warm-up, a plateau, linear decay.

use serde::Deserialize;

/// Schedule and batch of a supervised run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Tokens to run through the model, prompts included.
    pub tokens: u64,
    /// Tokens of one optimizer step.
    pub batch_tokens: usize,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Share of the run after which the rate falls linearly, in \[0, 1\].
    pub decay_from: f64,
    /// Share of the peak rate at the end.
    pub final_rate: f64,
    /// Longer conversations are left out and counted.
    pub max_conversation_tokens: usize,
}

impl Schedule {
    /// Learning rate when `tokens` of the run are done and `step` steps were taken.
    pub fn learning_rate(&self, tokens: u64, step: u64) -> f32 {
        let warm = (step + 1) as f64 / self.warmup_steps.max(1) as f64;
        let done = tokens as f64 / self.tokens.max(1) as f64;
        let falling = ((done - self.decay_from) / (1.0 - self.decay_from).max(1e-9)).clamp(0.0, 1.0);
        let decay = 1.0 - falling * (1.0 - self.final_rate);
        (f64::from(self.learning_rate) * warm.min(1.0) * decay) as f32
    }
}
