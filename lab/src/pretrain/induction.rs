//! Weights from which copying begins: a head of the first layer that looks at the token before, and heads of the second that
//! look for what followed the same token earlier and say it again (induction heads: Olsson and others, 2022).
//!
//! A model of this size finds them by itself only after more text than it is given here; as where it starts from they cost
//! nothing, and training keeps what is of use (as Trockman and Kolter, 2023, begin with what trained models end with).
use openclaw_model::{ModelConfig, ParameterLayout};

/// What every token's embedding has in common, beside the deviation of its other values.
const COMMON: f32 = 0.08;
/// Shares of the fastest pairs of a head in the score of the token before.
const PAIRS: [f32; 4] = [0.4, 0.25, 0.2, 0.15];
/// Of queries and keys alike: how sharply the heads look.
const GAIN: f32 = 2.0;
/// How much of the token before is written down, and how much of what followed is said.
const WRITTEN: (f32, f32) = (0.05, 0.09);

/// Puts them into random weights.
///
/// # Panics
/// With fewer than two layers, or where three times a head's width is more than the model's.
pub(super) fn put(config: &ModelConfig, flat: &mut [f32]) {
    let layout = ParameterLayout::new(config);
    let (hidden, width, half) = (config.hidden_size, config.head_dim, config.head_dim / 2);
    let range = |name: &str| {
        let found = layout.parameters.iter().find(|parameter| parameter.name == name);
        found.expect("every model has it").range.clone()
    };
    let of = |layer: usize, name: &str| range(&format!("model.layers.{layer}.self_attn.{name}.weight"));
    let embeddings = range("model.embed_tokens.weight");
    let basis = orthonormal(&flat[embeddings.clone()], hidden, 3 * width);
    let (tokens, before, more) = (&basis[..width], &basis[width..2 * width], &basis[2 * width..]);
    flat[embeddings].chunks_exact_mut(hidden).for_each(|embedding| embedding[0] = COMMON);
    for layer in 0..2 {
        for name in ["q_norm", "k_norm"] {
            flat[of(layer, name)].fill(GAIN);
        }
    }

    // The token before: what all have in common, turned by one place.
    let (q, k, v, o) = (of(0, "q_proj"), of(0, "k_proj"), of(0, "v_proj"), of(0, "o_proj"));
    flat[q.start..q.start + width * hidden].fill(0.0);
    flat[k.start..k.start + width * hidden].fill(0.0);
    for (pair, share) in PAIRS.iter().enumerate() {
        let angle = (config.rope_theta as f32).powf(-(pair as f32) / half as f32);
        let long = share.sqrt();
        flat[k.start + pair * hidden] = long;
        flat[q.start + pair * hidden] = long * angle.cos();
        flat[q.start + (pair + half) * hidden] = -long * angle.sin();
    }
    for (at, (token, place)) in tokens.iter().zip(before).enumerate() {
        flat[v.start + at * hidden..][..hidden].copy_from_slice(token);
        write(&mut flat[o.clone()], config, 0, at, place, WRITTEN.0);
    }

    // What followed the same token: compared where positions turn slowly.
    let (q, k, v, o) = (of(1, "q_proj"), of(1, "k_proj"), of(1, "v_proj"), of(1, "o_proj"));
    let per_group = config.heads / config.kv_heads;
    for (group, said) in [tokens, more].into_iter().enumerate().take(config.kv_heads) {
        let head = group * per_group;
        for at in 0..width {
            let (query, key) =
                (q.start + (head * width + at) * hidden, k.start + (group * width + at) * hidden);
            let is_slow = at % half >= half / 2;
            for (place, basis) in [(query, tokens), (key, before)] {
                match is_slow {
                    true => flat[place..place + hidden].copy_from_slice(&basis[at]),
                    false => flat[place..place + hidden].fill(0.0),
                }
            }
            flat[v.start + (group * width + at) * hidden..][..hidden].copy_from_slice(&said[at]);
            write(&mut flat[o.clone()], config, head, at, &said[at], WRITTEN.1);
        }
    }
}

/// The column of an output projection for a head's value.
fn write(o: &mut [f32], config: &ModelConfig, head: usize, at: usize, to: &[f32], scale: f32) {
    let columns = config.heads * config.head_dim;
    for (row, value) in to.iter().enumerate() {
        o[row * columns + head * config.head_dim + at] = scale * value;
    }
}

/// Directions at right angles to each other and to the one that all embeddings share.
fn orthonormal(random: &[f32], hidden: usize, count: usize) -> Vec<Vec<f32>> {
    let mut basis: Vec<Vec<f32>> = Vec::new();
    for row in random.chunks_exact(hidden).take(count) {
        let mut row = row.to_vec();
        row[0] = 0.0;
        for other in &basis {
            let along: f32 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let norm = row.iter().map(|a| a * a).sum::<f32>().sqrt();
        row.iter_mut().for_each(|a| *a /= norm);
        basis.push(row);
    }
    assert_eq!(basis.len(), count, "the model is wide enough");
    basis
}

#[cfg(test)]
mod tests {
    use openclaw_environments::dice::Dice;
    use openclaw_kernels::Cpu;
    use openclaw_model::{
        AdamWConfig, Objective, TrainRow, TrainSequence, Trainer, Transformer, random_weights,
    };

    use super::*;

    #[test]
    fn what_stood_behind_a_token_is_expected_behind_it_again() {
        let config = ModelConfig {
            family: Default::default(),
            vocab_size: 200,
            hidden_size: 192,
            intermediate_size: 64,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            rms_norm_eps: 1e-6,
            rope_theta: 1e5,
            rope_scaling: None,
            max_positions: 256,
            tied: true,
        };
        // As large as they become in training: what is expected is told apart by them.
        let with = |is_put: bool| {
            let mut flat = random_weights(&config, 3);
            if is_put {
                put(&config, &mut flat);
            }
            let layout = ParameterLayout::new(&config);
            let embeddings = &layout.parameters[0];
            assert_eq!(embeddings.name, "model.embed_tokens.weight");
            flat[embeddings.range.clone()].iter_mut().for_each(|x| *x *= 4.0);
            let cpu = Cpu::new("copies", 1).expect("threads");
            let transformer = Transformer::new(config.clone(), cpu).expect("a model");
            Trainer::new(transformer, &flat, AdamWConfig::default()).expect("a trainer")
        };
        let mut dice = Dice::new(1);
        let sequences: Vec<TrainSequence> = (0..8)
            .map(|_| {
                let once: Vec<u32> = (0..40).map(|_| dice.index(200) as u32).collect();
                let rows = (41..80).map(|position| TrainRow {
                    position,
                    weight: 1.0 / (8.0 * 39.0),
                    ..TrainRow::default()
                });
                TrainSequence { rows: rows.collect(), ids: once.repeat(2), temperature: 1.0 }
            })
            .collect();
        let loss = |is_put| {
            let report = with(is_put).accumulate(&sequences, &Objective::CrossEntropy);
            report.expect("a loss").loss
        };
        let (without, with) = (loss(false), loss(true));
        assert!(with < 0.6 * without, "{with} of {without}");
    }
}
