//! Matrix products in every layout, as a forward and its two backwards use them.

use half::bf16;
use openclaw_kernels::ops::{Matmul, MatrixLayout};

use crate::cases::{Random, assert_close, assert_gradient, dot, refusal, wide};
use crate::devices::{Device, bits, on_every_device};

on_every_device!(
    random_shapes_and_layouts_agree_with_the_definition,
    the_products_of_a_backward_are_the_slopes,
    a_decoding_row_does_not_depend_on_the_batch,
    weights_in_bf16_give_what_they_give_widened,
    an_empty_dimension_gives_nothing_or_zeros,
    wrong_arguments_are_named,
);

/// `c = a b`, all row-major.
fn product(m: usize, n: usize, k: usize) -> Matmul {
    let (a, b) = (MatrixLayout::rows(k), MatrixLayout::rows(n));
    Matmul { m, n, k, a, b, c_row: n, accumulate: false }
}

fn definition(shape: Matmul, a: &[f64], b: &[f64]) -> Vec<f64> {
    let Matmul { m, n, k, .. } = shape;
    let at = |l: MatrixLayout, i: usize, j: usize| i * l.row + j * l.col;
    let element =
        |i: usize, j: usize| (0..k).map(|x| a[at(shape.a, i, x)] * b[at(shape.b, x, j)]).sum::<f64>();
    (0..m * n).map(|c| element(c / n, c % n)).collect()
}

fn layouts(m: usize, n: usize, k: usize) -> [Matmul; 4] {
    let (a, b) = (MatrixLayout::transposed(m), MatrixLayout::transposed(k));
    let shape = product(m, n, k);
    [shape, Matmul { a, ..shape }, Matmul { b, ..shape }, Matmul { a, b, ..shape }]
}

fn random_shapes_and_layouts_agree_with_the_definition(device: &Device) {
    let mut random = Random::new(1);
    let large = [(90, 70, 100), (1, 1000, 96), (8, 300, 257), (9, 300, 64), (48, 40, 97), (49, 40, 97)];
    let small: Vec<_> =
        (0..30).map(|_| (1 + random.below(20), 1 + random.below(40), 1 + random.below(70))).collect();
    for (m, n, k) in large.into_iter().chain(small) {
        let (a, b, before) =
            (random.values(m * k, 1.0), random.values(k * n, 1.0), random.values(m * n, 1.0));
        for shape in layouts(m, n, k) {
            let expected = definition(shape, &wide(&a), &wide(&b));
            let run = |accumulate: bool, start: f32| {
                device.on_any_threads(|cpu| {
                    let mut c: Vec<f32> = before.iter().map(|x| x * start).collect();
                    cpu.matmul(Matmul { accumulate, ..shape }, &a, &b, &mut c).expect("valid arguments");
                    vec![c]
                })
            };
            assert_close(&format!("{shape:?}"), &run(false, f32::NAN)[0], &expected, 2e-6);
            let sums: Vec<f64> = expected.iter().zip(&before).map(|(c, x)| c + f64::from(*x)).collect();
            assert_close(&format!("added {shape:?}"), &run(true, 1.0)[0], &sums, 2e-6);
        }
    }
}

fn the_products_of_a_backward_are_the_slopes(device: &Device) {
    let mut random = Random::new(2);
    for (m, n, k) in [(3, 4, 5), (17, 33, 40), (70, 20, 9)] {
        // y = x w^T, as every linear layer.
        let forward = Matmul { b: MatrixLayout::transposed(k), ..product(m, n, k) };
        let (x, w, d_y) = (random.values(m * k, 1.0), random.values(n * k, 1.0), random.values(m * n, 1.0));
        let (mut d_x, mut d_w) = (vec![f32::NAN; m * k], vec![f32::NAN; n * k]);
        device.on(2, |cpu| {
            cpu.matmul(product(m, k, n), &d_y, &w, &mut d_x).expect("valid arguments");
            let to_w = Matmul { a: MatrixLayout::transposed(n), ..product(n, k, m) };
            cpu.matmul(to_w, &d_y, &x, &mut d_w).expect("valid arguments");
        });
        let (x64, w64, d_y) = (wide(&x), wide(&w), wide(&d_y));
        assert_gradient("d_x", &d_x, &x, |x| dot(&definition(forward, x, &w64), &d_y));
        assert_gradient("d_w", &d_w, &w, |w| dot(&definition(forward, &x64, w), &d_y));
    }
}

