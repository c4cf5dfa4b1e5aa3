//! `[method]`: how signals become advantages and a loss. Each kind has its own options, with the published
//! values as defaults; an option that a kind does not use is an error.

use serde::ser::SerializeMap;
use toml::Value;

use super::{
    problems::{Problems, join},
    read::{FromToml, Keys, section, words},
};

words! {
    /// Which signals are learned from, and how.
    pub enum MethodKind {
        /// The verdict is every token's advantage.
        BinaryRl = "binary_rl",
        /// The teacher's log-prob minus the old one, per drawn token.
        Opd = "opd",
        /// The weighted sum of both.
        Combine = "combine",
        /// `combine` with several hint candidates, and distillation over the student's most likely ids.
        Hybrid = "hybrid",
        /// Reverse KL over the teacher's most likely ids and a bin for the rest.
        TopkDistill = "topk_distill",
    }
}

words! {
    /// How the distance to the base version is estimated.
    pub enum KlKind {
        /// d = log p - log p_base.
        K1 = "k1",
        /// d squared, halved.
        K2 = "k2",
        /// exp(-d) - 1 + d.
        K3 = "k3",
        /// `k3`, clamped to [-10, 10].
        LowVar = "low_var",
    }
}

words! {
    /// How per-token losses become one number.
    pub enum Reduction {
        /// The mean over each sample's tokens, then over the effective samples.
        SampleMean = "sample_mean",
        /// The mean over all tokens.
        TokenMean = "token_mean",
    }
}

words! {
    /// What an id counts for in `hybrid`'s distillation.
    pub enum VocabularyWeight {
        /// The old policy's probability: as published.
        Old = "old",
        /// The larger of the old policy's and the teacher's: a wanted but unlikely id gets a full push.
        Max = "max",
    }
}

section! {
    /// The pull back to the base version.
    pub struct Kl {
        /// The estimator.
        kind: KlKind,
        /// Its weight in the loss; 0 turns it off.
        coef: f64,
    }
}

/// `[method]`, resolved: an option that the kind does not use holds its neutral value.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// Which method.
    pub kind: MethodKind,
    /// Weight of the verdict; 0 for a method without it.
    pub weight_rl: f64,
    /// Weight of the teacher; 0 for a method without it.
    pub weight_opd: f64,
    /// The ratio is clipped at 1 - this.
    pub clip_low: f64,
    /// The ratio is clipped at 1 + this.
    pub clip_high: f64,
    /// Bounds the loss of a negative advantage at this many times it; above 1, none is off.
    pub dual_clip: Option<f64>,
    /// Truncates the importance weight between rollout and old log-probs.
    pub importance_cap: f64,
    /// The pull back to the base version.
    pub kl: Kl,
    /// Weight of an entropy bonus.
    pub entropy_coef: f64,
    /// How per-token losses become one number.
    pub reduction: Reduction,
    /// Most hint candidates per turn; 0 for a method without a teacher.
    pub hints: usize,
    /// Ids per position that are distilled; 0 for a method that takes drawn tokens only.
    pub top_k: usize,
    /// Clips teacher - old to this many nats; none is off.
    pub diff_clip: Option<f64>,
    /// What an id counts for.
    pub vocabulary_weight: VocabularyWeight,
}

impl MethodKind {
    /// Whether this kind has the option `name`.
    fn has(self, name: &str) -> bool {
        use MethodKind::{BinaryRl, Combine, Hybrid, Opd, TopkDistill};
        match name {
            "clip_low" | "clip_high" | "dual_clip" | "importance_cap" => self != TopkDistill,
            "weight_rl" | "weight_opd" => matches!(self, Combine | Hybrid),
            "hints" => self != BinaryRl,
            "top_k" => matches!(self, Hybrid | TopkDistill),
            "diff_clip" => matches!(self, Opd | Combine | Hybrid),
            "vocabulary_weight" => self == Hybrid,
            _ => true,
        }
    }

    /// Whether this kind needs a hint and a teacher.
    pub fn has_teacher(self) -> bool {
        self != Self::BinaryRl
    }
}

