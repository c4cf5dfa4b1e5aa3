//! The gated activation.

use crate::cases::{
    Random, Variants, all, all_mut, assert_close, assert_gradient, dot, on_backends, on_every, refusal_on,
    unwritten, wide,
};

const SHAPES: [(usize, usize); 7] = [(1, 1), (5, 7), (3, 16), (4, 33), (0, 5), (40, 1000), (2, 20_000)];

on_backends! {
    rows_agree_with_the_definition_up_to_saturated_gates,
    the_gradient_is_the_slope,
    saturated_gates_have_the_gradient_of_a_line,
    a_nan_stays_where_it_is,
    wrong_lengths_are_named,
}

fn definition(width: usize, gate_up: &[f64]) -> Vec<f64> {
    let rows = gate_up.chunks(2 * width).flat_map(|row| {
        let (gate, up) = row.split_at(width);
        gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
    });
    rows.collect()
}

fn forward<B: Variants>(width: usize, gate_up: &[f32]) -> Vec<f32> {
    let found = on_every(|b: &B| {
        let gate_up = b.upload(gate_up)?;
        let mut out = unwritten(b, b.len(&gate_up) / 2)?;
        b.swiglu(width, all(b, &gate_up), all_mut(b, &mut out))?;
        Ok(vec![b.download(all(b, &out))?])
    });
    found.concat()
}

fn backward<B: Variants>(width: usize, gate_up: &[f32], d_out: &[f32]) -> Vec<f32> {
    let found = on_every(|b: &B| {
        let (gate_up, d_out) = (b.upload(gate_up)?, b.upload(d_out)?);
        let mut d_gate_up = unwritten(b, b.len(&gate_up))?;
        b.swiglu_backward(width, all(b, &gate_up), all(b, &d_out), all_mut(b, &mut d_gate_up))?;
        Ok(vec![b.download(all(b, &d_gate_up))?])
    });
    found.concat()
}

fn rows_agree_with_the_definition_up_to_saturated_gates<B: Variants>() {
    for (rows, width) in SHAPES {
        for size in [3.0, 150.0] {
            let gate_up = Random::new(width as u64).values(rows * 2 * width, size);
            let found = forward::<B>(width, &gate_up);
            assert_eq!(found.len(), rows * width);
            for (i, (found, expected)) in found.iter().zip(definition(width, &wide(&gate_up))).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs() + 1e-30,
                    "{width} [{i}]: {found}, expected {expected}"
                );
            }
        }
    }
}

fn the_gradient_is_the_slope<B: Variants>() {
    for (rows, width) in SHAPES {
        let mut random = Random::new(100 + width as u64);
        let (gate_up, d_out) = (random.values(rows * 2 * width, 4.0), random.values(rows * width, 1.0));
        let found = backward::<B>(width, &gate_up, &d_out);
        let d_out = wide(&d_out);
        assert_gradient(&format!("{rows} rows of {width}"), &found, &gate_up, |x| {
            dot(&definition(width, x), &d_out)
        });
    }
}

fn saturated_gates_have_the_gradient_of_a_line<B: Variants>() {
    let found = backward::<B>(2, &[200.0, -200.0, 3.0, 5.0], &[1.0, 1.0]);
    assert_close("gradient", &found, &[3.0, 0.0, 200.0, 0.0], 1e-7);
}

fn a_nan_stays_where_it_is<B: Variants>() {
    let out = forward::<B>(2, &[1.0, f32::NAN, 2.0, 1.0]);
    assert!(out[1].is_nan() && (out[0] - 2.0 * 0.731_058_6).abs() < 1e-6, "{out:?}");
}

fn wrong_lengths_are_named<B: Variants>() {
    let forward = |width: usize, out: usize| {
        refusal_on(|b: &B| {
            let (x, mut y) = (b.upload(&[1.0; 12])?, b.zeros(12)?);
            b.swiglu(width, all(b, &x), b.view_mut(&mut y, 0..out))
        })
    };
    let backward = |width: usize, d_out: usize, d_gate_up: usize| {
        refusal_on(|b: &B| {
            let (x, mut y) = (b.upload(&[1.0; 12])?, b.zeros(12)?);
            b.swiglu_backward(width, all(b, &x), b.view(&x, 0..d_out), b.view_mut(&mut y, 0..d_gate_up))
        })
    };
    assert_eq!(forward(3, 3), "swiglu: gate_up has 12 elements, expected 6");
    for width in [0, 4] {
        assert_eq!(forward(width, 6), format!("swiglu: out has 6 elements, which are no rows of {width}"));
        let expected = format!("swiglu_backward: d_out has 6 elements, which are no rows of {width}");
        assert_eq!(backward(width, 6, 12), expected);
    }
    assert_eq!(backward(3, 3, 12), "swiglu_backward: gate_up has 12 elements, expected 6");
    assert_eq!(backward(3, 6, 6), "swiglu_backward: d_gate_up has 6 elements, expected 12");
}
