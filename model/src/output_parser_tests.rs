//! What the streaming parser promises, piece by piece and for any cut.

use rand::{RngExt as _, SeedableRng as _};

use super::*;

fn all() -> ParserConfig {
    let tools = ["f", "g", "h", "write", "open"].map(str::to_owned).to_vec();
    ParserConfig { tools, thinking: true, starts_in_thinking: false }
}

/// A whole response after parsing.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
}

fn collect(deltas: impl IntoIterator<Item = OutputDelta>) -> Parsed {
    let mut parsed = Parsed::default();
    for delta in deltas {
        match delta {
            OutputDelta::Reasoning(text) => parsed.reasoning.push_str(&text),
            OutputDelta::Content(text) => parsed.content.push_str(&text),
            OutputDelta::ToolCallStart { index, id, name } => {
                assert_eq!(index, parsed.calls.len());
                assert!(id.len() == 28 && id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
                parsed.calls.push((name, String::new()));
            }
            OutputDelta::ToolCallArguments { index, arguments } => {
                assert_eq!(index + 1, parsed.calls.len());
                parsed.calls[index].1.push_str(&arguments);
            }
        }
    }
    parsed
}

fn parse_pieces(config: &ParserConfig, pieces: &[&str]) -> Parsed {
    let mut parser = OutputParser::new(config.clone());
    let mut deltas: Vec<_> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    collect(deltas)
}

fn parse(config: &ParserConfig, text: &str) -> Parsed {
    parse_pieces(config, &[text])
}

fn parsed(reasoning: &str, content: &str, calls: &[(&str, &str)]) -> Parsed {
    let calls = calls.iter().map(|&(name, arguments)| (name.into(), arguments.into())).collect();
    Parsed { reasoning: reasoning.into(), content: content.into(), calls }
}

#[test]
fn thinking_content_and_calls_are_told_apart() {
    let text = "<think>\nFirst.\n\nThen.\n</think>\n\nI'll look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n\
                </tool_call>\n<tool_call>\n{\"arguments\": {\"b\": [1.0], \"a\": {}}, \"name\": \"g\"}\n</tool_call>\n";
    let expected =
        parsed("First.\n\nThen.", "I'll look.", &[("f", r#"{"x": 1}"#), ("g", r#"{"b": [1.0], "a": {}}"#)]);
    assert_eq!(parse(&all(), text), expected);
}

#[test]
fn plain_text_passes_to_the_letter() {
    let text = "\n a < b, a <t, <thin\n\n<tool_calls> </think> </tool_call>\n\n";
    assert_eq!(parse(&all(), text), parsed("", text, &[]));
}

#[test]
fn markers_that_are_not_looked_for_are_content() {
    let text = "<think>\nx\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n";
    assert_eq!(parse(&ParserConfig::default(), text), parsed("", text, &[]));
    let thinking = ParserConfig { thinking: true, ..ParserConfig::default() };
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n";
    assert_eq!(parse(&thinking, text), parsed("x", call, &[]));
}

#[test]
fn thinking_that_the_prompt_began_ends_at_its_marker() {
    let config = ParserConfig { starts_in_thinking: true, ..all() };
    assert_eq!(parse(&config, "\nhm\n</think>\n\nyes\n"), parsed("hm", "yes\n", &[]));
    assert_eq!(parse(&config, "hm, still"), parsed("hm, still", "", &[]));
    assert_eq!(parse(&config, "\n\n</think>\n\nyes"), parsed("", "yes", &[]));
}

#[test]
fn a_call_needs_no_arguments_and_may_write_them_as_text() {
    let wrap = |json: &str| format!("<tool_call>{json}</tool_call>");
    for (json, arguments) in [
        (r#"{"name": "f"}"#, "{}"),
        (r#"{"name": "f", "arguments": null}"#, "{}"),
        (r#"{"name": "f", "arguments": "{\"x\":  2}"}"#, r#"{"x":  2}"#),
    ] {
        assert_eq!(parse(&all(), &wrap(json)), parsed("", "", &[("f", arguments)]), "{json}");
    }
}

#[test]
fn what_is_no_call_is_content_to_the_letter() {
    for body in [
        "f(1)",
        "{\"name\": \"f\", \"arguments\": }",
        "{\"name\": \"f\", \"arguments\": [1]}",
        "{\"name\": \"f\", \"arguments\": \"no json\"}",
        "{\"name\": 1, \"arguments\": {}}",
        "{\"name\": \"\", \"arguments\": {}}",
        "{\"arguments\": {}}",
        "{\"name\": \"f\"} and more",
        "{\"name\": \"open",
        "",
    ] {
        let text = format!("see:\n\n<tool_call>\n{body}\n</tool_call>\nso\n");
        assert_eq!(parse(&all(), &text), parsed("", &text, &[]), "{body}");
    }
}

#[test]
fn a_real_call_inside_a_false_one_is_found() {
    let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    assert_eq!(
        parse(&all(), &format!("<tool_call>oops\n{call}")),
        parsed("", "<tool_call>oops", &[("f", "{}")])
    );
    let unclosed = "<tool_call>{\"name\": \"x\n";
    assert_eq!(parse(&all(), &format!("{unclosed}{call}")), parsed("", unclosed.trim_end(), &[("f", "{}")]));
}

#[test]
fn a_closing_marker_inside_a_string_does_not_close() {
    let text = r#"<tool_call>{"name": "write", "arguments": {"text": "a \"</tool_call>\" <tool_call> b"}}</tool_call>"#;
    let arguments = r#"{"text": "a \"</tool_call>\" <tool_call> b"}"#;
    assert_eq!(parse(&all(), text), parsed("", "", &[("write", arguments)]));
}

#[test]
fn a_call_cut_after_its_json_still_counts() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool";
    let complete = text.strip_suffix("</tool").unwrap();
    assert_eq!(parse(&all(), complete), parsed("", "", &[("f", r#"{"x": 1}"#)]));
    assert_eq!(parse(&all(), text), parsed("", text, &[]));
}

#[test]
fn text_leaves_at_once_unless_it_may_be_a_marker() {
    let mut parser = OutputParser::new(all());
    assert_eq!(parser.push("\n<thi"), []);
    assert_eq!(parser.push("nk>\nso"), [OutputDelta::Reasoning("so".into())]);
    assert_eq!(parser.push(" it\n"), [OutputDelta::Reasoning(" it".into())]);
    assert_eq!(parser.push("is\n</thi"), [OutputDelta::Reasoning("\nis".into())]);
    assert_eq!(parser.push("nk>\n"), []);
    assert_eq!(parser.push("\nHello <"), [OutputDelta::Content("Hello ".into())]);
    assert_eq!(parser.push("b> <thi"), [OutputDelta::Content("<b> <thi".into())]);
    assert_eq!(parser.push("nk> yes\n"), [OutputDelta::Content("nk> yes".into())]);
    assert_eq!(parser.push("<tool_call>["), [OutputDelta::Content("\n<tool_call>[".into())]);
    assert_eq!(parser.finish(), []);
}

#[test]
fn the_result_does_not_depend_on_how_the_text_is_cut() {
    const FRAGMENTS: [&str; 22] = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "</thi",
        "<",
        ">",
        "\n",
        "\n\n",
        " ",
        "word",
        "é🚀",
        "{",
        "}",
        "\"",
        "\\",
        "{\"name\": \"f\", \"arguments\": {\"x\": \"</tool_call>\"}}",
        "{\"name\": \"g\"}",
        "<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"",
        "tool",
    ];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let mut with_calls = 0;
    for round in 0..20_000u32 {
        let count = rng.random_range(0..14);
        let text: String = (0..count).map(|_| FRAGMENTS[rng.random_range(0..FRAGMENTS.len())]).collect();
        let config = ParserConfig {
            tools: if round % 5 == 0 { Vec::new() } else { all().tools },
            thinking: round % 3 != 0,
            starts_in_thinking: round % 6 == 1,
        };
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let chars = rng.random_range(1..9);
            let at = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
            pieces.push(&rest[..at]);
            rest = &rest[at..];
        }
        let whole = parse(&config, &text);
        with_calls += usize::from(!whole.calls.is_empty());
        assert_eq!(parse_pieces(&config, &pieces), whole, "{config:?} {pieces:?}");
        // Nothing but markers, white space around them and calls may disappear.
        if whole.calls.is_empty() {
            let letters =
                |text: &str| text.replace(THINK, "").replace(THINK_END, "").replace(['\n', ' '], "");
            let given = letters(&text);
            let mut kept = letters(&format!("{}{}", whole.reasoning, whole.content));
            let mut given: Vec<char> = given.chars().collect();
            let mut kept_chars: Vec<char> = kept.drain(..).collect();
            given.sort_unstable();
            kept_chars.sort_unstable();
            assert_eq!(kept_chars, given, "{text:?}");
        }
    }
    assert!(with_calls > 1000, "only {with_calls} texts had a call");
}

#[test]
fn thinking_opens_a_response_or_does_not_happen() {
    for text in [
        "The tag that ends it is </think>",
        "Wrap it in <think> and </think>, then answer.",
        "a\n<think>\nb\n</think>\nc",
        "</think>",
    ] {
        assert_eq!(parse(&all(), text), parsed("", text, &[]), "{text}");
        assert_eq!(answer_in(text, false), text);
    }
    let twice = "\n <think>\nhm\n</think>\n\nIt is <think>no</think>";
    assert_eq!(parse(&all(), twice), parsed("hm", "It is <think>no</think>", &[]));
    assert_eq!(answer_in(twice, false).trim(), "It is <think>no</think>");
    assert_eq!((answer_in("a</think>b</think>", true), answer_in("a", true)), ("b</think>", ""));
    let call =
        r#"<tool_call>{"name": "write", "arguments": {"text": "<think></think> from it"}}</tool_call>"#;
    assert_eq!(parse(&all(), call), parsed("", "", &[("write", r#"{"text": "<think></think> from it"}"#)]));
}

#[test]
fn arguments_pass_as_they_are_written() {
    let arguments = r#"{"wei": 100000000000000000000, "id": 12345678901234567890, "rate": 1.10, "n": 1e3,
        "neg": -9223372036854775809, "tiny": 1e-999, "deep": [{"x":  0.10}], "x": 1, "x": 2}"#;
    for written in [arguments.to_owned(), serde_json::to_string(arguments).expect("text")] {
        let text = format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {written}}}\n</tool_call>");
        assert_eq!(parse(&all(), &text), parsed("", "", &[("f", arguments)]), "{text}");
    }
}

#[test]
fn control_characters_that_stand_raw_in_a_string_are_meant() {
    let text = "<tool_call>\n{\"name\": \"write\",\r\n\t\"arguments\": {\"path\": \"a\\\\\", \"text\": \"def f():\n\treturn \\\"1\\\"\r\n\u{1}\"}}\n</tool_call>";
    let arguments = "{\"path\": \"a\\\\\", \"text\": \"def f():\\n\\treturn \\\"1\\\"\\r\\n\\u0001\"}";
    assert_eq!(parse(&all(), text), parsed("", "", &[("write", arguments)]));
    let as_text = r#"<tool_call>{"name": "write", "arguments": "{\"text\": \"a\nb\"}"}</tool_call>"#;
    assert_eq!(parse(&all(), as_text), parsed("", "", &[("write", r#"{"text": "a\nb"}"#)]));
    // A backslash before a line break means nothing in JSON.
    let text = "<tool_call>{\"name\": \"write\", \"arguments\": {\"text\": \"a\\\nb\"}}</tool_call>";
    assert_eq!(parse(&all(), text), parsed("", text, &[]));
}

#[test]
fn a_call_of_a_tool_that_was_not_offered_is_text() {
    for name in ["rm", "F", "write ", ""] {
        let text = format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{}}}}\n</tool_call>");
        assert_eq!(parse(&all(), &text), parsed("", &text, &[]), "{name}");
    }
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}, {"name": "g"}, {"x": 1}]);
    let config = ParserConfig::new(tools.as_array().expect("a list"), true);
    assert_eq!(config.tools, ["f", "g"]);
    assert!(config.thinking && config.starts_in_thinking);
}
