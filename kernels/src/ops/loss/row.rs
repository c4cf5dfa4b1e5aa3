//! The general row loss: a weighted sum of terms in the log-probs of one row of logits.

use crate::backend::Element;

/// The loss `sum_i weight_i * (token_i + kl_i + candidates_i - entropy_coef * entropy_i)`.
///
/// One algebra covers every term, `dL/dx_j = p_j (a + b t_j) + sparse_j`: a scalar routine per row finds `a`,
/// `b` and the sparse part between one reading pass and one writing pass.
///
/// A row with weight 0 or a negative target is ignored: none of its other inputs is read, its gradient and its
/// statistics are 0.
#[derive(Clone, Copy, Debug)]
pub struct RowLoss<F, I> {
    /// Weight of each row, `[rows]`; see [`super::sample_mean_weights`].
    pub weights: F,
    /// The taken token of each row, `[rows]`.
    pub targets: I,
    /// What is asked of the taken token.
    pub token: TokenTerm<F>,
    /// Distance from a reference model, estimated on the taken token.
    pub kl: Option<KlTerm<F>>,
    /// What is asked of several tokens of each row.
    pub candidates: Option<CandidateTerm<F, I>>,
    /// Rewards entropy of the whole distribution.
    pub entropy_coef: f32,
}

impl<F, I> RowLoss<F, I> {
    /// Plain cross-entropy, for supervised training.
    pub fn cross_entropy(weights: F, targets: I) -> Self {
        let token = TokenTerm::CrossEntropy;
        Self { weights, targets, token, kl: None, candidates: None, entropy_coef: 0.0 }
    }
}

/// The term of the taken token.
#[derive(Clone, Copy, Debug)]
pub enum TokenTerm<F> {
    /// Nothing.
    None,
    /// `-log p`.
    CrossEntropy,
    /// The policy gradient.
    Policy(PolicyTerm<F>),
}

/// `importance` times a surrogate of the policy's improvement. Every view is `[rows]`.
#[derive(Clone, Copy, Debug)]
pub struct PolicyTerm<F> {
    /// What is minimised.
    pub surrogate: Surrogate<F>,
    /// Advantage `A` of the taken token.
    pub advantages: F,
    /// Truncated importance weights of the rollout policy, taken as constants.
    pub importance: Option<F>,
    /// The clip.
    pub clip: ClipRange,
}

/// What the policy gradient minimises, by the ratio of the taken token `rho = exp(log p - old)` or of its sample.
#[derive(Clone, Copy, Debug)]
pub enum Surrogate<F> {
    /// `max(-rho A, -clip(rho, 1 - low, 1 + high) A)`, and with a dual clip `c` at most `-c A` where `A < 0`
    /// (Schulman et al. 2017). At a tie the un-clipped gradient flows.
    Ppo {
        /// Log-prob of the taken token under the policy that is improved upon.
        old_logprobs: F,
    },
    /// `-clip(rho, 1 - low, 1 + high) A log p` whose clipped ratio is a constant: a clip bounds a token's
    /// weight and never silences it (CISPO, MiniMax 2025, arXiv 2506.13585). It has no dual clip.
    Cispo {
        /// Log-prob of the taken token under the policy that is improved upon.
        old_logprobs: F,
    },
    /// PPO's surrogate with the ratio `s` of the whole sample in place of `rho` (GSPO, Zheng et al. 2025,
    /// arXiv 2507.18071).
    ///
    /// With `s = exp(mean of log p - old)` over the `n` unmasked tokens of a sample, `ds/dlog p = s / n` for each of
    /// them. A row therefore has the sample's value, and the derivative `-s A` where that is not clipped; weighted
    /// by [`super::sample_mean_weights`], `1 / (S n)` each, the rows sum to exactly the published objective
    /// `1/S sum max(-s A, -clip(s) A)` and to its gradient. Where `A` differs inside a sample it is GSPO-token.
    Gspo {
        /// The ratio `s` of each row's sample: see [`super::sequence_ratios`].
        ratios: F,
    },
}

/// How far a probability ratio may move before its gradient stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipRange {
    /// Below 1.
    pub low: f32,
    /// Above 1.
    pub high: f32,
    /// Bound on the ratio where the advantage is negative, above 1 (Ye et al. 2020).
    pub dual: Option<f32>,
}

/// `coef * KL` between the policy and a reference, from the taken token's log-prob.
#[derive(Clone, Copy, Debug)]
pub struct KlTerm<F> {
    /// The estimator.
    pub kind: KlKind,
    /// Its weight in the loss.
    pub coef: f32,
    /// Log-prob of the taken token under the reference, `[rows]`.
    pub reference: F,
}

/// Estimators of KL(policy | reference) with `d = log p - reference` (Schulman 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlKind {
    /// `d`.
    K1,
    /// `d^2 / 2`.
    K2,
    /// `exp(-d) - 1 + d`.
    K3,
    /// [`KlKind::K3`] clamped to [-10, 10].
    LowVar,
}

/// `coef` times a loss over `k` token ids of each row.
#[derive(Clone, Copy, Debug)]
pub struct CandidateTerm<F, I> {
    /// Ids per row.
    pub k: usize,
    /// The ids, `[rows, k]`. A negative id is an empty slot; an id that repeats in its row counts once.
    pub ids: I,
    /// Weight of the term in the loss.
    pub coef: f32,
    /// The loss.
    pub loss: CandidateLoss<F>,
}

/// A loss over the candidates of a row; every view is `[rows, k]`.
#[derive(Clone, Copy, Debug)]
pub enum CandidateLoss<F> {
    /// KL(student | teacher) over the candidates and one tail bin that holds all other tokens. A tail below 1e-7
    /// counts as 1e-7 and has no gradient.
    ReverseKl {
        /// Log-probs of the candidates under the teacher.
        teacher_logprobs: F,
        /// Rewards entropy over the same bins.
        entropy_coef: f32,
    },
    /// `sum_v w_v max(-rho_v A_v, -clip(rho_v) A_v)` with `rho_v = exp(log p_v - old_v)`.
    Policy {
        /// Advantages `A_v`.
        advantages: F,
        /// Weights `w_v`; a candidate with weight 0 is not read.
        weights: F,
        /// Log-probs under the policy that is improved upon.
        old_logprobs: F,
        /// The clip.
        clip: ClipRange,
    },
}

/// What happened in one row, before its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RowStat {
    /// All terms together.
    pub loss: f32,
    /// Log-prob of the taken token.
    pub logprob: f32,
    /// Entropy of the whole distribution.
    pub entropy: f32,
    /// The KL estimate, without its coefficient.
    pub kl: f32,
    /// The candidate loss, without its coefficient and without its entropy.
    pub candidates: f32,
    /// Whether the taken token's ratio was clipped: see [`RowStat::clipped`].
    pub clip: u32,
}

impl Element for RowStat {}

impl RowStat {
    /// What clipped the ratio of the taken token.
    pub fn clipped(&self) -> Clipped {
        match self.clip {
            0 => Clipped::No,
            1 => Clipped::Range,
            _ => Clipped::Dual,
        }
    }
}

/// What stopped a token's policy gradient, or bounded it under [`Surrogate::Cispo`]; `as u32` is the code in
/// [`RowStat::clip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clipped {
    /// Nothing.
    No = 0,
    /// The clip range.
    Range = 1,
    /// The dual clip.
    Dual = 2,
}
