//! Chat templates render byte for byte as `apply_chat_template` of `transformers` does.
//! The expectations are made by tests/reference/make_fixtures.py.

use std::path::{Path, PathBuf};

use openclaw_model::{ChatTemplate, NANO_TEMPLATE, TextError, normalize_messages};
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/templates")
}

/// A checkpoint folder with this template and the special tokens that the fixtures were made with.
fn template(name: &str) -> ChatTemplate {
    let dir = tempfile::tempdir().unwrap();
    let source = match name {
        "nano" => NANO_TEMPLATE.to_owned(),
        _ => std::fs::read_to_string(fixtures().join(format!("{name}.jinja"))).unwrap(),
    };
    std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
    let tokens = json!({"bos_token": "<|begin|>", "eos_token": {"content": "<|im_end|>", "special": true}});
    std::fs::write(dir.path().join("tokenizer_config.json"), tokens.to_string()).unwrap();
    ChatTemplate::from_dir(dir.path()).unwrap()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("cases.json")).unwrap();
    list(&serde_json::from_str(&text).unwrap())
}

fn render(case: &Value, messages: &[Value]) -> Result<String, TextError> {
    let kwargs = case["kwargs"].as_object().cloned().unwrap_or_default();
    let prompt = case["add_generation_prompt"].as_bool().unwrap_or(true);
    template(case["template"].as_str().unwrap()).render(messages, &list(&case["tools"]), &kwargs, prompt)
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    for case in &cases {
        let text = render(case, &list(&case["messages"])).unwrap();
        assert_eq!(text, case["expected"].as_str().unwrap(), "{} with {}", case["name"], case["template"]);
    }
}

#[test]
fn client_messages_render_as_their_template_form() {
    let mut rendered = 0;
    for case in cases() {
        // As OpenAI clients write it: content in parts or null, arguments as text, `developer` for `system`.
        let mut messages = list(&case["messages"]);
        let mut has_text_arguments = false;
        for message in &mut messages {
            if message["role"] == "system" {
                message["role"] = "developer".into();
            }
            message["content"] = match message["content"].as_str().unwrap() {
                "" => Value::Null,
                text => json!([{"type": "text", "text": text}]),
            };
            for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
                if call["function"].is_null() {
                    *call = json!({"type": "function", "function": call.clone()});
                }
                let arguments = &mut call["function"]["arguments"];
                has_text_arguments |= arguments.is_string();
                if !arguments.is_string() {
                    *arguments = arguments.to_string().into();
                }
            }
        }
        // Arguments that were text for the template too are an object after normalisation: `transformers` keeps their
        // spacing, we do not.
        if !has_text_arguments {
            let text = render(&case, &normalize_messages(&messages).unwrap()).unwrap();
            assert_eq!(
                text,
                case["expected"].as_str().unwrap(),
                "{} with {}",
                case["name"],
                case["template"]
            );
            rendered += 1;
        }
    }
    assert!(rendered >= 35);
}

#[test]
fn the_templates_refusal_keeps_its_words() {
    let messages = [json!({"role": "user", "content": "a"}), json!({"role": "user", "content": "b"})];
    let error = template("plain_blocks").render(&messages, &[], &Map::new(), true).unwrap_err();
    let TextError::TemplateRefused { message } = error else { panic!("{error:?}") };
    assert_eq!(message, "turns must alternate, but turn 2 is of user");
}

#[test]
fn a_failing_template_names_its_line() {
    let template = ChatTemplate::from_source("fine\n{{ messages.length() }}").unwrap();
    let error = template.render(&[], &[], &Map::new(), true).unwrap_err();
    let TextError::Template { source } = &error else { panic!("{error:?}") };
    assert_eq!(source.line(), Some(2));
    assert!(matches!(ChatTemplate::from_source("{% if %}"), Err(TextError::Template { .. })));
}

#[test]
fn the_template_is_found_wherever_checkpoints_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let render = || -> Result<String, TextError> {
        ChatTemplate::from_dir(dir.path())?.render(&[], &[], &Map::new(), false)
    };
    let config = dir.path().join("tokenizer_config.json");

    assert!(matches!(render(), Err(TextError::NoTemplate { path }) if path == dir.path()));
    std::fs::write(&config, r#"{"chat_template": "as text"}"#).unwrap();
    assert_eq!(render().unwrap(), "as text");
    let named = json!([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "by name"}]);
    std::fs::write(&config, json!({ "chat_template": named }).to_string()).unwrap();
    assert_eq!(render().unwrap(), "by name");
    std::fs::write(&config, r#"{"chat_template": 7}"#).unwrap();
    let error = render().unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: chat_template is neither"), "{error}");
    std::fs::write(dir.path().join("chat_template.jinja"), "as a file").unwrap();
    assert_eq!(render().unwrap(), "as a file");
}

#[test]
fn a_saved_template_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    ChatTemplate::from_source(NANO_TEMPLATE).unwrap().save(dir.path()).unwrap();
    let messages = [json!({"role": "user", "content": "hi"})];
    let text = ChatTemplate::from_dir(dir.path()).unwrap().render(&messages, &[], &Map::new(), true).unwrap();
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn strftime_now_gives_a_date() {
    let template = ChatTemplate::from_source("{{ strftime_now('%Y-%m-%d') }}").unwrap();
    let date = template.render(&[], &[], &Map::new(), false).unwrap();
    let (year, rest) = date.split_once('-').unwrap();
    assert!(year.parse::<u32>().unwrap() >= 2026 && rest.len() == 5, "{date}");
}
