//! Rows of a table, and sums of gradients into them.

use half::bf16;

use crate::cases::{Random, assert_gradient, dot, refusal, wide};
use crate::devices::{Device, on_every_device};

on_every_device!(
    rows_are_copied_and_gradients_add_up_in_token_order,
    the_gradient_is_the_slope,
    wrong_arguments_are_named_and_change_nothing,
);

fn definition(width: usize, ids: &[u32], table: &[f64]) -> Vec<f64> {
    ids.iter().flat_map(|id| &table[*id as usize * width..][..width]).copied().collect()
}

fn rows_are_copied_and_gradients_add_up_in_token_order(device: &Device) {
    let mut random = Random::new(1);
    for (vocab, width, tokens) in [(1, 1, 1), (3, 7, 40), (100, 64, 65), (50, 33, 0)] {
        let ids: Vec<u32> = (0..tokens).map(|_| random.below(vocab) as u32).collect();
        let (table, d_out) = (random.values(vocab * width, 1.0), random.values(tokens * width, 1.0));
        let before = random.values(vocab * width, 1.0);
        let found = device.on_any_threads(|cpu| {
            let (mut out, mut d_table) = (vec![f32::NAN; tokens * width], before.clone());
            cpu.embedding(width, &ids, &table, &mut out).expect("valid arguments");
            cpu.embedding_backward(width, &ids, &d_out, &mut d_table).expect("valid arguments");
            vec![out, d_table]
        });
        assert_eq!(wide(&found[0]), definition(width, &ids, &wide(&table)));
        let narrow: Vec<bf16> = table.iter().map(|x| bf16::from_f32(*x)).collect();
        let mut out = vec![f32::NAN; tokens * width];
        device.on(1, |cpu| cpu.embedding_bf16(width, &ids, &narrow, &mut out)).expect("valid arguments");
        let rounded: Vec<f64> = narrow.iter().map(|x| x.to_f64()).collect();
        assert_eq!(wide(&out), definition(width, &ids, &rounded));
        let mut expected = before;
        for (token, id) in ids.iter().enumerate() {
            for i in 0..width {
                expected[*id as usize * width + i] += d_out[token * width + i];
            }
        }
        assert_eq!(found[1], expected);
    }
}

fn the_gradient_is_the_slope(device: &Device) {
    let (width, ids, mut random) = (5, [2, 0, 2, 6, 2], Random::new(2));
    let (table, d_out) = (random.values(7 * width, 1.0), random.values(ids.len() * width, 1.0));
    let mut d_table = vec![0.0; table.len()];
    device.on(1, |cpu| cpu.embedding_backward(width, &ids, &d_out, &mut d_table)).expect("valid arguments");
    assert_gradient("d_table", &d_table, &table, |x| dot(&definition(width, &ids, x), &wide(&d_out)));
}

fn wrong_arguments_are_named_and_change_nothing(device: &Device) {
    device.on(1, |cpu| {
        let (table, mut out) = ([1.0; 6], [0.5; 4]);
        let e = refusal(cpu.embedding(2, &[0, 3], &table, &mut out));
        assert_eq!(e, "embedding: token id 3 is outside a vocabulary of 3");
        let e = refusal(cpu.embedding(2, &[0, 1, 2], &table, &mut out));
        assert_eq!(e, "embedding: out has 4 elements, expected 6");
        for width in [0, 4] {
            let e = refusal(cpu.embedding(width, &[0], &table, &mut out));
            assert_eq!(e, format!("embedding: table has 6 elements, which are no rows of {width}"));
        }
        assert_eq!(out, [0.5; 4]);
        let mut d_table = table;
        let e = refusal(cpu.embedding_backward(2, &[0, u32::MAX], &out, &mut d_table));
        assert_eq!(e, "embedding_backward: token id 4294967295 is outside a vocabulary of 3");
        let e = refusal(cpu.embedding_backward(2, &[0], &out, &mut d_table));
        assert_eq!(e, "embedding_backward: d_out has 4 elements, expected 2");
        assert_eq!(d_table, table);
    });
}
