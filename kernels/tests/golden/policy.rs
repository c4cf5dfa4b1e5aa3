//! The row loss, on logits and through the head: operations 3, 4 and 5.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::device::Device;
use crate::vectors::{BF16_ROUNDING, Case, for_each_case, is_bf16};

on_every_device! {
    ppo_logits,
    fused_linear_ppo,
    topk_distill,
}

/// The inputs of a policy case, as the optimizer would prepare them.
struct Inputs {
    weights: Vec<f32>,
    targets: Vec<i32>,
    advantages: Vec<f32>,
    old: Vec<f32>,
    reference: Option<Vec<f32>>,
    kl: Option<(KlKind, f32)>,
    clip: ClipRange,
    entropy_coef: f32,
}

impl Inputs {
    fn new(case: &Case<'_>) -> Self {
        let old = case.get("in/old_logp");
        let number = |key| f64::from(case.number(key).expect("the parameter is there"));
        let mut advantages: Vec<f64> = case.get("in/reward_adv").iter().map(|r| number("w_rl") * r).collect();
        if case.flag("has_teacher") {
            let (teacher, valid) = (case.get("in/teacher_logp"), case.get("in/teacher_valid"));
            for (sample, _) in case.samples().iter().zip(valid).filter(|(_, valid)| *valid != 0.0) {
                for i in sample.clone() {
                    advantages[i] += number("w_opd") * (teacher[i] - old[i]);
                }
            }
        }
        let kind = match case.text("kl_type") {
            "k1" => KlKind::K1,
            "k2" => KlKind::K2,
            "k3" => KlKind::K3,
            "low_var" => KlKind::LowVar,
            other => panic!("unknown KL {other:?}"),
        };
        Self {
            weights: weights(case),
            targets: case.ids("in/targets"),
            advantages: advantages.iter().map(|a| *a as f32).collect(),
            old: old.iter().map(|v| *v as f32).collect(),
            reference: case.flag("has_ref").then(|| case.floats("in/ref_logp")),
            kl: case.number("kl_coef").map(|coef| (kind, coef)),
            clip: ClipRange {
                low: number("eps_lo") as f32,
                high: number("eps_hi") as f32,
                dual: case.number("dual_c"),
            },
            entropy_coef: number("ent_coef") as f32,
        }
    }

    fn loss(&self) -> RowLoss<&[f32], &[i32]> {
        let policy = PolicyTerm {
            surrogate: Surrogate::Ppo { old_logprobs: &self.old[..] },
            advantages: &self.advantages[..],
            importance: None,
            clip: self.clip,
        };
        let kl = self.reference.as_deref().zip(self.kl);
        RowLoss {
            weights: &self.weights,
            targets: &self.targets,
            token: TokenTerm::Policy(policy),
            kl: kl.map(|(reference, (kind, coef))| KlTerm { kind, coef, reference }),
            candidates: None,
            entropy_coef: self.entropy_coef,
        }
    }
}

fn weights(case: &Case<'_>) -> Vec<f32> {
    let mask = case.floats::<f32>("in/mask");
    match case.text("reduction") {
        "sample-mean" => sample_mean_weights(&mask, &case.samples()).expect("samples cover the mask"),
        "token-mean" => token_mean_weights(&mask),
        other => panic!("unknown reduction {other:?}"),
    }
}

fn total(weights: &[f32], of: impl Iterator<Item = f32>) -> f32 {
    weights.iter().zip(of).filter(|(w, _)| **w != 0.0).map(|(w, v)| f64::from(*w) * f64::from(v)).sum::<f64>()
        as f32
}

