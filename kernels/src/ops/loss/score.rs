//! What to read out of rows of logits.

/// Which log-probs to read from each row of logits.
#[derive(Clone, Copy, Debug)]
pub struct Score<I> {
    /// The taken token of each row. A negative target has log-prob and entropy 0; the rest is still read.
    pub targets: I,
    /// Further tokens whose log-probs are wanted.
    pub candidates: Option<Candidates<I>>,
}

/// Token ids to look up in each row: `ids [rows, k]`.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<I> {
    /// Ids per row.
    pub k: usize,
    /// The ids; a negative one is an empty slot, whose log-prob is 0.
    pub ids: I,
}

/// Where the results of a [`Score`] go.
#[derive(Debug)]
pub struct ScoreOut<F, I> {
    /// Log-prob of the taken token, `[rows]`.
    pub logprobs: F,
    /// Log-sum-exp of the tempered logits, `[rows]`.
    pub lse: F,
    /// Entropy of the whole distribution, `[rows]`.
    pub entropy: Option<F>,
    /// Log-probs of [`Score::candidates`], `[rows, k]`; present exactly when they are.
    pub candidates: Option<F>,
    /// The most likely tokens of each row.
    pub top: Option<TopK<F, I>>,
}

/// The `k` most likely tokens of each row, in falling order, equals by rising id; both views are `[rows, k]`.
/// Slots that no finite logit fills hold id -1 and log-prob `-inf`.
#[derive(Debug)]
pub struct TopK<F, I> {
    /// Tokens per row.
    pub k: usize,
    /// Their ids.
    pub ids: I,
    /// Their log-probs.
    pub logprobs: F,
}

/// Where the results of the gap between two models go; each view is `[rows]`.
#[derive(Debug)]
pub struct GapOut<F> {
    /// Log-prob of the taken token under the student.
    pub student: F,
    /// Log-prob of the taken token under the teacher.
    pub teacher: F,
    /// Teacher minus student.
    pub gap: F,
}

/// Whose logits a gap's gradient is taken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapSide {
    /// The student's, where the gap falls as the log-prob rises.
    Student,
    /// The teacher's.
    Teacher,
}
