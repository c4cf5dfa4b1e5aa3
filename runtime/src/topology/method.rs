//! `[method]`, read into the methods' own [`MethodConfig`], whose defaults are the published ones. An option
//! that the chosen kind does not use is an error: it would change nothing, and look as if it did.

use openclaw_actors::methods::{
    Bucket, Constant, Count, GroupConfig, KlConfig, KlEstimator, MethodConfig, MethodKind, Single, VerdictOn,
    VocabularyWeight,
};
use openclaw_model::SurrogateKind;
use serde::{Serialize, Serializer};
use toml::{Table, Value};

use super::{
    problems::{Problems, join},
    read::{FromToml, Keys, foreign_words},
};

// Hybrid has every option: when the kind is misspelt, its options are not to blame.
foreign_words!(
    MethodKind,
    Hybrid,
    ["binary_rl", "opd", "combine", "hybrid", "topk_distill", "grpo", "step_wise"]
);
foreign_words!(KlEstimator, LowVar, ["k1", "k2", "k3", "low_var"]);
foreign_words!(VocabularyWeight, Max, ["old", "max"]);
foreign_words!(VerdictOn, All, ["all", "disputed"]);
foreign_words!(Constant, Drop, ["drop", "keep"]);
foreign_words!(Single, Constant, ["constant", "raw"]);
foreign_words!(Bucket, Step, ["step", "state"]);
foreign_words!(Count, Episode, ["episode", "step"]);
foreign_words!(SurrogateKind, Ppo, ["ppo", "cispo", "gspo"]);

fn uses(kind: MethodKind, option: &str) -> bool {
    use MethodKind::{BinaryRl, Combine, Grpo, Hybrid, Opd, StepWise, TopkDistill};
    match option {
        "surrogate" | "clip_low" | "clip_high" | "dual_clip" | "importance_cap" => kind != TopkDistill,
        "weight_rl" | "weight_opd" | "verdict_on" => matches!(kind, Combine | Hybrid),
        "hints" => !matches!(kind, BinaryRl | Grpo | StepWise),
        "group" => matches!(kind, Grpo | StepWise),
        "top_k" => matches!(kind, Hybrid | TopkDistill),
        "diff_clip" => matches!(kind, Opd | Combine | Hybrid),
        "vocabulary_weight" | "add_teacher_top" => kind == Hybrid,
        _ => true,
    }
}

impl FromToml for MethodConfig {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let mut keys = Keys::open(value, key, problems);
        let kind: MethodKind = keys.required("kind");
        let published = Self::new(kind);
        macro_rules! read {
            ($($option:ident),*) => {
                Self {
                    kind,
                    $($option: if uses(kind, stringify!($option)) {
                        keys.optional(stringify!($option), || published.$option)
                    } else {
                        keys.unused(stringify!($option), &format!("{} has no such option", name(kind)));
                        published.$option
                    },)*
                }
            };
        }
        let method = read!(
            weight_rl,
            weight_opd,
            surrogate,
            clip_low,
            clip_high,
            dual_clip,
            importance_cap,
            kl,
            entropy_coef,
            hints,
            top_k,
            diff_clip,
            vocabulary_weight,
            verdict_on,
            add_teacher_top,
            group
        );
        keys.finish();
        method
    }

    fn placeholder() -> Self {
        Self::new(MethodKind::placeholder())
    }
}

impl FromToml for KlConfig {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let mut keys = Keys::open(value, key, problems);
        let kl = Self { kind: keys.required("kind"), coef: keys.required("coef") };
        keys.finish();
        kl
    }

    fn placeholder() -> Self {
        Self { kind: KlEstimator::LowVar, coef: 0.0 }
    }
}

impl FromToml for GroupConfig {
    fn from_toml(value: &Value, key: &str, problems: &mut Problems) -> Self {
        let mut keys = Keys::open(value, key, problems);
        let published = Self::default();
        let group = Self {
            normalize: keys.optional("normalize", || published.normalize),
            constant: keys.optional("constant", || published.constant),
            single: keys.optional("single", || published.single),
            bucket: keys.optional("bucket", || published.bucket),
            count: keys.optional("count", || published.count),
            outcome_weight: keys.optional("outcome_weight", || published.outcome_weight),
            step_weight: keys.optional("step_weight", || published.step_weight),
        };
        keys.finish();
        group
    }

    fn placeholder() -> Self {
        Self::default()
    }
}

/// Adds the values that the method itself refuses.
pub fn check(method: &MethodConfig, key: &str, problems: &mut Problems) {
    for problem in method.problems() {
        let (option, message) = problem.split_once(": ").unwrap_or(("kind", &problem));
        problems.add(&join(key, option), message);
    }
    for (option, value, most) in [("hints", method.hints, 16), ("top_k", method.top_k, 256)] {
        if let Some(value) = value.filter(|value| *value > most) {
            problems.add(&join(key, option), format!("{value} is above {most}"));
        }
    }
}

/// The word for `kind` in the topology file.
pub fn name(kind: MethodKind) -> String {
    match Value::try_from(kind) {
        Ok(Value::String(name)) => name,
        other => unreachable!("a method is written as a word, not as {other:?}"),
    }
}

/// Writes the options of the method's kind alone, so that the resolved file reads back.
pub fn write_used<S: Serializer>(method: &MethodConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let mut table = Table::try_from(method).map_err(serde::ser::Error::custom)?;
    table.retain(|option, _| uses(method.kind, option));
    table.iter_mut().for_each(|(_, value)| as_written(value));
    table.serialize(serializer)
}

/// 0.2 kept as `f32` is 0.20000000298 as `f64`: writes the short form, which reads back to the same `f32`.
fn as_written(value: &mut Value) {
    match value {
        Value::Float(number) => {
            *number = (*number as f32).to_string().parse().expect("a number is written as a number");
        }
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| as_written(value)),
        _ => {}
    }
}
