//! From signals to what each response token is taught, one file per method.
//!
//! Everything here is a pure function of a [`Sample`]. A method never pads: streams that do not align with the
//! response are an error, and a signal that is missing is a term that is missing.

mod binary_rl;
mod combine;
mod group;
mod grpo;
mod hybrid;
mod opd;
mod step_wise;
mod topk_distill;

use openclaw_journal::Sample;
use openclaw_model::SurrogateKind;
use serde::{Deserialize, Serialize};

pub use self::group::{Bucket, Constant, Count, GroupConfig, Single};
use crate::hints::HintSelection;

/// Which method turns signals into advantages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// The verdict, for every token.
    BinaryRl,
    /// The teacher's gap on the drawn tokens.
    Opd,
    /// Both, weighted.
    Combine,
    /// The verdict on the drawn tokens and the teacher's gap on the student's most likely ids.
    Hybrid,
    /// Reverse KL to the teacher over its most likely ids and a tail.
    TopkDistill,
    /// An episode's outcome beside those of its group.
    Grpo,
    /// Outcome and step verdict, beside those of the same step in the group.
    StepWise,
}

/// What a method learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Hints, and a teacher that is shown them.
    pub hints: bool,
    /// Episodes that came out, beside others of their group.
    pub episodes: bool,
    /// What a judge makes of each turn.
    pub verdicts: bool,
}

/// Estimator of the KL to the base version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `d`, where `d = log p_new - log p_ref`.
    K1,
    /// `d^2 / 2`.
    K2,
    /// `exp(-d) - 1 + d`.
    K3,
    /// `k3`, clamped to [-10, 10].
    LowVar,
}

/// The KL term of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlConfig {
    /// Its estimator.
    pub kind: KlEstimator,
    /// Its weight; 0 leaves it out, and then nothing asks the base version.
    pub coef: f32,
}

/// How much an id of the student's top-k counts in `hybrid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VocabularyWeight {
    /// By p_old, as published: an id the student hardly draws is hardly pushed.
    Old,
    /// By the larger of p_old and p_teacher: an id the teacher wants is pushed as hard as it is wanted.
    #[default]
    Max,
}

/// Which tokens of a reply the verdict is credited to, where a teacher saw a hint for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictOn {
    /// Every one, as published: the digits of a reply whose style was disliked, too.
    #[default]
    All,
    /// Those that the teacher would have said otherwise.
    Disputed,
}

/// The `[method]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodConfig {
    /// Which.
    pub kind: MethodKind,
    /// Weight of the verdict. Default 1 (published).
    #[serde(default = "one")]
    pub weight_rl: f32,
    /// Weight of the teacher's gap. Default 1 (published).
    #[serde(default = "one")]
    pub weight_opd: f32,
    /// What is minimised for the drawn tokens; ids of `hybrid` that were not drawn take `ppo`. Default `ppo`
    /// (published). Sequence ratios (`gspo`) move far less than those of tokens: 3e-4 and 4e-4 are its published clips.
    #[serde(default)]
    pub surrogate: SurrogateKind,
    /// The ratio is clipped below at `1 - clip_low`. Default 0.2 (published).
    #[serde(default = "default_clip_low")]
    pub clip_low: f32,
    /// The ratio is clipped above at `1 + clip_high`. Default 0.28 (published).
    #[serde(default = "default_clip_high")]
    pub clip_high: f32,
    /// Bounds the loss of a negative advantage at `-dual_clip * A`. Default: off (published).
    #[serde(default)]
    pub dual_clip: Option<f32>,
    /// Pull towards the base version. Default: `low_var`, 0.01.
    #[serde(default = "default_kl")]
    pub kl: KlConfig,
    /// Weight of the entropy bonus. Default 0 (published).
    #[serde(default)]
    pub entropy_coef: f32,
    /// Most hint candidates the teacher tries. Default 3 for `hybrid`, else 1 (published).
    #[serde(default)]
    pub hints: Option<usize>,
    /// Ids per token: the student's for `hybrid` (default 4), the teacher's for `topk_distill` (default 50).
    #[serde(default)]
    pub top_k: Option<usize>,
    /// The teacher's gap is clipped to +- this. Default 1 for `hybrid`, else off (published).
    #[serde(default)]
    pub diff_clip: Option<f32>,
    /// `hybrid`: weight of an id. Default `max`, which measures better than the published `old` on small models.
    #[serde(default)]
    pub vocabulary_weight: VocabularyWeight,
    /// `combine` and `hybrid`: the tokens of a reply with a hint that its verdict counts for. Default `all` (published);
    /// `disputed` keeps a dislike of style off what the hint does not touch.
    #[serde(default)]
    pub verdict_on: VerdictOn,
    /// `hybrid`: also teach the teacher's most likely id where the student's top-k lacks it. Default off (published).
    #[serde(default)]
    pub add_teacher_top: bool,
    /// `grpo` and `step_wise`: how a group is compared.
    #[serde(default)]
    pub group: GroupConfig,
    /// Cap of the importance weight `p_old / p_rollout`. Default 2 (published).
    #[serde(default = "default_importance_cap")]
    pub importance_cap: f32,
}

