//! Versions are kept with all that training needs, and a torn one is told from a whole one.

use std::{fs, path::Path};

use openclaw_kernels::Cpu;
use openclaw_model::{
    AdamWConfig, ModelConfig, Objective, ParameterLayout, TrainRow, TrainSequence, Trainer, TrainerState,
    Transformer, VersionFolders, WeightDtype, checkpoint, fingerprint, random_weights,
};
use sha2::{Digest, Sha256};

fn config() -> ModelConfig {
    ModelConfig {
        family: Default::default(),
        vocab_size: 64,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        max_positions: 128,
        tied: true,
    }
}

fn trainer(state: &TrainerState) -> Trainer<Cpu> {
    let transformer = Transformer::new(config(), Cpu::new("version", 1).unwrap()).unwrap();
    let other_weights = random_weights(&config(), 99);
    let mut trainer = Trainer::new(transformer, &other_weights, AdamWConfig::default()).unwrap();
    trainer.restore(state).unwrap();
    trainer
}

fn learn(trainer: &mut Trainer<Cpu>, number: u32) {
    let ids: Vec<u32> = (0..24).map(|i| (i * i + number) % 64).collect();
    let rows = (1..24).map(|position| TrainRow { position, weight: 1.0 / 23.0, ..TrainRow::default() });
    let batch = [TrainSequence { rows: rows.collect(), ids, temperature: 1.0 }];
    trainer.step(&batch, &Objective::CrossEntropy).unwrap();
}

/// The state after two steps: its moments are not empty.
fn state() -> TrainerState {
    let mut trainer = trainer(&TrainerState::fresh(random_weights(&config(), 1)));
    learn(&mut trainer, 1);
    learn(&mut trainer, 2);
    trainer.state().unwrap()
}

fn folders(dir: &Path, dtype: WeightDtype) -> VersionFolders {
    let template = dir.join("base");
    fs::create_dir_all(template.join("additional_chat_templates")).unwrap();
    fs::write(template.join("tokenizer.json"), "{}").unwrap();
    fs::write(template.join("additional_chat_templates/tool_use.jinja"), "{{ tools }}").unwrap();
    VersionFolders {
        dir: dir.join("versions"),
        config: config(),
        dtype,
        template,
        end_ids: vec![1],
        adapter: None,
    }
}

#[test]
fn a_trainer_restored_from_a_version_folder_goes_on_bit_for_bit() {
    for dtype in [WeightDtype::F32, WeightDtype::Bf16] {
        let scratch = tempfile::tempdir().unwrap();
        let folders = folders(scratch.path(), dtype);
        let state = state();
        let mut first = trainer(&state);
        let folder = folders.stage(7, 2, "print", &state).unwrap().publish().unwrap();
        let stored = folders.load(7).unwrap();
        assert_eq!((stored.manifest.number, stored.manifest.step), (7, 2));
        assert_eq!(stored.manifest.fingerprint, "print");
        assert!(stored.state == state, "what is read is what was written, as {dtype:?} too");
        let mut second = trainer(&stored.state);
        for number in 3..6 {
            learn(&mut first, number);
            learn(&mut second, number);
            assert!(first.state().unwrap() == second.state().unwrap(), "step {number}");
        }
        let (_, published) = checkpoint::load(&folder).unwrap();
        assert_eq!(published == state.weights, dtype == WeightDtype::F32, "others read it as a checkpoint");
        let files = openclaw_model::text_files(&folder).unwrap();
        assert_eq!(files, openclaw_model::text_files(&folders.template).unwrap(), "text is what it was");
        assert_eq!(
            Vec::from_iter(files.keys()),
            ["additional_chat_templates/tool_use.jinja", "tokenizer.json"]
        );
        let (copy, state) = (scratch.path().join("copy"), &stored.state.weights);
        for _ in 0..2 {
            checkpoint::save(&copy, &config(), state, dtype, &[1], Some(&folder)).unwrap();
            assert_eq!(openclaw_model::text_files(&copy).unwrap(), files, "and replaced as such");
        }
        fs::write(folder.join("additional_chat_templates/tool_use.jinja"), "{{ other }}").unwrap();
        assert!(folders.load(7).unwrap_err().to_string().contains("tool_use.jinja is torn"));
    }
}

#[test]
fn a_version_without_moments_is_whole_and_starts_with_empty_ones() {
    for dtype in [WeightDtype::F32, WeightDtype::Bf16] {
        let scratch = tempfile::tempdir().unwrap();
        let folders = folders(scratch.path(), dtype);
        let state = state();
        let folder = folders.stage(7, 2, "print", &state).unwrap().publish().unwrap();
        let before = folders.load(7).unwrap();
        assert!(before.own_moments && folders.load_weights(7).unwrap() == state.weights, "{dtype:?}");
        let (list, moments) = (folder.join("version.json"), folder.join("optimizer.safetensors"));
        let (listed, bytes) = (fs::read(&list).unwrap(), fs::read(&moments).unwrap());

        folders.drop_moments(7).unwrap();
        assert!(!moments.exists());
        let after = folders.load(7).unwrap();
        assert!(!after.own_moments && after.state == TrainerState::fresh(state.weights.clone()), "{dtype:?}");
        assert_eq!((after.manifest.step, after.manifest.optimizer_step), (2, 0));
        assert_eq!(after.manifest.fingerprint, before.manifest.fingerprint);
        folders.drop_moments(7).unwrap();

        // Cut off between the list and the file: whole, and the file goes the next time.
        fs::write(&moments, &bytes).unwrap();
        assert!(folders.load(7).unwrap() == after);
        folders.drop_moments(7).unwrap();
        assert!(!moments.exists());
        // Cut off before the list: as it was, and a list half written is no list.
        fs::write(&moments, &bytes).unwrap();
        fs::write(&list, listed).unwrap();
        fs::write(folder.join("version.json.tmp"), "{").unwrap();
        assert!(folders.load(7).unwrap() == before);
        folders.drop_moments(7).unwrap();
        assert!(folders.load(7).unwrap() == after);
    }
}