/// Compares the statistics of every row, and the reduced ones.
fn check_stats(case: &Case<'_>, inputs: &Inputs, stats: &[RowStat]) {
    let column = |of: fn(&RowStat) -> f32| stats.iter().map(of).collect::<Vec<f32>>();
    let lse = case.get("out/lse");
    let masked = |key: &str| {
        let values = case.get(key).into_iter().zip(&inputs.weights);
        values.map(|(v, w)| if *w == 0.0 { 0.0 } else { v }).collect::<Vec<f64>>()
    };
    case.close("logp", &column(|s| s.logprob), &masked("out/logp"), |i, _| 2e-6 * (1.0 + lse[i].abs()));
    case.close("entropy", &column(|s| s.entropy), &masked("out/token_entropy"), |i, _| {
        2e-6 * (1.0 + lse[i].abs())
    });
    // Kept in f32: beyond 1 the rounding of the result itself counts.
    let loss = |what: &str, found: &[f32], key: &str| {
        case.close(what, found, &masked(key), |_, e| 1e-5 * e.abs().max(1.0));
    };
    loss("token_loss", &column(|s| s.loss), "out/token_loss");
    if inputs.reference.is_some() {
        loss("token_kl", &column(|s| s.kl), "out/token_kl");
    }
    let sums = [
        ("out/loss", total(&inputs.weights, stats.iter().map(|s| s.loss))),
        ("out/entropy", total(&inputs.weights, stats.iter().map(|s| s.entropy))),
        ("out/kl_loss", total(&inputs.weights, stats.iter().map(|s| s.kl))),
    ];
    for (key, sum) in sums {
        case.close(key, &[sum], &case.get(key), |_, e| 1e-5 * e.abs().max(1.0));
    }
    let (clipped, dual, edge) = (masked("out/clipped"), masked("out/dual_clipped"), masked("out/edge_token"));
    for (i, stat) in stats.iter().enumerate().filter(|(i, _)| edge[*i] == 0.0) {
        let expected = match (clipped[i] != 0.0, dual[i] != 0.0) {
            (_, true) => Clipped::Dual,
            (true, false) => Clipped::Range,
            (false, false) => Clipped::No,
        };
        assert_eq!(stat.clipped(), expected, "clip of row {i}");
    }
}

fn ppo_logits(device: &Device) {
    for_each_case("ppo_logits", |case| {
        check_policy::<f32>(device, case);
        if case.exact_in_bf16() {
            check_policy::<bf16>(device, case);
        }
    });
}

fn check_policy<T: Float>(device: &Device, case: &Case<'_>) {
    let inputs = Inputs::new(case);
    let [rows, vocab] = case.shape("in/logits")[..] else { panic!("logits are a matrix") };
    let temperature = case.number("temperature").unwrap_or(1.0);
    let shape = LogitsShape { temperature, ..LogitsShape::dense(rows, vocab) };
    let mut logits = case.floats::<T>("in/logits");
    let mut stats = vec![RowStat::default(); rows];
    device.row_loss(shape, inputs.loss(), None, &mut logits, &mut stats).expect("valid arguments");
    check_stats(case, &inputs, &stats);

    let expected = case.get("grad/logits");
    let edge = case.get("out/edge_token");
    for i in 0..rows {
        let (found, expected) = (&logits[i * vocab..][..vocab], &expected[i * vocab..][..vocab]);
        if edge[i] == 0.0 {
            case.gradients(&format!("grad/logits row {i}"), found, expected);
        } else {
            check_edge(case, i, found, expected, inputs.targets[i] as usize);
        }
    }
}

/// On a clip edge the gradient of either branch is right: the row is a multiple of the same vector.
fn check_edge<T: Float>(case: &Case<'_>, i: usize, found: &[T], expected: &[f64], taken: usize) {
    let (main, other) = (case.get("grad/dlogp")[i], case.get("grad/dlogp_edge_alt")[i]);
    let relative = if is_bf16::<T>() { 2e-5 + BF16_ROUNDING } else { 2e-5 };
    // One of the two derivatives is 0; the vector follows from the other, or from the logits' own softmax.
    let softmax = {
        let logits = &case.get("in/logits")[i * found.len()..][..found.len()];
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        logits.iter().map(|x| (x - max).exp() / sum).collect::<Vec<f64>>()
    };
    let row = |d: f64| {
        softmax
            .iter()
            .enumerate()
            .map(move |(j, p)| d * (f64::from(u8::from(j == taken)) - p))
            .collect::<Vec<_>>()
    };
    let fits = |row: &[f64]| {
        row.iter().zip(found).all(|(e, f)| (f64::from(f.to_f32()) - e).abs() <= 2e-6 + relative * e.abs())
    };
    assert!(
        expected.iter().zip(row(main)).all(|(a, b)| (a - b).abs() < 1e-9),
        "row {i}: the case is inconsistent"
    );
    assert!(fits(&row(main)) || fits(&row(other)), "row {i}: neither branch's gradient");
}