fn one() -> f32 {
    1.0
}
fn default_clip_low() -> f32 {
    0.2
}
fn default_clip_high() -> f32 {
    0.28
}
fn default_kl() -> KlConfig {
    KlConfig { kind: KlEstimator::LowVar, coef: 0.01 }
}
fn default_importance_cap() -> f32 {
    2.0
}

impl MethodConfig {
    /// `kind` with its published defaults.
    pub fn new(kind: MethodKind) -> Self {
        Self {
            kind,
            weight_rl: one(),
            weight_opd: one(),
            surrogate: SurrogateKind::default(),
            clip_low: default_clip_low(),
            clip_high: default_clip_high(),
            dual_clip: None,
            kl: default_kl(),
            entropy_coef: 0.0,
            hints: None,
            top_k: None,
            diff_clip: None,
            vocabulary_weight: VocabularyWeight::default(),
            verdict_on: VerdictOn::default(),
            add_teacher_top: false,
            group: GroupConfig::default(),
            importance_cap: default_importance_cap(),
        }
    }

    /// Every value that the method cannot use, as `key: what is wrong`.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, key: &str, wants: &str, value: f32| {
            if !holds {
                problems.push(format!("{key}: {value} is not {wants}"));
            }
        };
        check(self.weight_rl.is_finite(), "weight_rl", "a number", self.weight_rl);
        check(self.weight_opd.is_finite(), "weight_opd", "a number", self.weight_opd);
        check((0.0..1.0).contains(&self.clip_low), "clip_low", "in [0, 1)", self.clip_low);
        check(self.clip_high >= 0.0, "clip_high", "at least 0", self.clip_high);
        check(self.kl.coef >= 0.0, "kl.coef", "at least 0", self.kl.coef);
        check(self.entropy_coef >= 0.0, "entropy_coef", "at least 0", self.entropy_coef);
        let GroupConfig { outcome_weight, step_weight, .. } = self.group;
        check(outcome_weight.is_finite(), "group.outcome_weight", "a number", outcome_weight);
        let step_weight = step_weight.unwrap_or_default();
        check(step_weight.is_finite(), "group.step_weight", "a number", step_weight);
        check(self.importance_cap > 0.0, "importance_cap", "above 0", self.importance_cap);
        if let Some(dual_clip) = self.dual_clip {
            check(dual_clip > 1.0, "dual_clip", "above 1", dual_clip);
            let bounded = self.surrogate == SurrogateKind::Cispo;
            check(!bounded, "dual_clip", "an option of cispo, which bounds every ratio", dual_clip);
        }
        if let Some(diff_clip) = self.diff_clip {
            check(diff_clip > 0.0, "diff_clip", "above 0", diff_clip);
        }
        for (key, value) in [("hints", self.hints), ("top_k", self.top_k)] {
            check(value != Some(0), key, "at least 1", 0.0);
        }
        problems
    }

    /// What it learns from.
    pub fn needs(&self) -> Needs {
        let (none, verdicts) = (Needs::default(), Needs { verdicts: true, ..Needs::default() });
        match self.kind {
            MethodKind::BinaryRl => verdicts,
            MethodKind::Opd | MethodKind::TopkDistill | MethodKind::Combine | MethodKind::Hybrid => {
                Needs { hints: true, ..verdicts }
            }
            MethodKind::Grpo | MethodKind::StepWise => {
                Needs { episodes: true, verdicts: self.group.step_weight(self.kind) != 0.0, ..none }
            }
        }
    }

    /// Whether the judge should look for hints at all.
    pub fn needs_hints(&self) -> bool {
        self.needs().hints
    }

    /// Which of the hints found go to the teacher; none where the method has no teacher.
    pub fn hint_selection(&self) -> Option<HintSelection> {
        if !self.needs_hints() {
            return None;
        }
        match self.hints.unwrap_or(if self.kind == MethodKind::Hybrid { 3 } else { 1 }) {
            1 => Some(HintSelection::Longest),
            most => Some(HintSelection::Shortest(most)),
        }
    }

    /// How many of the student's most likely ids the teacher stage must report per token.
    pub fn student_top_k(&self) -> usize {
        if self.kind == MethodKind::Hybrid { self.top_k.unwrap_or(4) } else { 0 }
    }

    /// How many of the teacher's most likely ids the teacher stage must report per token.
    pub fn teacher_top_k(&self) -> usize {
        match self.kind {
            MethodKind::TopkDistill => self.top_k.unwrap_or(50),
            MethodKind::Hybrid if self.add_teacher_top => 1,
            _ => 0,
        }
    }

    fn clip_gap(&self, gap: f32) -> f32 {
        let default = (self.kind == MethodKind::Hybrid).then_some(1.0);
        match self.diff_clip.or(default) {
            Some(bound) => gap.clamp(-bound, bound),
            None => gap,
        }
    }

    /// Whether `sample` teaches this method anything.
    pub fn is_effective(&self, sample: &Sample) -> bool {
        let rewarded = matches!(sample.verdict.reward, Some(1 | -1));
        match self.kind {
            MethodKind::BinaryRl => rewarded,
            MethodKind::Opd | MethodKind::TopkDistill => sample.teacher.is_some(),
            MethodKind::Combine | MethodKind::Hybrid => rewarded || sample.teacher.is_some(),
            MethodKind::Grpo | MethodKind::StepWise => self.group_advantage(sample).is_some(),
        }
    }

    /// What each response token is taught: exactly one entry per response token.
    pub fn targets(&self, sample: &Sample) -> Result<Vec<TokenTarget>, Misaligned> {
        check_alignment(sample)?;
        Ok(match self.kind {
            MethodKind::BinaryRl => binary_rl::targets(self, sample),
            MethodKind::Opd => opd::targets(self, sample),
            MethodKind::Combine => combine::targets(self, sample),
            MethodKind::Hybrid => hybrid::targets(self, sample),
            MethodKind::TopkDistill => topk_distill::targets(sample),
            MethodKind::Grpo | MethodKind::StepWise => {
                let advantage = self.group_advantage(sample).unwrap_or_default();
                taken_targets(self, sample, |_| advantage)
            }
        })
    }

    /// The same for every token of a step; none where it is not trained on.
    fn group_advantage(&self, sample: &Sample) -> Option<f32> {
        match self.kind {
            MethodKind::StepWise => step_wise::advantage(self, sample),
            _ => grpo::advantage(self, sample),
        }
    }
}

