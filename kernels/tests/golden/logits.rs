//! Log-probs and gaps: operations 1 and 2.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::device::Device;
use crate::vectors::{Case, for_each_case};

on_every_device! {
    logprob_entropy,
    logprob_gap_logits,
    logprob_gap_hidden,
}

fn logprob_entropy(device: &Device) {
    for_each_case("logprob_entropy", |case| {
        check_logprob::<f32>(device, case);
        if case.exact_in_bf16() {
            check_logprob::<bf16>(device, case);
        }
    });
}

fn check_logprob<T: Float>(device: &Device, case: &Case<'_>) {
    let [rows, vocab] = case.shape("in/logits")[..] else { panic!("logits are a matrix") };
    let temperature = case.number("temperature").unwrap_or(1.0);
    let shape = LogitsShape { temperature, ..LogitsShape::dense(rows, vocab) };
    let (logits, targets) = (case.floats::<T>("in/logits"), case.ids("in/targets"));
    let (mut logprobs, mut lse, mut entropy) = (vec![9.0; rows], vec![9.0; rows], vec![9.0; rows]);
    let score = Score { targets: &targets[..], candidates: None };
    let out = ScoreOut {
        logprobs: &mut logprobs[..],
        lse: &mut lse,
        entropy: Some(&mut entropy),
        candidates: None,
        top: None,
    };
    device.logprob(shape, &logits, score, out).expect("valid arguments");
    let scale = case.get("out/lse");
    case.logprobs("logp", &logprobs, &case.get("out/logp"), &scale);
    case.logprobs("lse", &lse, &scale, &scale);
    case.logprobs("entropy", &entropy, &case.get("out/entropy"), &scale);
    if !case.flag("backward") {
        return;
    }
    let (d_logprobs, d_entropy) = (case.floats::<f32>("in/g_logp"), case.floats::<f32>("in/g_entropy"));
    for (key, d_entropy) in [("grad/logits", Some(&d_entropy[..])), ("grad/logits_logp_only", None)] {
        let mut apart = vec![T::from_f32(9.0); logits.len()];
        device
            .logprob_backward(shape, Some(&logits), &targets, &d_logprobs, d_entropy, &mut apart)
            .expect("valid arguments");
        case.gradients(key, &apart, &case.get(key));
        let mut in_place = logits.clone();
        device
            .logprob_backward(shape, None, &targets, &d_logprobs, d_entropy, &mut in_place)
            .expect("valid arguments");
        assert_eq!(bytemuck::cast_slice::<T, u8>(&in_place), bytemuck::cast_slice::<T, u8>(&apart));
    }
}

/// Masked rows carry no target.
fn masked_targets(case: &Case<'_>) -> Vec<i32> {
    let mask = case.get("in/mask");
    case.ids("in/targets").iter().zip(mask).map(|(id, m)| if m == 0.0 { -1 } else { *id }).collect()
}

/// What the case expects of a row that carries a target, 0 elsewhere.
fn unmasked(case: &Case<'_>, key: &str) -> Vec<f64> {
    let mask = case.get("in/mask");
    case.get(key).iter().zip(mask).map(|(v, m)| if m == 0.0 { 0.0 } else { *v }).collect()
}

fn logprob_gap_logits(device: &Device) {
    for_each_case("logprob_gap_logits", |case| {
        check_gap::<f32>(device, case);
        if case.exact_in_bf16() {
            check_gap::<bf16>(device, case);
        }
    });
}

fn check_gap<T: Float>(device: &Device, case: &Case<'_>) {
    let [rows, vocab] = case.shape("in/student_logits")[..] else { panic!("logits are a matrix") };
    let shape = LogitsShape::dense(rows, vocab);
    let (student, teacher) = (case.floats::<T>("in/student_logits"), case.floats::<T>("in/teacher_logits"));
    let targets = masked_targets(case);
    let (mut s, mut t, mut gap) = (vec![9.0; rows], vec![9.0; rows], vec![9.0; rows]);
    let out = GapOut { student: &mut s[..], teacher: &mut t, gap: &mut gap };
    device.logprob_gap(shape, &student, &teacher, &targets, out).expect("valid arguments");
    let ones = vec![10.0; rows];
    case.logprobs("student", &s, &unmasked(case, "out/student_logp"), &ones);
    case.logprobs("teacher", &t, &unmasked(case, "out/teacher_logp"), &ones);
    case.losses("gap", &gap, &unmasked(case, "out/gap"));

    let d_gap = case.floats::<f32>("in/g_gap");
    for (side, logits, key) in [
        (GapSide::Student, &student, "grad/student_logits"),
        (GapSide::Teacher, &teacher, "grad/teacher_logits"),
    ] {
        let mut gradient = logits.clone();
        device
            .logprob_gap_backward(shape, side, None, &targets, &d_gap, &mut gradient)
            .expect("valid arguments");
        if case.has(key) {
            case.gradients(key, &gradient, &case.get(key));
        }
    }
}

fn logprob_gap_hidden(device: &Device) {
    for_each_case("logprob_gap_hidden", |case| {
        let targets = masked_targets(case);
        let rows = targets.len();
        let score = |side: &str| {
            let [vocab, width] = case.shape(&format!("in/{side}_weight"))[..] else { panic!("a matrix") };
            let hidden = case.floats::<f32>(&format!("in/{side}_hidden"));
            let weight = case.floats::<f32>(&format!("in/{side}_weight"));
            let shape = LinearShape { chunk_rows: 2, ..LinearShape::new(rows, width, vocab) };
            let (mut logprobs, mut lse, mut scratch) =
                (vec![9.0; rows], vec![9.0; rows], vec![f32::NAN; shape.scratch_len()]);
            let score = Score { targets: &targets[..], candidates: None };
            let out = ScoreOut {
                logprobs: &mut logprobs[..],
                lse: &mut lse,
                entropy: None,
                candidates: None,
                top: None,
            };
            device
                .linear_logprob(
                    shape,
                    score,
                    Head { hidden: &hidden[..], weight: &weight },
                    &mut scratch,
                    out,
                )
                .expect("valid arguments");
            let key = format!("out/{side}_logp");
            case.logprobs(&key, &logprobs, &unmasked(case, &key), &vec![10.0; rows]);
            (shape, hidden, weight, logprobs)
        };
        let (_, _, _, teacher) = score("teacher");
        let (shape, hidden, weight, student) = score("student");
        let gap: Vec<f32> = teacher.iter().zip(&student).map(|(t, s)| t - s).collect();
        case.losses("gap", &gap, &unmasked(case, "out/gap"));

        // The gap falls by the student's log-prob: cross-entropy with the gap's gradient as weights.
        let weights = case.floats::<f32>("in/g_gap");
        let loss = RowLoss::cross_entropy(&weights[..], &targets[..]);
        let mut scratch = vec![f32::NAN; shape.scratch_len()];
        let (mut d_hidden, mut d_weight) = (vec![9.0; hidden.len()], vec![0.0; weight.len()]);
        let mut stats = vec![RowStat::default(); rows];
        let out = HeadGradients {
            scratch: &mut scratch[..],
            d_hidden: &mut d_hidden[..],
            d_weight: &mut d_weight[..],
            stats: &mut stats[..],
        };
        device
            .linear_loss(shape, loss, Head { hidden: &hidden[..], weight: &weight }, out)
            .expect("valid arguments");
        case.gradients("grad/student_hidden", &d_hidden, &case.get("grad/student_hidden"));
        case.gradients("grad/student_weight", &d_weight, &case.get("grad/student_weight"));
    });
}
