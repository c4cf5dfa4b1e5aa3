//! The gated activation.

use crate::cases::{Random, assert_close, assert_gradient, dot, refusal, wide};
use crate::devices::{Device, on_every_device};

on_every_device!(
    rows_agree_with_the_definition_up_to_saturated_gates,
    the_gradient_is_the_slope,
    saturated_gates_have_the_gradient_of_a_line,
    a_nan_stays_where_it_is,
    wrong_lengths_are_named,
);

const SHAPES: [(usize, usize); 7] = [(1, 1), (5, 7), (3, 16), (4, 33), (0, 5), (40, 1000), (2, 20_000)];

fn definition(width: usize, gate_up: &[f64]) -> Vec<f64> {
    let rows = gate_up.chunks(2 * width).flat_map(|row| {
        let (gate, up) = row.split_at(width);
        gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
    });
    rows.collect()
}

fn rows_agree_with_the_definition_up_to_saturated_gates(device: &Device) {
    for (rows, width) in SHAPES {
        for size in [3.0, 150.0] {
            let gate_up = Random::new(width as u64).values(rows * 2 * width, size);
            let found = device.on_any_threads(|cpu| {
                let mut out = vec![f32::NAN; rows * width];
                cpu.swiglu(width, &gate_up, &mut out).expect("valid arguments");
                vec![out]
            });
            let expected = definition(width, &wide(&gate_up));
            for (i, (found, expected)) in found[0].iter().zip(expected).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error <= 1e-6 * expected.abs() + 1e-30,
                    "{width} [{i}]: {found}, expected {expected}"
                );
            }
        }
    }
}

fn the_gradient_is_the_slope(device: &Device) {
    for (rows, width) in SHAPES {
        let mut random = Random::new(100 + width as u64);
        let (gate_up, d_out) = (random.values(rows * 2 * width, 4.0), random.values(rows * width, 1.0));
        let found = device.on_any_threads(|cpu| {
            let mut d_gate_up = vec![f32::NAN; gate_up.len()];
            cpu.swiglu_backward(width, &gate_up, &d_out, &mut d_gate_up).expect("valid arguments");
            vec![d_gate_up]
        });
        let d_out = wide(&d_out);
        assert_gradient(&format!("{rows} rows of {width}"), &found[0], &gate_up, |x| {
            dot(&definition(width, x), &d_out)
        });
    }
}

fn saturated_gates_have_the_gradient_of_a_line(device: &Device) {
    let (gate_up, mut d_gate_up) = ([200.0, -200.0, 3.0, 5.0], [f32::NAN; 4]);
    device
        .on(1, |cpu| cpu.swiglu_backward(2, &gate_up, &[1.0, 1.0], &mut d_gate_up))
        .expect("valid arguments");
    assert_close("gradient", &d_gate_up, &[3.0, 0.0, 200.0, 0.0], 1e-7);
}

fn a_nan_stays_where_it_is(device: &Device) {
    let (gate_up, mut out) = ([1.0, f32::NAN, 2.0, 1.0], [0.0; 2]);
    device.on(1, |cpu| cpu.swiglu(2, &gate_up, &mut out)).expect("valid arguments");
    assert!(out[1].is_nan() && (out[0] - 2.0 * 0.731_058_6).abs() < 1e-6, "{out:?}");
}

fn wrong_lengths_are_named(device: &Device) {
    device.on(1, |cpu| {
        let (x, mut out) = ([1.0; 12], [0.0; 12]);
        let e = refusal(cpu.swiglu(3, &x, &mut out[..3]));
        assert_eq!(e, "swiglu: gate_up has 12 elements, expected 6");
        for width in [0, 4] {
            let e = refusal(cpu.swiglu(width, &x, &mut out[..6]));
            assert_eq!(e, format!("swiglu: out has 6 elements, which are no rows of {width}"));
            let e = refusal(cpu.swiglu_backward(width, &x, &x[..6], &mut out));
            assert_eq!(e, format!("swiglu_backward: d_out has 6 elements, which are no rows of {width}"));
        }
        let e = refusal(cpu.swiglu_backward(3, &x, &x[..3], &mut out));
        assert_eq!(e, "swiglu_backward: gate_up has 12 elements, expected 6");
        let e = refusal(cpu.swiglu_backward(3, &x, &x[..6], &mut out[..6]));
        assert_eq!(e, "swiglu_backward: d_gate_up has 6 elements, expected 12");
    });
}