/// What one response token is taught.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenTarget {
    /// The policy-gradient term of the drawn token.
    pub taken: Option<TakenTarget>,
    /// Policy-gradient terms of ids, drawn or not.
    pub vocabulary: Vec<VocabularyTarget>,
    /// Reverse KL to the teacher.
    pub distill: Option<DistillTarget>,
}

/// The policy-gradient term of a drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TakenTarget {
    /// Its advantage.
    pub advantage: f32,
    /// log p_old: the denominator of the ratio.
    pub old_logprob: f32,
    /// Truncated `p_old / p_rollout`, of whole distributions; 1 where `old` is the policy that drew.
    pub importance_weight: f32,
}

/// The policy-gradient term of one id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VocabularyTarget {
    /// The id.
    pub id: u32,
    /// How much it counts.
    pub weight: f32,
    /// Its advantage.
    pub advantage: f32,
    /// log p_old of it.
    pub old_logprob: f32,
}

/// What the teacher says of a position: its most likely ids; everything else is one tail bin.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillTarget {
    /// The ids.
    pub ids: Vec<u32>,
    /// log p_teacher of each.
    pub teacher_logprobs: Vec<f32>,
}

/// A stream does not have one entry per response token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stream} has {got} values for {expected} response tokens")]
pub struct Misaligned {
    /// The stream.
    pub stream: &'static str,
    /// How many values it has.
    pub got: usize,
    /// How many it must have.
    pub expected: usize,
}

/// Errs when a stream of `sample` does not have one entry per response token.
pub fn check_alignment(sample: &Sample) -> Result<(), Misaligned> {
    let completion = &sample.turn.completion;
    let expected = completion.response_ids.len();
    let aligned = |stream, got| {
        if got == expected { Ok(()) } else { Err(Misaligned { stream, got, expected }) }
    };
    aligned("rollout_logprobs", completion.rollout_logprobs.len())?;
    aligned("policy_logprobs", completion.compared_logprobs().len())?;
    let Some(teacher) = &sample.teacher else { return Ok(()) };
    aligned("teacher logprobs", teacher.logprobs.len())?;
    aligned("old_logprobs", teacher.old_logprobs.len())?;
    for (stream, top) in [("student_top", &teacher.student_top), ("teacher_top", &teacher.teacher_top)] {
        if !top.is_empty() {
            aligned(stream, top.len())?;
        }
        for candidates in top {
            let wanted = candidates.ids.len();
            let agree = |stream, got| {
                if got == wanted { Ok(()) } else { Err(Misaligned { stream, got, expected: wanted }) }
            };
            agree("teacher logprobs of candidates", candidates.teacher_logprobs.len())?;
            agree("old_logprobs of candidates", candidates.old_logprobs.len())?;
        }
    }
    Ok(())
}