#[test]
fn moments_that_are_written_later_make_the_same_folder() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (at_once, later) = (folders(one.path(), WeightDtype::F32), folders(two.path(), WeightDtype::F32));
    let state = state();
    let whole = at_once.stage(7, 2, "print", &state).unwrap().publish().unwrap();
    let folder = later.stage_weights(7, 2, "print", &state).unwrap().publish().unwrap();
    assert!(at_once.has_moments(7) && !later.has_moments(7) && !later.has_moments(8));
    let without = later.load(7).unwrap();
    assert!(!without.own_moments && without.state == TrainerState::fresh(state.weights.clone()));
    // A writer that died between the file and the list has left a file that nobody reads.
    fs::write(folder.join("optimizer.safetensors"), "half").unwrap();
    assert!(later.load(7).unwrap() == without);
    later.add_moments(7, &state).unwrap();
    for name in ["version.json", "optimizer.safetensors", "model.safetensors"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(whole.join(name)).unwrap(), "{name}");
    }
    assert!(later.load(7).unwrap() == at_once.load(7).unwrap() && later.has_moments(7));
    let mut borrowed = TrainerState::fresh(state.weights.clone());
    assert!(later.load_moments(7, &mut borrowed).unwrap() && borrowed == state);
}

#[test]
fn exact_weights_that_lie_with_the_moments_stay_as_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let folders = folders(scratch.path(), WeightDtype::Bf16);
    let state = state();
    let folder = folders.stage(7, 2, "print", &state).unwrap().publish().unwrap();
    // As folders were written once: all three in the optimizer's file.
    let files =
        ["optimizer.safetensors", "exact.safetensors"].map(|name| fs::read(folder.join(name)).unwrap());
    let tensors = files.each_ref().map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let together = tensors.iter().flat_map(|file| file.iter().map(|(name, view)| (name.to_owned(), view)));
    let together = safetensors::serialize(together.collect::<Vec<_>>(), None).unwrap();
    let mut list: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("version.json")).unwrap()).unwrap();
    let listed = list["files"].as_object_mut().unwrap();
    listed.remove("exact.safetensors");
    let sum: String = Sha256::digest(&together).iter().map(|byte| format!("{byte:02x}")).collect();
    listed["optimizer.safetensors"] = serde_json::json!({"bytes": together.len(), "sha256": sum});
    fs::write(folder.join("optimizer.safetensors"), together).unwrap();
    fs::write(folder.join("version.json"), list.to_string()).unwrap();
    fs::remove_file(folder.join("exact.safetensors")).unwrap();

    for _ in 0..2 {
        assert!(folders.load(7).unwrap().state == state);
        assert!(folders.load_weights(7).unwrap() == state.weights);
        folders.drop_moments(7).unwrap();
    }
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let state = state();
    let mut trainer = trainer(&state);
    let short = TrainerState { second: vec![0.0; 3], ..state.clone() };
    let error = trainer.restore(&short).unwrap_err().to_string();
    let expected = ParameterLayout::new(&config()).len();
    assert!(error.contains("second") && error.contains(&expected.to_string()), "{error}");
    assert!(trainer.state().unwrap() == state);
}

#[test]
fn a_torn_file_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let folders = folders(scratch.path(), WeightDtype::F32);
    let folder = folders.stage(3, 3, "print", &state()).unwrap().publish().unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json"] {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for torn in [&whole[..whole.len() - 1], &flipped] {
            fs::write(&path, torn).unwrap();
            let error = folders.load(3).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("is torn"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(folders.load(3).unwrap_err().to_string().contains(name));
        fs::write(&path, whole).unwrap();
        folders.load(3).unwrap();
    }
    fs::write(folder.join("version.json"), "{").unwrap();
    assert!(folders.load(3).unwrap_err().to_string().contains("version.json"));
}

#[test]
fn what_a_writer_that_died_has_left_is_discarded_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let folders = folders(scratch.path(), WeightDtype::F32);
    assert!(folders.discard_unnamed(&[]).unwrap().is_empty(), "there is no folder yet");
    for number in [1, 2, 3] {
        folders.stage(number, number, "print", &state()).unwrap().publish().unwrap();
    }
    let _half_written = folders.stage(4, 4, "print", &state()).unwrap();
    fs::create_dir(folders.dir.join("notes")).unwrap();
    let mut discarded = folders.discard_unnamed(&[1, 2]).unwrap();
    discarded.sort();
    assert_eq!(discarded, [folders.dir.join("3"), folders.dir.join("4.tmp")]);
    assert_eq!(folders.numbers().unwrap(), [1, 2]);
    assert!(folders.dir.join("notes").exists());
    // A number that was never named is given again.
    folders.stage(3, 9, "second try", &state()).unwrap().publish().unwrap();
    assert_eq!(folders.load(3).unwrap().manifest.step, 9);
}

#[test]
fn equal_weights_have_equal_fingerprints() {
    let weights = random_weights(&config(), 1);
    let print = fingerprint(&config(), &weights);
    assert_eq!(print, fingerprint(&config(), &weights));
    assert_eq!(print.len(), 64);
    let mut nudged = weights.clone();
    nudged[17] = f32::from_bits(nudged[17].to_bits() ^ 1);
    assert_ne!(print, fingerprint(&config(), &nudged));
    assert_ne!(print, fingerprint(&ModelConfig { rope_theta: 1e6, ..config() }, &weights));
}
