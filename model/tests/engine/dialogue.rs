//! A conversation goes on behind the tokens that were drawn.

use std::path::{Path, PathBuf};

use openclaw_model::{ChatTemplate, Dialogue, Prompt, Tokenizer};
use serde_json::{Map, Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn parts(template: &str) -> (Tokenizer, ChatTemplate) {
    let tokenizer = Tokenizer::from_dir(&folder("configs/models/nano")).unwrap();
    let template = match template {
        "nano" => ChatTemplate::from_dir(&folder("configs/models/nano")).unwrap(),
        name => {
            let path = folder("tests/fixtures/templates").join(format!("{name}.jinja"));
            ChatTemplate::from_source(&std::fs::read_to_string(path).unwrap()).unwrap()
        }
    };
    (tokenizer, template)
}

fn tools() -> Vec<Value> {
    vec![json!({"type": "function", "function": {"name": "add", "description": "adds",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]}}})]
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn call() -> Value {
    let function = json!({"name": "add", "arguments": "{\"of\": \"2 + 2\"}"});
    json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "c", "type": "function", "function": function}]})
}

const DRAWN: &str = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"of\": \"2 + 2\"}}\n</tool_call>";

fn result(text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": "c", "content": text})
}

#[test]
fn where_the_reply_was_drawn_as_it_is_rendered_the_prompt_is_the_whole_rendering() {
    for name in ["nano", "thinking_tools"] {
        let (tokenizer, template) = parts(name);
        let mut dialogue = Dialogue::new(&tokenizer, &template, &[user("2 + 2?")], &tools()).unwrap();
        let drawn = tokenizer.encode(&format!("{DRAWN}<|im_end|>")).unwrap();
        dialogue.replied(&call(), &drawn).unwrap();
        dialogue.followed(&[result("4 <|im_end|>")]).unwrap();
        let whole = Prompt::new(&tokenizer, &template, dialogue.messages(), &tools(), &Map::new()).unwrap();
        assert_eq!(tokenizer.decode(dialogue.ids(), false), tokenizer.decode(&whole.ids, false), "{name}");
        assert_eq!((dialogue.ids(), dialogue.segment()), (&*whole.ids, 0), "{name}");
    }
}

#[test]
fn what_was_drawn_stays_as_it_was_and_a_reply_that_was_cut_is_closed() {
    let (tokenizer, template) = parts("nano");
    let mut dialogue = Dialogue::new(&tokenizer, &template, &[user("2 + 2?")], &tools()).unwrap();
    let asked = dialogue.ids().to_vec();
    // Letter by letter, as no encoder would.
    let letters: Vec<u32> = "four".chars().flat_map(|c| tokenizer.encode(&c.to_string()).unwrap()).collect();
    assert_ne!(letters, tokenizer.encode("four").unwrap());
    dialogue.replied(&json!({"role": "assistant", "content": "four"}), &letters).unwrap();
    dialogue.followed(&[user("go on")]).unwrap();
    assert_eq!(dialogue.ids()[..asked.len()], asked);
    assert_eq!(dialogue.ids()[asked.len()..][..letters.len()], letters);
    let rest = tokenizer.decode(&dialogue.ids()[asked.len() + letters.len()..], false);
    assert_eq!(rest, "<|im_end|>\n<|im_start|>user\ngo on<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn a_template_that_leaves_thinking_out_later_begins_a_segment() {
    let (tokenizer, template) = parts("nano");
    let mut dialogue = Dialogue::new(&tokenizer, &template, &[user("2 + 2?")], &[]).unwrap();
    let reply = json!({"role": "assistant", "reasoning_content": "hm", "content": "4"});
    dialogue.replied(&reply, &tokenizer.encode("<think>\nhm\n</think>\n\n4<|im_end|>").unwrap()).unwrap();
    dialogue.followed(&[user("and 3 + 3?")]).unwrap();
    assert_eq!(dialogue.segment(), 1);
    assert!(!tokenizer.decode(dialogue.ids(), false).contains("hm"));
    dialogue.rewrite(&[user("anew")]).unwrap();
    let text = tokenizer.decode(dialogue.ids(), false);
    assert_eq!(
        (dialogue.segment(), &*text),
        (2, "<|im_start|>user\nanew<|im_end|>\n<|im_start|>assistant\n")
    );
}