/// One target per token whose drawn token has the advantage that `advantage` gives for its index.
///
/// Where the teacher stage scored the plain prompt, that is `old`, and the step from the policy that drew to it is
/// bridged by a truncated importance weight; else `old` is that policy itself and the clipped ratio covers the whole
/// way. All of them are whole distributions at one temperature, whatever part of it a token was drawn from.
fn taken_targets(
    config: &MethodConfig,
    sample: &Sample,
    advantage: impl Fn(usize) -> f32,
) -> Vec<TokenTarget> {
    let drawn = sample.turn.completion.compared_logprobs();
    drawn
        .iter()
        .enumerate()
        .map(|(t, &drawn)| {
            let (old_logprob, importance_weight) = match &sample.teacher {
                Some(teacher) => {
                    let old = teacher.old_logprobs[t];
                    (old, (old - drawn).exp().min(config.importance_cap))
                }
                None => (drawn, 1.0),
            };
            let taken = TakenTarget { advantage: advantage(t), old_logprob, importance_weight };
            TokenTarget { taken: Some(taken), ..TokenTarget::default() }
        })
        .collect()
}

/// The verdict as a number; none counts as neutral.
fn reward(sample: &Sample) -> f32 {
    sample.verdict.reward.map_or(0.0, f32::from)
}

/// The weighted verdict as token `t` is credited with it.
fn verdict(config: &MethodConfig, sample: &Sample, t: usize) -> f32 {
    /// A teacher that differs by less says the same.
    const DISPUTED_NATS: f32 = 0.1;
    let agrees = |teacher: &openclaw_journal::TeacherSignal| {
        (teacher.logprobs[t] - teacher.old_logprobs[t]).abs() < DISPUTED_NATS
    };
    match (config.verdict_on, &sample.teacher) {
        (VerdictOn::Disputed, Some(teacher)) if agrees(teacher) => 0.0,
        _ => config.weight_rl * reward(sample),
    }
}

