//! Whether a GPU computes what the CPU computes: one operation of each kind, before anything relies on it.

use crate::backend::Backend;
use crate::cpu::Cpu;
use crate::error::{KernelError, Result};
use crate::ops::*;

const ROWS: usize = 5;
const WIDTH: usize = 64;
const VOCAB: usize = 1003;
const HEADS: QkvShape = QkvShape { heads: 2, kv_heads: 1, head_dim: 32, eps: 1e-6, normed: true };
/// Largest difference to the CPU, relative to the largest result: rounding makes less than a tenth of it.
const TOLERANCE: f32 = 1e-4;

/// What an operation made.
type Outcome = (&'static str, Vec<f32>);

/// Compares `backend`, called `name`, with the CPU; the error names the operation that differs.
pub(super) fn computes<B: Backend>(backend: &B, name: &str) -> Result<()> {
    agree(&outcomes(&Cpu::new("check", 1)?)?, &outcomes(backend)?, name)
}

fn agree(expected: &[Outcome], found: &[Outcome], name: &str) -> Result<()> {
    for ((op, expected), (_, found)) in expected.iter().zip(found) {
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        // Written so that NaN differs.
        let near = |(e, f): (&f32, &f32)| (e - f).abs() <= TOLERANCE * largest;
        if let Some(i) = expected.iter().zip(found).position(|pair| !near(pair)) {
            let what = format!("{op} gives {} where the CPU gives {}", found[i], expected[i]);
            return Err(KernelError::Device { device: name.into(), what });
        }
    }
    Ok(())
}

/// What each operation makes of the same numbers.
fn outcomes<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    b.scope(|| {
        let hidden = b.upload(&numbers(ROWS * WIDTH, 1))?;
        let gain = b.upload(&numbers(WIDTH, 2))?;
        let mut normed = b.zeros::<f32>(ROWS * WIDTH)?;
        let all = |len: usize| 0..len;
        let (h, g) = (b.view(&hidden, all(ROWS * WIDTH)), b.view(&gain, all(WIDTH)));
        b.rms_norm(1e-6, h, g, b.view_mut(&mut normed, all(ROWS * WIDTH)))?;
        let normed_host = b.download(b.view(&normed, all(ROWS * WIDTH)))?;

        let (qk_len, qkv_len) = (ROWS * HEADS.qk_width(), ROWS * HEADS.qkv_width());
        let (qk, qkv) = (b.upload(&numbers(qk_len, 3))?, b.upload(&numbers(qkv_len, 4))?);
        let mut attended = b.zeros::<f32>(ROWS * HEADS.out_width())?;
        let mut lse = b.zeros::<f32>(ROWS * HEADS.heads)?;
        let (qk, qkv) = (b.view(&qk, all(qk_len)), b.view(&qkv, all(qkv_len)));
        let out = b.view_mut(&mut attended, all(ROWS * HEADS.out_width()));
        b.attention(HEADS, &[0..2, 2..ROWS], qk, qkv, out, b.view_mut(&mut lse, all(ROWS * HEADS.heads)))?;
        let attended = b.download(b.view(&attended, all(ROWS * HEADS.out_width())))?;

        let shape = b.linear_shape(ROWS, WIDTH, VOCAB);
        let weight = b.upload(&numbers(VOCAB * WIDTH, 5))?;
        let mut scratch = b.zeros::<f32>(shape.scratch_len())?;
        let targets = b.upload(&[0i32, 17, 512, -1, VOCAB as i32 - 1])?;
        let weights = b.upload(&[0.25f32; ROWS])?;
        let (advantages, old) = (b.upload(&[1.0f32, -0.5, 0.7, 1.0, 0.3])?, b.upload(&[-6.9f32; ROWS])?);
        let (mut logprobs, mut lse) = (b.zeros::<f32>(ROWS)?, b.zeros::<f32>(ROWS)?);
        let (mut d_hidden, mut d_weight) = (b.zeros::<f32>(ROWS * WIDTH)?, b.zeros::<f32>(VOCAB * WIDTH)?);
        let mut stats = b.zeros::<RowStat>(ROWS)?;
        let head =
            Head { hidden: b.view(&normed, all(ROWS * WIDTH)), weight: b.view(&weight, all(VOCAB * WIDTH)) };
        let targets = b.view(&targets, all(ROWS));
        let out = ScoreOut {
            logprobs: b.view_mut(&mut logprobs, all(ROWS)),
            lse: b.view_mut(&mut lse, all(ROWS)),
            entropy: None,
            candidates: None,
            top: None,
        };
        let score = Score { targets, candidates: None };
        b.linear_logprob(shape, score, head, b.view_mut(&mut scratch, all(shape.scratch_len())), out)?;
        let policy = PolicyTerm {
            surrogate: Surrogate::Ppo { old_logprobs: b.view(&old, all(ROWS)) },
            advantages: b.view(&advantages, all(ROWS)),
            importance: None,
            clip: ClipRange { low: 0.2, high: 0.28, dual: None },
        };
        let loss = RowLoss {
            token: TokenTerm::Policy(policy),
            entropy_coef: 0.01,
            ..RowLoss::cross_entropy(b.view(&weights, all(ROWS)), targets)
        };
        let out = HeadGradients {
            scratch: b.view_mut(&mut scratch, all(shape.scratch_len())),
            d_hidden: b.view_mut(&mut d_hidden, all(ROWS * WIDTH)),
            d_weight: b.view_mut(&mut d_weight, all(VOCAB * WIDTH)),
            stats: b.view_mut(&mut stats, all(ROWS)),
        };
        b.linear_loss(shape, loss, head, out)?;
        let losses = b.download(b.view(&stats, all(ROWS)))?.iter().map(|stat| stat.loss).collect();
        let d_hidden = b.download(b.view(&d_hidden, all(ROWS * WIDTH)))?;

        let (mut first, mut second) = (b.zeros::<f32>(WIDTH)?, b.zeros::<f32>(WIDTH)?);
        let mut params = b.upload(&numbers(WIDTH, 6))?;
        let step = AdamW {
            learning_rate: 0.1,
            betas: (0.9, 0.98),
            eps: 1e-8,
            weight_decay: 0.1,
            step: 1,
            grad_scale: 0.5,
        };
        let (first, second) = (b.view_mut(&mut first, all(WIDTH)), b.view_mut(&mut second, all(WIDTH)));
        let grads = b.view(&d_weight, 17 * WIDTH..18 * WIDTH);
        b.adamw(step, b.view_mut(&mut params, all(WIDTH)), grads, first, second)?;
        Ok(vec![
            ("rms_norm", normed_host),
            ("attention", attended),
            ("linear_logprob", b.download(b.view(&logprobs, all(ROWS)))?),
            ("linear_loss", losses),
            ("linear_loss to hidden", d_hidden),
            ("linear_loss to weight", b.download(b.view(&d_weight, all(VOCAB * WIDTH)))?),
            ("adamw", b.download(b.view(&params, all(WIDTH)))?),
        ])
    })
}

/// Numbers in [-1, 1) that look random and are the same everywhere.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::emulated_or_skip;

    #[test]
    fn a_device_that_computes_is_taken() {
        computes(&Cpu::new("check", 2).expect("two threads start"), "cpu").expect("it is the CPU itself");
        if let Some(cuda) = emulated_or_skip() {
            computes(&cuda, "emulated").expect("it computes");
        }
    }

    #[test]
    fn a_device_that_computes_something_else_is_refused_and_the_operation_named() {
        let expected = outcomes(&Cpu::new("check", 1).expect("one thread starts")).expect("it computes");
        for (i, (op, values)) in expected.iter().enumerate() {
            let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            assert!(largest > 1e-3, "{op} gives nothing to compare");
            for wrong in [values[1] + 2.0 * TOLERANCE * largest, f32::NAN] {
                let mut found = expected.clone();
                found[i].1[1] = wrong;
                let told = agree(&expected, &found, "cuda:0").expect_err("it differs").to_string();
                assert!(told.contains("cuda:0") && told.contains(&format!("{op} gives {wrong}")), "{told}");
            }
        }
    }
}
