//! The norm and rotation of queries and keys.

use openclaw_kernels::ops::{QkvShape, RopeTable};

use crate::cases::{Random, assert_close, assert_gradient, dot, qkv_shape, refusal, wide};
use crate::devices::{Device, bits, on_every_device};
use crate::norm;

on_every_device!(
    heads_agree_with_the_definition,
    gradients_are_slopes_and_leave_values_alone,
    a_token_does_not_depend_on_its_neighbours,
    products_of_queries_and_keys_depend_on_distance_alone,
    wrong_arguments_are_named,
);

const POSITIONS: usize = 50;

struct Case {
    shape: QkvShape,
    positions: Vec<u32>,
    qkv: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    weights: [Vec<f32>; 2],
}

impl Case {
    fn all() -> Vec<Self> {
        let shapes =
            [(1, 1, 2, 1), (2, 1, 6, 3), (2, 2, 16, 7), (4, 2, 32, 5), (4, 1, 66, 2), (8, 2, 64, 200)];
        let plain =
            |shape: &Self| Self::new(QkvShape { normed: false, ..shape.shape }, shape.positions.len());
        let normed = shapes.map(|(heads, kv, dim, tokens)| Self::new(qkv_shape(heads, kv, dim), tokens));
        let plain: Vec<Self> = normed.iter().map(plain).collect();
        normed.into_iter().chain(plain).collect()
    }

    fn new(shape: QkvShape, tokens: usize) -> Self {
        let shape = QkvShape { eps: if shape.head_dim < 8 { 0.1 } else { 1e-6 }, ..shape };
        let mut random = Random::new(shape.head_dim as u64);
        let half = shape.head_dim / 2;
        let angles: Vec<f64> = (0..POSITIONS * half)
            .map(|at| (at / half) as f64 * 10_000f64.powf(-((at % half) as f64) / half as f64))
            .collect();
        Self {
            shape,
            positions: (0..tokens).map(|_| random.below(POSITIONS) as u32).collect(),
            qkv: random.values(tokens * shape.qkv_width(), 2.0),
            cos: angles.iter().map(|a| a.cos() as f32).collect(),
            sin: angles.iter().map(|a| a.sin() as f32).collect(),
            weights: [0; 2].map(|_| random.values(shape.norm_width(), 1.5)),
        }
    }

    fn name(&self) -> String {
        format!("{} tokens, {:?}", self.positions.len(), self.shape)
    }

    fn table(&self) -> RopeTable<&[f32]> {
        RopeTable { cos: &self.cos, sin: &self.sin }
    }

    fn forward(&self, device: &Device) -> Vec<f32> {
        let found = device.on_any_threads(|cpu| {
            let mut qk = vec![f32::NAN; self.positions.len() * self.shape.qk_width()];
            let [q, k] = &self.weights;
            cpu.qk_norm_rope(self.shape, &self.qkv, &self.positions, self.table(), q, k, &mut qk)
                .expect("valid arguments");
            vec![qk]
        });
        found.concat()
    }

    fn definition(&self, qkv: &[f64], weights: [&[f64]; 2]) -> Vec<f64> {
        let QkvShape { heads, kv_heads, head_dim, eps, .. } = self.shape;
        let half = head_dim / 2;
        let mut qk = vec![];
        for (row, position) in qkv.chunks(self.shape.qkv_width()).zip(&self.positions) {
            for (head, x) in row.chunks(head_dim).take(heads + kv_heads).enumerate() {
                let x = match self.shape.normed {
                    true => norm::definition(eps.into(), x, weights[usize::from(head >= heads)]),
                    false => x.to_vec(),
                };
                let at = *position as usize * half;
                let turn = |i: usize| (f64::from(self.cos[at + i]), f64::from(self.sin[at + i]));
                qk.extend((0..half).map(|i| x[i] * turn(i).0 - x[i + half] * turn(i).1));
                qk.extend((0..half).map(|i| x[i + half] * turn(i).0 + x[i] * turn(i).1));
            }
        }
        qk
    }
}