/// log p_teacher - log p_old of token `t`, clipped; 0 without a teacher.
fn gap(config: &MethodConfig, sample: &Sample, t: usize) -> f32 {
    sample
        .teacher
        .as_ref()
        .map_or(0.0, |teacher| config.clip_gap(teacher.logprobs[t] - teacher.old_logprobs[t]))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use openclaw_model::FinishReason;

    use super::*;
    use openclaw_journal::*;

    /// Response tokens with these rollout log-probs, a verdict and perhaps a teacher.
    pub(crate) fn sample(rollout: &[f32], reward: Option<i8>, teacher: Option<TeacherSignal>) -> Sample {
        let response_ids: Vec<u32> = (10..).take(rollout.len()).collect();
        let turn = Turn {
            id: TurnId("turn".into()),
            session: SessionId("session".into()),
            index: 1,
            kind: TurnKind::Main,
            trainable: true,
            messages: Arc::default(),
            tools: Arc::default(),
            template_kwargs: Arc::default(),
            completion: Completion {
                prompt_ids: vec![1, 2, 3],
                response_ids,
                rollout_logprobs: rollout.to_vec(),
                policy_logprobs: None,
                policy_version: 3,
                temperature: 1.0,
                finish_reason: FinishReason::Stop,
                text: "an answer".to_owned(),
                split: Default::default(),
            },
        };
        Sample {
            turn: Arc::new(turn),
            verdict: Verdict { reward, votes: vec![reward], rule: None },
            teacher,
            standing: None,
        }
    }

    /// A teacher without candidates.
    pub(crate) fn teacher(old: &[f32], teacher: &[f32]) -> TeacherSignal {
        TeacherSignal {
            hint: "Write plain sentences.".to_owned(),
            logprobs: teacher.to_vec(),
            old_logprobs: old.to_vec(),
            student_top: Vec::new(),
            teacher_top: Vec::new(),
        }
    }

    pub(crate) fn advantages(targets: &[TokenTarget]) -> Vec<f32> {
        targets.iter().map(|target| target.taken.expect("a taken term").advantage).collect()
    }

    #[test]
    fn a_teacher_without_its_first_token_is_an_error_not_padding() {
        let short = teacher(&[-1.0, -1.0], &[-1.0]);
        let error = MethodConfig::new(MethodKind::Opd)
            .targets(&sample(&[-1.0, -1.0], None, Some(short)))
            .expect_err("one value is missing");
        assert_eq!(error.to_string(), "teacher logprobs has 1 values for 2 response tokens");
    }

    #[test]
    fn only_what_a_method_can_use_is_effective() {
        use MethodKind::*;
        let hinted = || Some(teacher(&[-1.0], &[-1.0]));
        let cases = [
            (sample(&[-1.0], None, None), vec![]),
            (sample(&[-1.0], Some(0), None), vec![]),
            (sample(&[-1.0], Some(-1), None), vec![BinaryRl, Combine, Hybrid]),
            (sample(&[-1.0], None, hinted()), vec![Opd, Combine, Hybrid, TopkDistill]),
            (sample(&[-1.0], Some(1), hinted()), vec![BinaryRl, Opd, Combine, Hybrid, TopkDistill]),
        ];
        for (sample, expected) in cases {
            let effective: Vec<_> = [BinaryRl, Opd, Combine, Hybrid, TopkDistill]
                .into_iter()
                .filter(|kind| MethodConfig::new(*kind).is_effective(&sample))
                .collect();
            assert_eq!(effective, expected, "{:?}", sample.verdict);
        }
    }

    #[test]
    fn the_importance_weight_bridges_rollout_and_old_and_is_truncated() {
        let signal = teacher(&[-0.5, -1.0, -3.0], &[-0.5, -1.0, -3.0]);
        let sample = sample(&[-0.7, -3.0, -2.0], Some(1), Some(signal));
        let targets = MethodConfig::new(MethodKind::Combine).targets(&sample).expect("aligned");
        let weights: Vec<f32> =
            targets.iter().map(|target| target.taken.expect("a taken term").importance_weight).collect();
        // exp(0.2), exp(2) capped at 2, exp(-1)
        for (weight, expected) in weights.iter().zip([1.221_402_8, 2.0, 0.367_879_44]) {
            assert!((weight - expected).abs() < 1e-6, "{weights:?}");
        }
    }

    /// Greedy draws are certain and truncated ones likelier than the policy finds them: neither is its log-prob.
    #[test]
    fn an_unsure_token_weighs_the_same_however_it_was_drawn() {
        let policy = [-0.1, -1.5, -4.0];
        let signal = || Some(teacher(&policy, &[-0.1, -0.5, -1.0]));
        for drawn in [policy, [0.0; 3], [-0.05, -0.7, -2.0]] {
            let mut sample = sample(&drawn, Some(1), signal());
            Arc::get_mut(&mut sample.turn).expect("the only owner").completion.policy_logprobs =
                Some(policy.to_vec());
            for kind in [MethodKind::Opd, MethodKind::Combine, MethodKind::Hybrid] {
                for target in MethodConfig::new(kind).targets(&sample).expect("aligned") {
                    assert_eq!(target.taken.expect("a taken term").importance_weight, 1.0, "{drawn:?}");
                }
            }
            let unhinted = Sample { teacher: None, ..sample };
            let targets = MethodConfig::new(MethodKind::BinaryRl).targets(&unhinted).expect("aligned");
            let old: Vec<f32> =
                targets.iter().map(|target| target.taken.expect("a taken term").old_logprob).collect();
            assert_eq!(old, policy);
        }
    }

    #[test]
    fn a_table_with_only_a_kind_has_the_published_defaults_and_a_typo_is_an_error() {
        let read = |json: &str| serde_json::from_str::<MethodConfig>(json);
        let config = read(r#"{"kind": "hybrid"}"#).expect("a kind is enough");
        assert_eq!(config, MethodConfig::new(MethodKind::Hybrid));
        assert_eq!(
            (config.hint_selection(), config.student_top_k(), config.teacher_top_k()),
            (Some(HintSelection::Shortest(3)), 4, 0)
        );
        assert!(read(r#"{"kind": "hybrid", "weigth_rl": 1}"#).is_err());
        let bad = MethodConfig { clip_low: 1.5, hints: Some(0), ..config };
        assert_eq!(bad.problems(), ["clip_low: 1.5 is not in [0, 1)", "hints: 0 is not at least 1"]);
        let cispo =
            read(r#"{"kind": "combine", "surrogate": "cispo", "dual_clip": 3}"#).expect("known words");
        assert_eq!(cispo.problems(), ["dual_clip: 3 is not an option of cispo, which bounds every ratio"]);
    }
}
