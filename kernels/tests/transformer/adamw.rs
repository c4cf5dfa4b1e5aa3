//! The optimizer's step and the gradient's norm.

use openclaw_kernels::ops::AdamW;

use crate::cases::{Random, assert_close, refusal, wide};
use crate::devices::{Device, bits, on_every_device};

on_every_device!(
    ten_steps_follow_the_definition,
    early_steps_are_as_long_as_the_learning_rate,
    without_gradient_only_the_decay_acts,
    squares_add_up_in_one_order,
    wrong_arguments_are_named_and_change_nothing,
);

const HYPER: AdamW = AdamW {
    learning_rate: 1e-2,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    grad_scale: 0.37,
};

/// Parameters and both moments.
type State<T> = [Vec<T>; 3];

fn definition(hyper: AdamW, state: &mut State<f64>, grads: &[f64]) {
    let wide = |x: f32| f64::from(x);
    let (b1, b2, rate) = (wide(hyper.betas.0), wide(hyper.betas.1), wide(hyper.learning_rate));
    let [params, first, second] = state;
    for i in 0..params.len() {
        let g = grads[i] * wide(hyper.grad_scale);
        first[i] = b1 * first[i] + (1.0 - b1) * g;
        second[i] = b2 * second[i] + (1.0 - b2) * g * g;
        let m = first[i] / (1.0 - b1.powi(hyper.step as i32));
        let v = second[i] / (1.0 - b2.powi(hyper.step as i32));
        params[i] -= rate * wide(hyper.weight_decay) * params[i];
        params[i] -= rate * m / (v.sqrt() + wide(hyper.eps));
    }
}

fn ten_steps_follow_the_definition(device: &Device) {
    let sparse = AdamW { eps: 1e-3, betas: (0.8, 0.95), weight_decay: 0.0, grad_scale: 1.0, ..HYPER };
    for (n, hyper) in [(5, HYPER), (17, HYPER), (100, sparse), (40_000, HYPER), (0, HYPER)] {
        let mut random = Random::new(n as u64);
        let start = random.values(n, 1.0);
        let grads: Vec<Vec<f32>> = (0..10).map(|_| random.values(n, 2.0)).collect();
        let found = device.on_any_threads(|cpu| {
            let [mut params, mut first, mut second] = [start.clone(), vec![0.0; n], vec![0.0; n]];
            for (grads, step) in grads.iter().zip(1..) {
                cpu.adamw(AdamW { step, ..hyper }, &mut params, grads, &mut first, &mut second)
                    .expect("valid arguments");
            }
            vec![params, first, second]
        });
        let mut expected = [wide(&start), vec![0.0; n], vec![0.0; n]];
        for (grads, step) in grads.iter().zip(1..) {
            definition(AdamW { step, ..hyper }, &mut expected, &wide(grads));
        }
        for (what, (found, expected)) in ["params", "first", "second"].iter().zip(found.iter().zip(&expected))
        {
            assert_close(&format!("{what} of {n}"), found, expected, 1e-6);
        }
    }
}

fn early_steps_are_as_long_as_the_learning_rate(device: &Device) {
    // With one gradient forever both corrected moments are that gradient and its square.
    let hyper = AdamW { weight_decay: 0.0, grad_scale: 1.0, learning_rate: 1.0, ..HYPER };
    device.on(1, |cpu| {
        let (mut first, mut second) = ([0.0], [0.0]);
        for step in 1..=50 {
            let mut params = [0.0];
            cpu.adamw(AdamW { step, ..hyper }, &mut params, &[0.25], &mut first, &mut second)
                .expect("valid arguments");
            assert!((params[0] + 1.0).abs() < 2e-6, "step {step}: {}", params[0]);
        }
    });
}

fn without_gradient_only_the_decay_acts(device: &Device) {
    let (mut params, mut first, mut second) = ([2.0, -3.0], [0.0; 2], [0.0; 2]);
    device
        .on(1, |cpu| cpu.adamw(HYPER, &mut params, &[0.0; 2], &mut first, &mut second))
        .expect("valid arguments");
    assert_close("params", &params, &[2.0 * 0.999, -3.0 * 0.999], 1e-7);
    assert_eq!((first, second), ([0.0; 2], [0.0; 2]));
}

fn squares_add_up_in_one_order(device: &Device) {
    for n in [0, 1, 15, 16, 17, 1000, 32_768, 100_003] {
        let x = Random::new(n as u64).values(n, 3.0);
        let sums =
            [1, 2, 3].map(|threads| device.on(threads, |cpu| cpu.sum_squares(&x)).expect("valid arguments"));
        let expected: f64 = wide(&x).iter().map(|x| x * x).sum();
        assert!((sums[0] - expected).abs() <= 1e-12 * expected, "{n}: {}, expected {expected}", sums[0]);
        assert_eq!(sums.map(f64::to_bits), [sums[0].to_bits(); 3], "{n} depends on the threads");
    }
    // Beyond the range of f32.
    let sum = device.on(1, |cpu| cpu.sum_squares(&[1e30, 1e-30])).expect("valid arguments");
    assert!((sum / 1e60 - 1.0).abs() < 1e-6, "{sum}");
}

fn wrong_arguments_are_named_and_change_nothing(device: &Device) {
    device.on(1, |cpu| {
        let grads = [1.0; 4];
        let (mut params, mut first, mut second) = ([1.0; 4], [0.0; 4], [0.0; 4]);
        let mut run = |step: u32, g: usize, m: usize, v: usize| {
            let hyper = AdamW { step, ..HYPER };
            refusal(cpu.adamw(hyper, &mut params, &grads[..g], &mut first[..m], &mut second[..v]))
        };
        assert_eq!(run(1, 3, 4, 4), "adamw: grads has 3 elements, expected 4");
        assert_eq!(run(1, 4, 2, 4), "adamw: first has 2 elements, expected 4");
        assert_eq!(run(1, 4, 4, 1), "adamw: second has 1 elements, expected 4");
        assert_eq!(run(0, 4, 4, 4), "adamw: step is 0, the first is 1");
        assert_eq!(bits(&params), bits(&[1.0; 4]));
    });
}