fn fused_linear_ppo(device: &Device) {
    for_each_case("fused_linear_ppo", |case| {
        let inputs = Inputs::new(case);
        let [vocab, width] = case.shape("in/weight")[..] else { panic!("the weight is a matrix") };
        let (hidden, weight) = (case.floats::<f32>("in/hidden"), case.floats::<f32>("in/weight"));
        let rows = inputs.targets.len();
        let temperature = case.number("temperature").unwrap_or(1.0);
        for chunk_rows in [1, 3, rows, rows + 5] {
            let shape = LinearShape { temperature, chunk_rows, ..LinearShape::new(rows, width, vocab) };
            let mut scratch = vec![f32::NAN; shape.scratch_len()];
            let (mut d_hidden, mut d_weight) = (vec![f32::NAN; hidden.len()], vec![0.5; weight.len()]);
            let mut stats = vec![RowStat::default(); rows];
            let out = HeadGradients {
                scratch: &mut scratch[..],
                d_hidden: &mut d_hidden[..],
                d_weight: &mut d_weight[..],
                stats: &mut stats[..],
            };
            device
                .linear_loss(shape, inputs.loss(), Head { hidden: &hidden[..], weight: &weight }, out)
                .expect("valid arguments");
            check_stats(case, &inputs, &stats);
            case.gradients("grad/hidden", &d_hidden, &case.get("grad/hidden"));
            // The gradient was added to what was there.
            let added: Vec<f32> = d_weight.iter().map(|d| d - 0.5).collect();
            case.gradients("grad/weight", &added, &case.get("grad/weight"));
        }
    });
}

fn topk_distill(device: &Device) {
    for_each_case("topk_distill", |case| {
        check_distill::<f32>(device, case);
        if case.exact_in_bf16() {
            check_distill::<bf16>(device, case);
        }
    });
}

fn check_distill<T: Float>(device: &Device, case: &Case<'_>) {
    let [rows, vocab] = case.shape("in/logits")[..] else { panic!("logits are a matrix") };
    let k = case.shape("in/teacher_topk_idx")[1];
    let (weights, targets) = (weights(case), vec![(vocab - 1) as i32; rows]);
    let (ids, teacher) = (case.ids("in/teacher_topk_idx"), case.floats::<f32>("in/teacher_topk_logp"));
    let entropy_coef = case.number("ent_coef").unwrap_or(0.0);
    let kl = CandidateLoss::ReverseKl { teacher_logprobs: &teacher[..], entropy_coef };
    let loss = RowLoss {
        weights: &weights[..],
        targets: &targets[..],
        token: TokenTerm::None,
        kl: None,
        candidates: Some(CandidateTerm { k, ids: &ids[..], coef: 1.0, loss: kl }),
        entropy_coef: 0.0,
    };
    let mut logits = case.floats::<T>("in/logits");
    let mut stats = vec![RowStat::default(); rows];
    device
        .row_loss(LogitsShape::dense(rows, vocab), loss, None, &mut logits, &mut stats)
        .expect("valid arguments");
    let found: Vec<f32> = stats.iter().map(|s| s.candidates).collect();
    let masked = |values: Vec<f64>| {
        let values = values.into_iter().zip(&weights);
        values.map(|(v, w)| if *w == 0.0 { 0.0 } else { v }).collect::<Vec<f64>>()
    };
    case.losses("token_kl", &found, &masked(case.get("out/token_kl")));
    let loss: Vec<f64> = case
        .get("out/token_kl")
        .iter()
        .zip(case.get("out/token_entropy"))
        .map(|(kl, entropy)| kl - f64::from(entropy_coef) * entropy)
        .collect();
    let found: Vec<f32> = stats.iter().map(|s| s.loss).collect();
    case.losses("token loss", &found, &masked(loss));
    case.losses("out/loss", &[total(&weights, found.iter().copied())], &case.get("out/loss"));
    case.gradients("grad/logits", &logits, &case.get("grad/logits"));
}