fn a_decoding_row_does_not_depend_on_the_batch(device: &Device) {
    let (n, k, mut random) = (700, 200, Random::new(3));
    let (a, b) = (random.values(48 * k, 1.0), random.values(n * k, 1.0));
    let shape = |m| Matmul { b: MatrixLayout::transposed(k), ..product(m, n, k) };
    let run = |m: usize, a: &[f32]| {
        let found = device.on_any_threads(|cpu| {
            let mut c = vec![f32::NAN; m * n];
            cpu.matmul(shape(m), a, &b, &mut c).expect("valid arguments");
            vec![c]
        });
        found.concat()
    };
    let alone: Vec<Vec<f32>> = a.chunks(k).map(|row| run(1, row)).collect();
    for m in [2, 3, 4, 5, 7, 8, 9, 16, 47, 48] {
        let together = run(m, &a[..m * k]);
        assert!(bits(&together) == bits(&alone[..m].concat()), "a row depends on the {m} of its batch");
    }
}

/// On the CPU with few rows to the bit, as they are decoded; a GPU rounds the other factor, too.
fn weights_in_bf16_give_what_they_give_widened(device: &Device) {
    let mut random = Random::new(4);
    let few = [(1, 5, 33), (1, 50, 70), (4, 9, 64), (7, 40, 31), (48, 33, 96)];
    for (m, n, k) in few.into_iter().chain([(90, 70, 100), (70, 700, 65), (65, 20, 3)]) {
        let (a, before) = (random.values(m * k, 1.0), random.values(m * n, 1.0));
        let b: Vec<bf16> = random.values(k * n, 1.0).into_iter().map(bf16::from_f32).collect();
        let rounded: Vec<f32> = b.iter().map(|x| x.to_f32()).collect();
        let seen: Vec<f32> = match device {
            Device::Cpu => a.clone(),
            Device::Emulated => a.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        };
        for shape in layouts(m, n, k) {
            for accumulate in [false, true] {
                let shape = Matmul { accumulate, ..shape };
                let run = |narrow: bool| {
                    let both = device.on_any_threads(|cpu| {
                        let mut c = before.clone();
                        match narrow {
                            true => cpu.matmul_bf16(shape, &a, &b, &mut c),
                            false => cpu.matmul(shape, &seen, &rounded, &mut c),
                        }
                        .expect("valid arguments");
                        vec![c]
                    });
                    both.concat()
                };
                let (found, expected) = (run(true), run(false));
                assert_close(&format!("{shape:?}"), &found, &wide(&expected), 2e-6);
                let is_decoding = shape.a.col == 1 && shape.b.row == 1 && m <= 48;
                let same = bits(&found) == bits(&expected);
                assert!(same || !is_decoding || matches!(device, Device::Emulated), "{shape:?}");
            }
        }
    }
}

fn an_empty_dimension_gives_nothing_or_zeros(device: &Device) {
    device.on(2, |cpu| {
        for m in [2, 60] {
            for shape in layouts(m, 3, 0) {
                let mut c = vec![5.0; m * 3];
                cpu.matmul(Matmul { accumulate: true, ..shape }, &[], &[], &mut c).expect("valid arguments");
                assert_eq!(c, vec![5.0; m * 3]);
                cpu.matmul(shape, &[], &[], &mut c).expect("valid arguments");
                assert_eq!(c, vec![0.0; m * 3]);
            }
        }
        cpu.matmul(product(0, 3, 4), &[], &[0.0; 12], &mut []).expect("valid arguments");
        cpu.matmul(product(3, 0, 4), &[0.0; 12], &[], &mut []).expect("valid arguments");
    });
}

fn wrong_arguments_are_named(device: &Device) {
    device.on(1, |cpu| {
        let x = [1.0; 12];
        let run = |a: usize, b: usize, c: usize, c_row: usize| {
            let shape = Matmul { c_row, ..product(2, 3, 4) };
            refusal(cpu.matmul(shape, &x[..a], &x[..b], &mut [0.0; 9][..c]))
        };
        assert_eq!(run(7, 12, 6, 3), "matmul: a has 7 elements, expected 8");
        assert_eq!(run(8, 11, 6, 3), "matmul: b has 11 elements, expected 12");
        assert_eq!(run(8, 12, 6, 4), "matmul: c has 6 elements, expected 7");
        assert_eq!(run(8, 12, 9, 2), "matmul: rows of c have 3 columns and start every 2");
    });
}
