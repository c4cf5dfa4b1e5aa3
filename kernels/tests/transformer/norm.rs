//! RMS norm of rows.

use openclaw_kernels::{Backend, Cuda, Result};

use crate::cases::{Random, assert_close, assert_gradient, dot, refusal, wide};
use crate::devices::{Device, bits, can_emulate, gpu, on_every_device};

on_every_device!(
    rows_agree_with_the_definition,
    gradients_are_slopes_and_are_added,
    a_nan_stays_in_its_row,
    wrong_lengths_are_named,
);

const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 2), (4, 7), (3, 31), (40, 32), (5, 33), (2, 100), (1, 1024), (70, 1024)];

pub fn definition(eps: f64, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let width = weight.len();
    let rows = x.chunks(width).flat_map(|row| {
        let rms = (dot(row, row) / width as f64 + eps).sqrt();
        row.iter().zip(weight).map(move |(x, w)| x / rms * w)
    });
    rows.collect()
}

/// A narrow row's gradient nearly cancels unless eps is of its size.
fn eps(width: usize) -> f32 {
    if width < 8 { 0.1 } else { 1e-6 }
}

fn rows_agree_with_the_definition(device: &Device) {
    for (rows, width) in SHAPES {
        let mut random = Random::new(width as u64);
        let (x, weight) = (random.values(rows * width, 2.0), random.values(width, 1.5));
        let found = device.on_any_threads(|cpu| {
            let mut out = vec![f32::NAN; x.len()];
            cpu.rms_norm(eps(width), &x, &weight, &mut out).expect("valid arguments");
            vec![out]
        });
        let expected = definition(eps(width).into(), &wide(&x), &wide(&weight));
        assert_close(&format!("{rows} rows of {width}"), &found[0], &expected, 1e-6);
        let mut alone = vec![0.0; width];
        let last = (rows - 1) * width;
        device
            .on(1, |cpu| cpu.rms_norm(eps(width), &x[last..], &weight, &mut alone))
            .expect("valid arguments");
        assert_eq!(bits(&alone), bits(&found[0][last..]), "a row depends on its neighbours");
    }
}

fn gradients_are_slopes_and_are_added(device: &Device) {
    for (rows, width) in SHAPES {
        let (mut random, eps) = (Random::new(100 + width as u64), eps(width));
        let (x, weight) = (random.values(rows * width, 2.0), random.values(width, 1.5));
        let d_out = random.values(x.len(), 1.0);
        let run = |before_x: &[f32], before_weight: &[f32]| {
            device.on_any_threads(|cpu| {
                let (mut d_x, mut d_weight) = (before_x.to_vec(), before_weight.to_vec());
                cpu.rms_norm_backward(eps, &x, &weight, &d_out, &mut d_x, &mut d_weight)
                    .expect("valid arguments");
                vec![d_x, d_weight]
            })
        };
        let found = run(&vec![0.0; x.len()], &vec![0.0; width]);
        let (x64, weight64, d_out) = (wide(&x), wide(&weight), wide(&d_out));
        let name = format!("{rows} rows of {width}");
        assert_gradient(&format!("{name}: d_x"), &found[0], &x, |x| {
            dot(&definition(eps.into(), x, &weight64), &d_out)
        });
        assert_gradient(&format!("{name}: d_weight"), &found[1], &weight, |weight| {
            dot(&definition(eps.into(), &x64, weight), &d_out)
        });
        let before = [random.values(x.len(), 1.0), random.values(width, 1.0)];
        for ((sum, part), before) in run(&before[0], &before[1]).iter().zip(&found).zip(&before) {
            let expected: Vec<f64> = part.iter().zip(before).map(|(a, b)| f64::from(a + b)).collect();
            assert_close(&format!("{name}: added gradient"), sum, &expected, 1e-6);
        }
    }
}

fn a_nan_stays_in_its_row(device: &Device) {
    let (mut x, mut out) = (vec![1.0f32; 3 * 40], vec![0.0; 3 * 40]);
    x[50] = f32::NAN;
    device.on(1, |cpu| cpu.rms_norm(1e-6, &x, &[1.0; 40], &mut out)).expect("valid arguments");
    assert!(out[40..80].iter().all(|v| v.is_nan()));
    assert!(out[..40].iter().chain(&out[80..]).all(|v| (v - 1.0).abs() < 1e-5));
}

fn wrong_lengths_are_named(device: &Device) {
    device.on(1, |cpu| {
        let (six, mut out, mut weight) = ([1.0; 6], [0.0; 6], [0.0; 3]);
        let e = refusal(cpu.rms_norm(1e-6, &six[..5], &six[..3], &mut out[..5]));
        assert_eq!(e, "rms_norm: x has 5 elements, which are no rows of 3");
        let e = refusal(cpu.rms_norm(1e-6, &[], &[], &mut []));
        assert_eq!(e, "rms_norm: x has 0 elements, which are no rows of 0");
        let e = refusal(cpu.rms_norm(1e-6, &six, &six[..3], &mut out[..3]));
        assert_eq!(e, "rms_norm: out has 3 elements, expected 6");
        let mut backward = |x: usize, d_out: usize, d_x: usize, d_weight: usize| {
            let (d_x, d_weight) = (&mut out[..d_x], &mut weight[..d_weight]);
            refusal(cpu.rms_norm_backward(1e-6, &six[..x], &six[..3], &six[..d_out], d_x, d_weight))
        };
        assert_eq!(backward(5, 5, 5, 3), "rms_norm_backward: x has 5 elements, which are no rows of 3");
        assert_eq!(backward(6, 3, 6, 3), "rms_norm_backward: d_out has 3 elements, expected 6");
        assert_eq!(backward(6, 6, 3, 3), "rms_norm_backward: d_x has 3 elements, expected 6");
        assert_eq!(backward(6, 6, 6, 2), "rms_norm_backward: d_weight has 2 elements, expected 3");
    });
}

#[test]
fn on_cuda_a_row_gives_the_same_bits_wherever_it_lies_in_memory() {
    if !can_emulate() {
        return;
    }
    let (row, weight) = (Random::new(9).values(48, 2.0), Random::new(10).values(48, 1.0));
    let device = gpu().unwrap_or_else(|| Cuda::emulated().expect("can_emulate() saw that it can"));
    // From the first place alone can four elements be read at once.
    let run = |start: usize| -> Result<Vec<u32>> {
        let x = device.upload(&[vec![0.0; start], row.clone()].concat())?;
        let (weight, mut out) = (device.upload(&weight)?, device.upload(&[f32::NAN; 48])?);
        let out_view = device.view_mut(&mut out, 0..48);
        device.rms_norm(1e-6, device.view(&x, start..start + 48), device.view(&weight, 0..48), out_view)?;
        Ok(bits(&device.download(device.view(&out, 0..48))?))
    };
    assert_eq!(run(0).expect("valid arguments"), run(3).expect("valid arguments"));
}