fn heads_agree_with_the_definition(device: &Device) {
    for case in Case::all() {
        let [q, k] = [0, 1].map(|i| wide(&case.weights[i]));
        let expected = case.definition(&wide(&case.qkv), [&q, &k]);
        assert_close(&case.name(), &case.forward(device), &expected, 1e-6);
    }
}

fn gradients_are_slopes_and_leave_values_alone(device: &Device) {
    for case in Case::all() {
        let (shape, tokens) = (case.shape, case.positions.len());
        let d_qk = Random::new(3).values(tokens * shape.qk_width(), 1.0);
        let run = |before: f32| {
            device.on_any_threads(|cpu| {
                let mut d_qkv = vec![f32::NAN; case.qkv.len()];
                let mut d_weights = [0; 2].map(|_| vec![before; shape.norm_width()]);
                let ([q, k], [d_q, d_k]) = (&case.weights, &mut d_weights);
                let table = case.table();
                let positions = &case.positions;
                cpu.qk_norm_rope_backward(
                    shape, &case.qkv, positions, table, q, k, &d_qk, &mut d_qkv, d_q, d_k,
                )
                .expect("valid arguments");
                let [d_q, d_k] = d_weights;
                vec![d_qkv, d_q, d_k]
            })
        };
        let mut found = run(0.0);
        for row in found[0].chunks_mut(shape.qkv_width()) {
            let values = &mut row[shape.qk_width()..];
            assert!(values.iter().all(|v| v.is_nan()), "the gradient of values was written");
            values.fill(0.0);
        }
        let (qkv, d_qk) = (wide(&case.qkv), wide(&d_qk));
        let [q, k] = [0, 1].map(|i| wide(&case.weights[i]));
        let name = case.name();
        assert_gradient(&format!("{name}: d_qkv"), &found[0], &case.qkv, |qkv| {
            dot(&case.definition(qkv, [&q, &k]), &d_qk)
        });
        assert_gradient(&format!("{name}: d_q_weight"), &found[1], &case.weights[0], |q| {
            dot(&case.definition(&qkv, [q, &k]), &d_qk)
        });
        assert_gradient(&format!("{name}: d_k_weight"), &found[2], &case.weights[1], |k| {
            dot(&case.definition(&qkv, [&q, k]), &d_qk)
        });
        for (sum, part) in run(1.0)[1..].iter().zip(&found[1..]) {
            let expected: Vec<f64> = part.iter().map(|d| f64::from(*d) + 1.0).collect();
            assert_close(&format!("{name}: added gradient"), sum, &expected, 1e-6);
        }
    }
}

fn a_token_does_not_depend_on_its_neighbours(device: &Device) {
    let case = Case::new(qkv_shape(8, 2, 64), 200);
    let together = case.forward(device);
    for token in [0, 1, 63, 64, 199] {
        let alone = Case {
            positions: vec![case.positions[token]],
            qkv: case.qkv[token * case.shape.qkv_width()..][..case.shape.qkv_width()].to_vec(),
            ..Case::new(case.shape, 0)
        };
        let alone = Case { weights: case.weights.clone(), ..alone };
        let row = &together[token * case.shape.qk_width()..][..case.shape.qk_width()];
        assert!(bits(&alone.forward(device)) == bits(row), "token {token} depends on its neighbours");
    }
}

fn products_of_queries_and_keys_depend_on_distance_alone(device: &Device) {
    let case = Case::new(qkv_shape(1, 1, 32), 1);
    let at = |position: u32| Case { positions: vec![position], ..Case::new(case.shape, 1) }.forward(device);
    let product = |query: u32, key: u32| dot(&wide(&at(query)[..32]), &wide(&at(key)[32..]));
    let expected = product(7, 3);
    for start in [0, 1, 20, 45] {
        assert!(
            (product(start + 4, start) - expected).abs() < 1e-4 * expected.abs().max(1.0),
            "from {start}"
        );
    }
    assert!((product(8, 3) - expected).abs() > 1e-3, "the distance is not seen");
}

