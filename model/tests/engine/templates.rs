//! Chat templates render byte for byte as `apply_chat_template` of `transformers` does.
//! The expectations are made by tests/reference/make_fixtures.py.

use std::path::{Path, PathBuf};

use openclaw_model::{
    ChatTemplate, NANO_TEMPLATE, Prompt, TextError, Tokenizer, exact_json, normalize_messages,
};
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
    assert!(matches!(ChatTemplate::from_source("{% if %}"), Err(TextError::CompileTemplate { .. })));
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

/// Shows no tools.
const PLAIN: &str = "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + (m.content or '') + \
    '<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// The counts are those of `apply_chat_template` of `transformers` 5.24.
#[test]
fn a_conversation_with_tools_has_the_template_of_that_name() {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let tokenizer = Tokenizer::from_dir(&nano).unwrap();
    let messages = [json!({"role": "user", "content": "hi"})];
    let parameters = json!({"type": "object", "properties": {"to": {"type": "string"}}});
    let send = json!({"name": "send", "description": "sends", "parameters": parameters});
    let tool = json!({"type": "function", "function": send});
    let tokens = |dir: &Path, tools: &[Value]| {
        let template = ChatTemplate::from_dir(dir).unwrap();
        Prompt::new(&tokenizer, &template, &messages, tools, &Map::new()).unwrap().ids.len()
    };
    let [list, object, folder, saved] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let config = |dir: &Path, templates: Value| {
        std::fs::write(dir.join("tokenizer_config.json"), json!({"chat_template": templates}).to_string())
            .unwrap();
    };
    let named = |name: &str, template: &str| json!({"name": name, "template": template});
    // Of two with one name the last counts.
    let listed =
        [("tool_use", PLAIN), ("default", PLAIN), ("tool_use", NANO_TEMPLATE), ("rag", "{{ other }}")];
    config(list.path(), listed.map(|(name, template)| named(name, template)).into_iter().collect());
    config(object.path(), json!({"default": PLAIN, "tool_use": NANO_TEMPLATE}));
    std::fs::write(folder.path().join("chat_template.jinja"), PLAIN).unwrap();
    std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    std::fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), NANO_TEMPLATE).unwrap();
    ChatTemplate::from_dir(list.path()).unwrap().save(saved.path()).unwrap();
    for dir in [&list, &object, &folder, &saved] {
        let found = (tokens(dir.path(), &[]), tokens(dir.path(), std::slice::from_ref(&tool)));
        assert_eq!(found, (9, 71), "{:?}", dir.path().read_dir().unwrap().collect::<Vec<_>>());
    }
    // All files count over all of the configuration.
    std::fs::write(list.path().join("chat_template.jinja"), PLAIN).unwrap();
    assert_eq!(tokens(list.path(), std::slice::from_ref(&tool)), 9);
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let told = ChatTemplate::from_dir(folder.path()).unwrap_err().to_string();
    assert!(told.contains("tool_use.jinja: `tool_use` is there without chat_template.jinja"), "{told}");
}

/// As Python's `json` reads and writes them, and `apply_chat_template` of `transformers` with it.
#[test]
fn numbers_of_history_and_schemas_are_shown_as_transformers_shows_them() {
    let template = ChatTemplate::from_source(NANO_TEMPLATE).unwrap();
    let plain = ChatTemplate::from_source("{{ messages[0].tool_calls[0].function.arguments.x }}").unwrap();
    for (written, python) in [
        ("100000000000000000000", "100000000000000000000"),
        ("100000000000000000001", "100000000000000000001"),
        ("12345678901234567890", "12345678901234567890"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("18446744073709551616", "18446744073709551616"),
        ("340282366920938463463374607431768211455", "340282366920938463463374607431768211455"),
        ("340282366920938463463374607431768211456", "340282366920938463463374607431768211456"),
        ("-170141183460469231731687303715884105729", "-170141183460469231731687303715884105729"),
        ("1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890"),
        ("1.10", "1.1"),
        ("-0", "0"),
        ("-0.0", "-0.0"),
        ("1e3", "1000.0"),
        ("1E+3", "1000.0"),
        ("1e400", "Infinity"),
        ("-1e400", "-Infinity"),
        ("1e-400", "0.0"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("12345678901234567890.5", "1.2345678901234567e+19"),
        ("1e16", "1e+16"),
        ("1e22", "1e+22"),
        ("9007199254740993", "9007199254740993"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("3.14159265358979323846", "3.141592653589793"),
        ("0.00001", "1e-05"),
        ("0.1e1", "1.0"),
    ] {
        let body = format!(
            r#"{{"tools": [{{"type": "function", "function": {{"name": "f", "parameters": {{"maximum": {written}}}}}}}],
            "messages": [{{"role": "assistant", "tool_calls": [
                {{"type": "function", "function": {{"name": "f", "arguments": "{{\"x\": {written}}}"}}}},
                {{"type": "function", "function": {{"name": "f", "arguments": {{"y": [{written}]}}}}}}]}}]}}"#
        );
        let request = exact_json::read_request(&body).unwrap();
        let messages = normalize_messages(&list(&request["messages"])).unwrap();
        let text = template.render(&messages, &list(&request["tools"]), &Map::new(), true).unwrap();
        for shown in [
            format!(r#""parameters": {{"maximum": {python}}}"#),
            format!(r#""arguments": {{"x": {python}}}"#),
            format!(r#""arguments": {{"y": [{python}]}}"#),
        ] {
            assert!(text.contains(&shown), "{shown} is not in {text}");
        }
        let shown = plain.render(&messages, &[], &Map::new(), true).unwrap();
        assert_eq!(shown, python.replace("Infinity", "inf"), "by `str`");
    }
}

#[test]
fn what_the_server_sets_no_request_replaces() {
    let source =
        "{{ messages[0].content }}|{{ tools }}|{{ add_generation_prompt }}|{{ bos_token }}|{{ mine }}";
    let template = ChatTemplate::from_source(source).unwrap();
    let kwargs = json!({"messages": [{"content": "theirs"}], "tools": 1, "add_generation_prompt": false,
        "bos_token": "<|im_end|>", "mine": "free"});
    let messages = [json!({"role": "user", "content": "hi"})];
    let text = template.render(&messages, &[], kwargs.as_object().unwrap(), true).unwrap();
    assert_eq!(text, "hi|None|True||free");
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

#[test]
fn only_what_a_template_can_show_is_kept() {
    let kept = |source: &str| {
        let template = ChatTemplate::from_source(source).unwrap();
        let mut messages =
            vec![json!({"role": "user", "content": "hi", "name": "tom", "mood": "good", "x": "large"})];
        let mut kwargs = json!({"enable_thinking": false, "trace": "large"}).as_object().cloned().unwrap();
        let before = template.render(&messages, &[], &kwargs, true).unwrap();
        template.keep_shown(&mut messages, &mut kwargs);
        assert_eq!(template.render(&messages, &[], &kwargs, true).unwrap(), before, "{source}");
        let names = |fields: &Map<String, Value>| fields.keys().cloned().collect::<Vec<_>>().join(" ");
        (names(messages[0].as_object().unwrap()), names(&kwargs))
    };
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
    assert_eq!(kept(plain), ("role content name".to_owned(), String::new()));
    let moody = "{% for m in messages %}{{ m.content }} {{ m['mood'] }}{% endfor %}{{ enable_thinking }}";
    assert_eq!(kept(moody), ("role content name mood".to_owned(), "enable_thinking".to_owned()));
    let whole = "{% for m in messages %}{{ m | tojson }}{% endfor %}";
    assert_eq!(kept(whole).0, "role content name mood x");
}