impl Method {
    /// The published defaults of `kind`.
    pub fn published(kind: MethodKind) -> Self {
        use MethodKind::{BinaryRl, Hybrid, Opd, TopkDistill};
        Self {
            kind,
            weight_rl: if matches!(kind, Opd | TopkDistill) { 0.0 } else { 1.0 },
            weight_opd: if kind == BinaryRl { 0.0 } else { 1.0 },
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            importance_cap: 2.0,
            kl: Kl { kind: KlKind::LowVar, coef: 0.0 },
            entropy_coef: 0.0,
            reduction: Reduction::SampleMean,
            hints: match kind {
                BinaryRl => 0,
                Hybrid => 3,
                _ => 1,
            },
            top_k: match kind {
                Hybrid => 4,
                TopkDistill => 50,
                _ => 0,
            },
            diff_clip: (kind == Hybrid).then_some(1.0),
            vocabulary_weight: VocabularyWeight::Old,
        }
    }
}

impl FromToml for Method {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let mut keys = Keys::open(value, key, problems);
        let kind: MethodKind = keys.required("kind");
        let published = Self::published(kind);
        macro_rules! read {
            ($($option:ident),*) => {
                Self {
                    kind,
                    $($option: if kind.has(stringify!($option)) {
                        keys.optional(stringify!($option), || published.$option)
                    } else {
                        keys.foreign(stringify!($option), &format!("{kind} has no such option"));
                        published.$option
                    },)*
                }
            };
        }
        let method = read!(
            weight_rl,
            weight_opd,
            clip_low,
            clip_high,
            dual_clip,
            importance_cap,
            kl,
            entropy_coef,
            reduction,
            hints,
            top_k,
            diff_clip,
            vocabulary_weight
        );
        keys.finish();
        method
    }

    fn placeholder() -> Self {
        Self::published(MethodKind::placeholder())
    }
}

/// Writes the options of the method's kind alone, so that the resolved file reads back.
impl serde::Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.kind)?;
        macro_rules! write {
            ($($option:ident),*) => {
                $(if self.kind.has(stringify!($option)) {
                    map.serialize_entry(stringify!($option), &self.$option)?;
                })*
            };
        }
        write!(
            weight_rl,
            weight_opd,
            clip_low, clip_high, importance_cap, entropy_coef, reduction, hints, top_k
        );
        write!(vocabulary_weight, kl);
        if let Some(dual_clip) = self.dual_clip {
            map.serialize_entry("dual_clip", &dual_clip)?;
        }
        if let Some(diff_clip) = self.diff_clip {
            map.serialize_entry("diff_clip", &diff_clip)?;
        }
        map.end()
    }
}

/// The ranges of `[method]`.
pub(super) fn check(method: &Method, key: &str, problems: &mut Problems) {
    let mut within = |name: &str, value: f64, range: std::ops::RangeInclusive<f64>| {
        if !range.contains(&value) {
            problems.add(&join(key, name), out_of_range(value, &range));
        }
    };
    within("weight_rl", method.weight_rl, 0.0..=100.0);
    within("weight_opd", method.weight_opd, 0.0..=100.0);
    within("clip_low", method.clip_low, 0.0..=1.0);
    within("clip_high", method.clip_high, 0.0..=10.0);
    within("importance_cap", method.importance_cap, 1.0..=100.0);
    within("kl.coef", method.kl.coef, 0.0..=100.0);
    within("entropy_coef", method.entropy_coef, -1.0..=1.0);
    if let Some(dual_clip) = method.dual_clip {
        within("dual_clip", dual_clip, 1.0..=100.0);
    }
    if let Some(diff_clip) = method.diff_clip {
        within("diff_clip", diff_clip, 1e-3..=100.0);
    }
    if method.kind.has("hints") {
        within("hints", method.hints as f64, 1.0..=16.0);
    }
    if method.kind.has("top_k") {
        within("top_k", method.top_k as f64, 1.0..=256.0);
    }
    if method.kind.has("weight_rl") && method.weight_rl == 0.0 && method.weight_opd == 0.0 {
        problems.add(&join(key, "weight_rl"), "is 0, and so is weight_opd: nothing would be learned");
    }
}

/// `7 is not from 0 to 1`.
pub(super) fn out_of_range(value: f64, range: &std::ops::RangeInclusive<f64>) -> String {
    format!("{value} is not from {} to {}", range.start(), range.end())
}