fn wrong_arguments_are_named(device: &Device) {
    let case = Case::new(qkv_shape(2, 1, 4), 3);
    let x = vec![1.0; 100];
    type Lengths = (usize, usize, usize, usize, usize);
    let run = |shape: QkvShape, positions: &[u32], (qkv, qk, q, k, sin): Lengths| {
        let rope = RopeTable { cos: &case.cos[..], sin: &case.sin[..sin] };
        let forward = device.on(1, |cpu| {
            let mut out = vec![0.0; qk];
            cpu.qk_norm_rope(shape, &x[..qkv], positions, rope, &x[..q], &x[..k], &mut out)
        });
        let backward = device.on(1, |cpu| {
            let (mut d_qkv, mut dq, mut dk) = (vec![0.0; qkv], vec![0.0; q], vec![0.0; k]);
            let (q, k, d_qk) = (&x[..q], &x[..k], &x[..qk]);
            cpu.qk_norm_rope_backward(
                shape,
                &x[..qkv],
                positions,
                rope,
                q,
                k,
                d_qk,
                &mut d_qkv,
                &mut dq,
                &mut dk,
            )
        });
        let (forward, backward) = (refusal(forward), refusal(backward));
        assert_eq!(forward.replace("qk_norm_rope:", "qk_norm_rope_backward:"), backward);
        forward
    };
    let (shape, sin) = (case.shape, case.sin.len());
    let ok = (48, 36, 4, 4, sin);
    for (lengths, expected) in [
        ((47, 36, 4, 4, sin), "qkv has 47 elements, expected 48"),
        ((48, 37, 4, 4, sin), "qk has 37 elements, expected 36"),
        ((48, 36, 3, 4, sin), "q_weight has 3 elements, expected 4"),
        ((48, 36, 4, 5, sin), "k_weight has 5 elements, expected 4"),
        ((48, 36, 4, 4, 99), "sin has 99 elements, expected 100"),
    ] {
        assert_eq!(run(shape, &[0, 1, 2], lengths), format!("qk_norm_rope: {expected}"));
    }
    let plain = QkvShape { normed: false, ..shape };
    assert_eq!(run(plain, &[0, 1, 2], ok), "qk_norm_rope: q_weight has 4 elements, expected 0");
    let e = run(shape, &[0, 50, 2], ok);
    assert_eq!(e, "qk_norm_rope: position 50 is beyond the 50 tabled");
    let e = run(QkvShape { kv_heads: 0, ..shape }, &[0], ok);
    assert_eq!(e, "qk_norm_rope: 2 heads cannot share 0 kv_heads");
    let e = run(QkvShape { head_dim: 3, ..shape }, &[0], ok);
    assert_eq!(e, "qk_norm_rope: head_dim 3 is not even and positive");
    let mut d = [vec![0.0; 48], vec![0.0; 4], vec![0.0; 4]];
    for (lengths, expected) in [
        ([47, 4, 4], "d_qkv has 47 elements, expected 48"),
        ([48, 3, 4], "d_q_weight has 3 elements, expected 4"),
        ([48, 4, 2], "d_k_weight has 2 elements, expected 4"),
    ] {
        let (w, rope) = (&x[..4], case.table());
        let e = refusal(device.on(1, |cpu| {
            let [d_qkv, d_q, d_k] = &mut d;
            let (d_qkv, d_q, d_k) =
                (&mut d_qkv[..lengths[0]], &mut d_q[..lengths[1]], &mut d_k[..lengths[2]]);
            cpu.qk_norm_rope_backward(shape, &x[..48], &[0, 1, 2], rope, w, w, &x[..36], d_qkv, d_q, d_k)
        }));
        assert_eq!(e, format!("qk_norm_rope_backward: {expected}"));
    }
}
