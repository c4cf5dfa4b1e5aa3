use std::{
    fs,
    path::{Path, PathBuf},
};

use openclaw_kernels::Cpu;
use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;

use super::*;
use crate::{tokenizer::Tokenizer, transformer::Transformer, transformer::Weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gguf").join(name)
}

/// `tests/reference/make_fixtures.py gguf` made them.
fn reference(name: &str, read: impl FnOnce(&SafeTensors<'_>)) {
    let bytes = fs::read(fixture(name)).expect("it is in the tree");
    read(&SafeTensors::deserialize(&bytes).expect("safetensors"));
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = tensors.tensor(name).expect("it is there").data().to_vec();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect()
}

#[test]
fn every_kind_of_block_is_read_as_the_gguf_package_reads_it() {
    let mut gguf = Gguf::open(&fixture("blocks.gguf")).expect("it opens");
    assert_eq!(gguf.tensors.len(), 11);
    reference("blocks.safetensors", |tensors| {
        for tensor in gguf.tensors.clone() {
            let (found, expected) = (gguf.read(&tensor).expect("it reads"), floats(tensors, &tensor.name));
            assert_eq!(found.len(), expected.len(), "{}", tensor.name);
            for (found, expected) in found.iter().zip(&expected) {
                let off = (found - expected).abs();
                assert!(off <= 1e-6 * expected.abs().max(1.0), "{}: {found} {expected}", tensor.name);
            }
        }
    });
}

#[test]
fn a_file_becomes_a_folder_that_speaks_as_the_file_does() {
    let scratch = tempfile::tempdir().expect("a folder");
    for (architecture, family) in
        [("llama", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3)]
    {
        let dir = scratch.path().join(architecture);
        let imported = import(&fixture(&format!("{architecture}.gguf")), &dir, WeightDtype::F32);
        let imported = imported.unwrap_or_else(|error| panic!("{architecture}: {error}"));
        assert_eq!((imported.config.family, imported.warnings.len()), (family, 0));
        assert!(checkpoint::inspect(&dir).is_ok(), "{:?}", checkpoint::inspect(&dir));
        let (config, flat) = checkpoint::load(&dir).expect("it loads");
        let transformer = Transformer::new(config, Cpu::new("gguf", 2).expect("threads")).expect("a model");
        let weights = Weights::from_host(&transformer, &flat).expect("they fit");
        reference(&format!("{architecture}.safetensors"), |tensors| {
            let ids = tensors.tensor("ids").expect("it is there").data().to_vec();
            let ids: Vec<u32> = ids
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().expect("eight")) as u32)
                .collect();
            let found = transformer.logits(&weights, &[&ids]).expect("logits");
            let expected = floats(tensors, "logits");
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{architecture}: logits differ by {worst:e}");
        });
        let tokenizer = Tokenizer::from_dir(&dir).expect("a tokenizer");
        let cases = fs::read_to_string(fixture("../tokenizer/cases.json")).expect("it is in the tree");
        let cases: serde_json::Value = serde_json::from_str(&cases).expect("JSON");
        let cases = cases["cases"].as_array().expect("a list");
        assert!(cases.len() > 30);
        for case in cases {
            // Others are ids that make no text.
            let Some(text) = case["text"].as_str() else { continue };
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
            assert_eq!(tokenizer.encode(text).expect("ids"), expected, "{text:?}");
        }
        assert_eq!(tokenizer.named().eos.as_deref(), Some("<|im_end|>"));
    }
}

#[test]
fn a_broken_file_is_an_error_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (file, dir) = (scratch.path().join("broken.gguf"), scratch.path().join("out"));
    let whole = fs::read(fixture("qwen3.gguf")).expect("it is in the tree");
    let told = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let told = import(&file, &dir, WeightDtype::F32).expect_err("it is broken").to_string();
        assert!(!dir.exists());
        told
    };
    for cut in (0..whole.len()).step_by(whole.len() / 300) {
        told(&whole[..cut]);
    }
    assert_eq!(told(b"GGML"), "it is not a GGUF file that can be read: it does not begin with GGUF");
    let at = |needle: &[u8]| {
        whole.windows(needle.len()).position(|found| found == needle).expect("it is in the file")
    };
    let changed = |place: usize, by: &[u8]| {
        let mut bytes = whole.clone();
        bytes[place..place + by.len()].copy_from_slice(by);
        told(&bytes)
    };
    let architecture = at(b"general.architecture") + b"general.architecture".len() + 4 + 8;
    assert!(changed(architecture, b"gpt_2").contains("`general.architecture` is gpt_2, which is not read"));
    // The announced lengths are believed by nobody.
    assert!(changed(8, &u64::MAX.to_le_bytes()).contains("tensors"));
    let text = at(b"general.architecture") - 8;
    assert!(changed(text, &u64::MAX.to_le_bytes()).contains("are announced where"));
    // Behind its name: two dimensions, and then the kind.
    let kind = at(b"blk.0.ffn_up.weight") + b"blk.0.ffn_up.weight".len() + 4 + 16;
    assert_eq!(
        changed(kind, &10u32.to_le_bytes()),
        "the tensor `blk.0.ffn_up.weight` has Q2_K, which is not read"
    );
    // Each byte of the header may be another.
    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for _ in 0..300 {
        let place = dice.random_range(0..whole.len() / 3);
        let mut bytes = whole.clone();
        bytes[place] = dice.random();
        fs::write(&file, &bytes).expect("written");
        if import(&file, &dir, WeightDtype::F32).is_ok() {
            fs::remove_dir_all(&dir).expect("it is there");
        }
        assert!(!dir.exists());
    }
}
