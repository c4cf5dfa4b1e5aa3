//! A checkpoint folder is looked at without reading its weights, and everything wrong with it is told at once.

use std::{
    error::Error,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use openclaw_model::{CheckpointError, ModelConfig, ParameterLayout, inspect};
use serde_json::{Value, json};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano")
}

/// A copy of the embedded model.
fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(nano()).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    folder
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// What is wrong with it, each with its causes on one line.
fn told(dir: &Path) -> Vec<String> {
    let chain = |error: &CheckpointError| {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
    };
    inspect(dir).expect_err("something is wrong").iter().map(chain).collect()
}

#[test]
fn a_whole_checkpoint_is_told_by_what_it_holds() {
    let found = inspect(&nano()).unwrap();
    assert_eq!((found.config.vocab_size, found.tokens), (4096, 4096));
    assert_eq!(found.config.max_positions, 32768);
    assert_eq!(found.parameters, ParameterLayout::new(&found.config).len());
    assert_eq!(found.dtypes, ["BF16"]);
    assert!(found.tools, "its template shows tools");
    assert_eq!(found.warnings, Vec::<String>::new());
}

/// Something that goes wrong with a folder, and the words that tell of it.
type Case<'a> = (&'a str, &'a dyn Fn(&Path), &'a [&'a str]);

#[test]
fn each_broken_checkpoint_is_refused_and_the_file_named() {
    let weights = |dir: &Path| dir.join("model.safetensors");
    let cases: &[Case<'_>] = &[
        (
            "truncated",
            &|dir| {
                let bytes = fs::read(weights(dir)).unwrap();
                fs::write(weights(dir), &bytes[..bytes.len() / 2]).unwrap();
            },
            &["model.safetensors is truncated or not a safetensors file: ", "incomplete"],
        ),
        (
            "a web page",
            &|dir| fs::write(weights(dir), "<html>not found</html>").unwrap(),
            &["truncated or not"],
        ),
        ("empty", &|dir| fs::write(weights(dir), "").unwrap(), &["truncated or not", "header too small"]),
        (
            "no weights",
            &|dir| fs::remove_file(weights(dir)).unwrap(),
            &["has neither model.safetensors nor model.safetensors.index.json"],
        ),
        (
            "a configuration of nothing",
            &|dir| fs::write(dir.join("config.json"), "{}").unwrap(),
            &["config.json: `model_type` is missing, expected one of \"qwen3\", "],
        ),
        (
            "no JSON",
            &|dir| fs::write(dir.join("config.json"), "model_type: qwen3").unwrap(),
            &["config.json is not JSON: ", "line 1"],
        ),
        (
            "another family",
            &|dir| change(&dir.join("config.json"), |json| json["model_type"] = "gpt2".into()),
            &["config.json: `model_type` is \"gpt2\", expected one of \"qwen3\", "],
        ),
        (
            "other shapes",
            &|dir| change(&dir.join("config.json"), |json| json["intermediate_size"] = 320.into()),
            &[
                "model.safetensors: tensor `model.layers.0.mlp.gate_proj.weight` has shape [640, 192], expected [320, 192]",
            ],
        ),
        (
            "a layer more",
            &|dir| change(&dir.join("config.json"), |json| json["num_hidden_layers"] = 7.into()),
            &["model.safetensors has no tensor `model.layers.6.input_layernorm.weight`"],
        ),
        (
            "numbers beyond any memory",
            &|dir| change(&dir.join("config.json"), |json| json["num_hidden_layers"] = (1u64 << 60).into()),
            &["config.json: `num_hidden_layers` is 1152921504606846976, expected an integer from 1 to 1024"],
        ),
        (
            "a tokenizer of garbage",
            &|dir| fs::write(dir.join("tokenizer.json"), "{\"garbage\": 1}").unwrap(),
            &["cannot load the tokenizer ", "tokenizer.json"],
        ),
        (
            "no tokenizer",
            &|dir| fs::remove_file(dir.join("tokenizer.json")).unwrap(),
            &["cannot read ", "tokenizer.json: No such file"],
        ),
        (
            "a tokenizer of more tokens than rows",
            &|dir| {
                change(&dir.join("tokenizer.json"), |json| {
                    let token = json!({
                        "id": 4096, "content": "<|new|>", "special": true, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false,
                    });
                    json["added_tokens"].as_array_mut().unwrap().push(token);
                });
            },
            &["tokenizer.json has ids up to 4096, vocab_size in config.json is 4096"],
        ),
        (
            "an end beyond the rows",
            &|dir| change(&dir.join("generation_config.json"), |json| json["eos_token_id"] = 5000.into()),
            &["eos_token_id 5000 is not below the vocab_size of config.json, 4096"],
        ),
        (
            "a template that does not compile",
            &|dir| fs::write(dir.join("chat_template.jinja"), "{% for m in messages %}").unwrap(),
            &["the chat template in ", "chat_template.jinja is unusable: ", "end of input"],
        ),
        (
            "a template that fails",
            &|dir| {
                fs::write(dir.join("chat_template.jinja"), "{{ messages[0].content.nothing.at_all }}")
                    .unwrap()
            },
            &["chat_template.jinja is unusable: the chat template fails: "],
        ),
        (
            "a template that refuses",
            &|dir| fs::write(dir.join("chat_template.jinja"), "{{ raise_exception('not today') }}").unwrap(),
            &["chat_template.jinja is unusable: ", "not today"],
        ),
        (
            "a template that says nothing",
            &|dir| fs::write(dir.join("chat_template.jinja"), "hello").unwrap(),
            &["chat_template.jinja leaves out the user's message"],
        ),
        (
            "a template for tools that does not compile",
            &|dir| {
                fs::create_dir(dir.join("additional_chat_templates")).unwrap();
                fs::write(dir.join("additional_chat_templates/tool_use.jinja"), "{% for m in messages %}")
                    .unwrap()
            },
            &["additional_chat_templates/tool_use.jinja is unusable: ", "end of input"],
        ),
        (
            "a template for tools that says nothing",
            &|dir| {
                fs::create_dir(dir.join("additional_chat_templates")).unwrap();
                fs::write(dir.join("additional_chat_templates/tool_use.jinja"), "{{ tools }}").unwrap()
            },
            &["additional_chat_templates/tool_use.jinja leaves out the user's message"],
        ),
        (
            "no template",
            &|dir| fs::remove_file(dir.join("chat_template.jinja")).unwrap(),
            &["has neither chat_template.jinja nor a chat_template in tokenizer_config.json"],
        ),
    ];
    for (name, breaks, expected) in cases {
        let folder = copied();
        breaks(folder.path());
        let told = told(folder.path());
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        for part in *expected {
            assert!(told[0].contains(part), "{name}: {part:?} is not in {told:?}");
        }
        assert!(!told[0].contains("Some("), "{name}: {told:?}");
    }
}

/// Puts an index over the weights, with `elsewhere` in a second file that is not written.
fn shard(dir: &Path, elsewhere: &str) {
    let config = ModelConfig::from_dir(dir).unwrap();
    let file = |name: &str| match name == elsewhere {
        true => "model-00002-of-00002.safetensors",
        false => "model-00001-of-00002.safetensors",
    };
    let layout = ParameterLayout::new(&config);
    let map = layout.parameters.iter().map(|one| (one.name.clone(), Value::from(file(&one.name))));
    let index = json!({"weight_map": Value::Object(map.collect())});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    fs::rename(dir.join("model.safetensors"), dir.join("model-00001-of-00002.safetensors")).unwrap();
}

#[test]
fn a_missing_shard_is_named_whether_or_not_the_shapes_are_known() {
    let folder = copied();
    shard(folder.path(), "none");
    inspect(folder.path()).unwrap();

    let folder = copied();
    shard(folder.path(), "model.norm.weight");
    let missing = "model-00002-of-00002.safetensors: No such file";
    let one = told(folder.path());
    assert!(one.len() == 1 && one[0].contains(missing), "{one:?}");
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let two = told(folder.path());
    assert!(two.len() == 2 && two[0].contains("model_type") && two[1].contains(missing), "{two:?}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let folder = copied();
    let dir = folder.path();
    fs::write(dir.join("tokenizer.json"), "garbage").unwrap();
    fs::write(dir.join("chat_template.jinja"), "{{").unwrap();
    fs::write(dir.join("model.safetensors"), "short").unwrap();
    change(&dir.join("generation_config.json"), |json| json["eos_token_id"] = "end".into());
    let told = told(dir);
    let files = ["tokenizer.json", "chat_template.jinja", "generation_config.json", "model.safetensors"];
    assert_eq!(told.len(), files.len(), "{told:?}");
    for (line, file) in told.iter().zip(files) {
        assert!(line.contains(file), "{file}: {line}");
    }
    let nowhere = self::told(&dir.join("nowhere"));
    assert!(nowhere.iter().all(|line| line.contains("nowhere")), "{nowhere:?}");
}

#[test]
fn a_folder_that_works_and_is_probably_not_meant_so_is_warned_of() {
    let folder = copied();
    let dir = folder.path();
    for file in ["config.json", "generation_config.json"] {
        change(&dir.join(file), |json| drop(json.as_object_mut().unwrap().remove("eos_token_id")));
    }
    change(&dir.join("tokenizer_config.json"), |json| json["eos_token"] = Value::Null);
    let warnings = inspect(dir).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("no eos_token_id is named"), "{warnings:?}");
    fs::write(dir.join("chat_template.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    assert!(!inspect(dir).unwrap().tools, "a template without tools is a template");
}

/// Reading 64 GiB would take minutes, or more memory than there is.
#[test]
fn the_weights_themselves_are_not_read() {
    let folder = copied();
    let dir = folder.path();
    change(&dir.join("config.json"), |json| {
        json["vocab_size"] = (1 << 20).into();
        json["hidden_size"] = (1 << 14).into();
    });
    let config = ModelConfig::from_dir(dir).unwrap();
    let layout = ParameterLayout::new(&config);
    let tensor = |one: &openclaw_model::Parameter| {
        let ends = [one.range.start * 4, one.range.end * 4];
        (one.name.clone(), json!({"dtype": "F32", "shape": one.shape, "data_offsets": ends}))
    };
    let header = Value::Object(layout.parameters.iter().map(tensor).collect()).to_string();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let bytes = 8 + header.len() as u64 + layout.len() as u64 * 4;
    assert!(bytes > 64 << 30);
    // A hole: it takes no room on the disk.
    file.set_len(bytes).unwrap();
    let found = inspect(dir).unwrap();
    assert_eq!(found.dtypes, ["F32"]);
    let warnings = &found.warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("4096 tokens for the model's 1048576"),
        "{warnings:?}"
    );
    file.set_len(bytes - 1).unwrap();
    assert!(told(dir)[0].contains("truncated"));
}
