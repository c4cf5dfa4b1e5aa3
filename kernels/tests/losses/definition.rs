//! The losses as they are defined, in float64 and without any care for speed.

use openclaw_kernels::ops::*;

use crate::device::Loss;

pub struct Row {
    pub loss: f64,
    pub logprob: f64,
    pub entropy: f64,
    pub kl: f64,
    pub candidates: f64,
    /// Derivative of `loss` by each logit.
    pub gradient: Vec<f64>,
}

pub fn logprobs(logits: &[f64], temperature: f64) -> Vec<f64> {
    let z: Vec<f64> = logits.iter().map(|x| x / temperature).collect();
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    z.iter().map(|z| z - lse).collect()
}

pub fn entropy(logprobs: &[f64]) -> f64 {
    -logprobs.iter().map(|l| if l.is_finite() { l.exp() * l } else { 0.0 }).sum::<f64>()
}

/// Gradient to the logits of a loss with derivatives `u` by each log-prob and `h` by the entropy.
pub fn to_logits(logprobs: &[f64], u: &[f64], h: f64, temperature: f64) -> Vec<f64> {
    let (sum, entropy) = (u.iter().sum::<f64>(), entropy(logprobs));
    let one = |(l, u): (&f64, &f64)| {
        let p = l.exp();
        let from_entropy = if p == 0.0 { 0.0 } else { h * p * (l + entropy) };
        (u - p * sum - from_entropy) / temperature
    };
    logprobs.iter().zip(u).map(one).collect()
}

fn ratio(logprob: f64, old: f32) -> f64 {
    (logprob - f64::from(old)).exp()
}

/// Value, and derivative by the logarithm of the ratio.
pub fn clipped(ratio: f64, advantage: f32, clip: ClipRange) -> (f64, f64) {
    let a = f64::from(advantage);
    let bounded = ratio.max(1.0 - f64::from(clip.low)).min(1.0 + f64::from(clip.high));
    let (free, bounded) = (-ratio * a, -bounded * a);
    let value = free.max(bounded);
    let derivative = if free >= bounded { free } else { 0.0 };
    match clip.dual.map(f64::from) {
        Some(dual) if a < 0.0 && value > -dual * a => (-dual * a, 0.0),
        _ => (value, derivative),
    }
}

/// Row `i` of a loss, before its weight.
pub fn row(loss: &Loss<'_>, i: usize, logits: &[f64], temperature: f64) -> Row {
    let l = logprobs(logits, temperature);
    let entropy = entropy(&l);
    let taken = loss.targets[i] as usize;
    let mut u = vec![0.0; l.len()];
    let mut total = -f64::from(loss.entropy_coef) * entropy;
    let (value, derivative) = match &loss.token {
        TokenTerm::None => (0.0, 0.0),
        TokenTerm::CrossEntropy => (-l[taken], -1.0),
        TokenTerm::Policy(p) => {
            let (value, derivative) = match p.surrogate {
                Surrogate::Ppo { old_logprobs } => {
                    clipped(ratio(l[taken], old_logprobs[i]), p.advantages[i], p.clip)
                }
                Surrogate::Gspo { ratios } => clipped(f64::from(ratios[i]), p.advantages[i], p.clip),
                Surrogate::Cispo { old_logprobs } => {
                    let (low, high) = (1.0 - f64::from(p.clip.low), 1.0 + f64::from(p.clip.high));
                    let constant = ratio(l[taken], old_logprobs[i]).max(low).min(high);
                    let derivative = -constant * f64::from(p.advantages[i]);
                    (derivative * l[taken], derivative)
                }
            };
            let importance = p.importance.map_or(1.0, |w| f64::from(w[i]));
            (importance * value, importance * derivative)
        }
    };
    total += value;
    u[taken] += derivative;
    let mut kl_value = 0.0;
    if let Some(kl) = &loss.kl {
        let d = l[taken] - f64::from(kl.reference[i]);
        let k3 = (-d).exp() - 1.0 + d;
        let (value, derivative) = match kl.kind {
            KlKind::K1 => (d, 1.0),
            KlKind::K2 => (d * d / 2.0, d),
            KlKind::K3 => (k3, 1.0 - (-d).exp()),
            KlKind::LowVar if k3 > 10.0 => (10.0, 0.0),
            KlKind::LowVar => (k3, 1.0 - (-d).exp()),
        };
        kl_value = value;
        total += f64::from(kl.coef) * value;
        u[taken] += f64::from(kl.coef) * derivative;
    }
    let mut candidates = 0.0;
    if let Some(term) = &loss.candidates {
        let (value, beside) = self::candidates(term, i, &l, &mut u);
        candidates = value;
        total += f64::from(term.coef) * value + beside;
    }
    let gradient = to_logits(&l, &u, -f64::from(loss.entropy_coef), temperature);
    Row { loss: total, logprob: l[taken], entropy, kl: kl_value, candidates, gradient }
}

fn candidates(term: &CandidateTerm<&[f32], &[i32]>, i: usize, l: &[f64], u: &mut [f64]) -> (f64, f64) {
    let coef = f64::from(term.coef);
    let slots: Vec<(usize, usize)> = (i * term.k..(i + 1) * term.k)
        .filter(|slot| term.ids[*slot] >= 0)
        .map(|slot| (slot, term.ids[slot] as usize))
        .collect();
    match &term.loss {
        CandidateLoss::Policy { advantages, weights, old_logprobs, clip } => {
            let mut total = 0.0;
            for (slot, id) in slots.into_iter().filter(|(slot, _)| weights[*slot] != 0.0) {
                let (value, derivative) = clipped(ratio(l[id], old_logprobs[slot]), advantages[slot], *clip);
                total += f64::from(weights[slot]) * value;
                u[id] += coef * f64::from(weights[slot]) * derivative;
            }
            (total, 0.0)
        }
        CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef } => {
            let ids: Vec<usize> = slots.iter().map(|(_, id)| *id).collect();
            let student =
                l.iter().enumerate().filter(|(j, _)| !ids.contains(j)).map(|(_, l)| l.exp()).sum::<f64>();
            let smallest = -(-1e-7f64).exp_m1();
            let open = student > smallest;
            let student = student.max(smallest);
            let mass: f64 = slots.iter().map(|(slot, _)| f64::from(teacher_logprobs[*slot]).exp()).sum();
            let teacher = (1.0 - mass).max(smallest);
            let mut kl = student * (student.ln() - teacher.ln());
            let mut entropy = -student * student.ln();
            let entropy_coef = f64::from(*entropy_coef);
            for (slot, id) in slots {
                let (p, q) = (l[id].exp(), f64::from(teacher_logprobs[slot]));
                kl += p * (l[id] - q);
                entropy -= p * l[id];
                let tail =
                    if open { (student.ln() - teacher.ln() + 1.0, student.ln() + 1.0) } else { (0.0, 0.0) };
                u[id] += coef * p * (l[id] - q + 1.0 - tail.0);
                u[id] += coef * entropy_coef * p * (l[id] + 1.0 - tail.1);
            }
            (kl, -coef * entropy_coef * entropy)
        }
    }
}
