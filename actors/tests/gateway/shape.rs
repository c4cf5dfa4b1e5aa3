//! The form of an answer: what clients ask for reaches the engine, and what is not done is refused by name.

use openclaw_model::SamplingParams;
use serde_json::{Value, json};

use crate::house::{House, ask, exec_tool, with};

/// The path that a 400 names, and its message.
async fn refusal(house: &House, body: &Value) -> (String, String) {
    let response = house.post("/v1/chat/completions", body).await;
    let status = response.status();
    let error: Value = response.json().await.expect("JSON");
    assert_eq!(status, 400, "{body} got {error}");
    let text = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
    (text("param"), text("message"))
}

fn object_schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
}

#[tokio::test]
async fn what_is_malformed_or_not_done_is_a_400_that_names_its_field() {
    let house = House::new().await;
    let unheld = json!({"type": "array", "uniqueItems": true});
    let format = |format: Value| json!({"type": "json_schema", "json_schema": format});
    for (name, value, param) in [
        ("response_format", json!("json"), "response_format"),
        ("response_format", json!({}), "response_format.type"),
        ("response_format", json!({"type": "banana"}), "response_format.type"),
        ("response_format", json!({"type": "json_schema"}), "response_format.json_schema"),
        ("response_format", format(json!({"name": "x"})), "response_format.json_schema.schema"),
        ("response_format", format(json!({"name": 3, "schema": {}})), "response_format.json_schema.name"),
        ("response_format", format(json!({"schema": {}, "strict": 1})), "response_format.json_schema.strict"),
        (
            "response_format",
            format(json!({"name": "x", "strict": true, "schema": unheld})),
            "response_format.json_schema.schema",
        ),
        ("guided_json", json!(3), "guided_json"),
        ("guided_json", json!("{"), "guided_json"),
        ("guided_json", unheld, "guided_json"),
        ("guided_regex", json!("("), "guided_regex"),
        ("guided_choice", json!("yes"), "guided_choice"),
        ("guided_choice", json!(["yes", 1]), "guided_choice[1]"),
        ("guided_choice", json!([]), "guided_choice"),
        ("guided_grammar", json!("root ::= \"a\""), "guided_grammar"),
        ("structured_outputs", json!([]), "structured_outputs"),
        ("structured_outputs", json!({"structural_tag": "x"}), "structured_outputs.structural_tag"),
        ("structured_outputs", json!({"regex": 1}), "structured_outputs.regex"),
        ("structured_outputs", json!({"regex": "a", "choice": ["a"]}), "structured_outputs.choice"),
        ("json_schema", json!([]), "json_schema"),
        ("grammar", json!("root ::= \"a\""), "grammar"),
        ("modalities", json!(["text", "audio"]), "modalities"),
        ("audio", json!({"voice": "x"}), "audio"),
        ("best_of", json!(2), "best_of"),
        ("use_beam_search", json!(true), "use_beam_search"),
        ("length_penalty", json!(0.5), "length_penalty"),
        ("bad_words", json!(["x"]), "bad_words"),
        ("presence_penalty", json!(2.5), "presence_penalty"),
        ("frequency_penalty", json!("x"), "frequency_penalty"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
        ("logit_bias", json!([1]), "logit_bias"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"3": 101}), "logit_bias.3"),
        ("logit_bias", json!({"100000": 1}), "logit_bias"),
        ("min_tokens", json!(-1), "min_tokens"),
        ("ignore_eos", json!(1), "ignore_eos"),
        ("parallel_tool_calls", json!("no"), "parallel_tool_calls"),
        ("tools", json!([{"type": "custom", "custom": {"name": "x"}}]), "tools[0].type"),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "x", "strict": 1}}]),
            "tools[0].function.strict",
        ),
        ("functions", json!([{"description": "x"}]), "functions[0].name"),
        ("function_call", json!(3), "function_call"),
        ("tool_choice", json!({"type": "custom", "custom": {"name": "x"}}), "tool_choice.type"),
        ("tool_choice", json!({"type": "allowed_tools", "mode": "auto"}), "tool_choice.tools"),
        ("tool_choice", json!({"type": "allowed_tools", "tools": []}), "tool_choice.mode"),
    ] {
        let (found, message) = refusal(&house, &with(ask("hi"), name, value.clone())).await;
        assert_eq!(found, param, "{name} = {value}: {message}");
        assert!(!message.is_empty());
    }
    let strict_tool = json!({"type": "function", "function": {"name": "x", "strict": true,
        "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}});
    let body = with(ask("hi"), "tools", json!([exec_tool()[0], strict_tool]));
    let (param, message) = refusal(&house, &body).await;
    assert_eq!(param, "tools[1].function.parameters");
    assert!(message.contains("'not'"), "{message}");
    let body = with(with(ask("hi"), "tools", json!([exec_tool()[0]])), "guided_choice", json!(["a"]));
    assert_eq!(refusal(&house, &body).await.0, "guided_choice");
    assert!(house.turns().is_empty());
}

#[tokio::test]
async fn an_answer_is_held_to_what_its_request_says() {
    let house = House::new().await;
    let strict = json!({"type": "function", "function": {"name": "go", "strict": true, "parameters": object_schema()}});
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "exec"}}]}});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": object_schema()}});
    for (fields, is_held) in [
        (json!({}), false),
        (json!({"response_format": {"type": "text"}, "modalities": ["text"], "best_of": 1}), false),
        (json!({"response_format": {"type": "json_object"}}), true),
        (json!({"response_format": schema}), true),
        (json!({"json_schema": object_schema()}), true),
        (json!({"guided_json": object_schema().to_string()}), true),
        (json!({"guided_regex": "[a-z]+"}), true),
        (json!({"guided_choice": ["yes", "no"]}), true),
        (json!({"guided_grammar": "start: \"yes\" | \"no\""}), true),
        (json!({"structured_outputs": {"choice": ["yes", "no"], "disable_any_whitespace": false}}), true),
        (json!({"structured_outputs": {"json_object": true}}), true),
        (json!({"tools": [exec_tool()[0]]}), false),
        (json!({"tools": [exec_tool()[0]], "tool_choice": "none"}), false),
        (json!({"tools": [exec_tool()[0]], "tool_choice": "required"}), true),
        (
            json!({"tools": [exec_tool()[0]], "tool_choice": {"type": "function", "function": {"name": "exec"}}}),
            true,
        ),
        (json!({"tools": [exec_tool()[0]], "parallel_tool_calls": true}), false),
        (json!({"tools": [exec_tool()[0]], "parallel_tool_calls": false}), true),
        (json!({"tools": [exec_tool()[0], strict]}), true),
        (json!({"tools": [exec_tool()[0], strict], "tool_choice": allowed}), true),
        (json!({"tools": [exec_tool()[0]], "response_format": schema}), true),
        (
            json!({"functions": [{"name": "go", "parameters": object_schema()}], "function_call": {"name": "go"}}),
            true,
        ),
        (json!({"functions": [{"name": "go"}], "function_call": "auto"}), false),
    ] {
        let mut body = ask("hi");
        for (name, value) in fields.as_object().expect("an object literal") {
            body = with(body, name, value.clone());
        }
        house.chat(&body).await;
        assert_eq!(house.script.last_asked().constraint.is_some(), is_held, "{fields}");
    }
    let prompt = house.tokenizer.decode(&house.script.last_asked().prompt_ids, false);
    assert!(prompt.contains("<tools>\n{\"name\": \"go\"}"), "functions are shown as tools: {prompt}");
}

#[tokio::test]
async fn penalties_and_biases_reach_the_engine() {
    let house = House::new().await;
    let mut body = ask("hi");
    for (name, value) in [
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-1)),
        ("repetition_penalty", json!(1.25)),
        ("logit_bias", json!({"7": -100, "65": 2.5})),
        ("min_tokens", json!(3)),
        ("ignore_eos", json!(true)),
    ] {
        body = with(body, name, value);
    }
    house.chat(&body).await;
    let asked = house.script.last_asked().sampling;
    let SamplingParams { presence_penalty, frequency_penalty, repetition_penalty, .. } = asked;
    assert_eq!((presence_penalty, frequency_penalty, repetition_penalty), (0.5, -1.0, 1.25));
    assert_eq!(
        (&*asked.logit_bias, asked.min_tokens, asked.ignore_eos),
        (&[(7, -100.0), (65, 2.5)][..], 3, true)
    );
    house.chat(&ask("hi again")).await;
    let default = SamplingParams::default();
    let asked = house.script.last_asked().sampling;
    assert_eq!(
        asked,
        SamplingParams { temperature: asked.temperature, top_p: asked.top_p, top_k: asked.top_k, ..default }
    );
}
