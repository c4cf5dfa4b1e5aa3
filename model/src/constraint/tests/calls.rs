use super::*;

fn calls_in(text: &str, names: &[&str]) -> (String, Vec<(String, Value)>) {
    let tools: Vec<Value> = names.iter().map(|name| json!({"function": {"name": name}})).collect();
    let mut parser = OutputParser::new(ParserConfig::new(&tools, false));
    let mut deltas = parser.push(text);
    deltas.extend(parser.finish());
    let (mut content, mut calls) = (String::new(), Vec::new());
    for delta in deltas {
        match delta {
            OutputDelta::Content(text) => content.push_str(&text),
            OutputDelta::ToolCallStart { name, .. } => calls.push((name, Value::Null)),
            OutputDelta::ToolCallArguments { arguments, .. } => {
                calls.last_mut().expect("begun").1 = serde_json::from_str(&arguments).expect("JSON");
            }
            OutputDelta::Reasoning(_) => {}
        }
    }
    (content, calls)
}

#[test]
fn calls_are_of_offered_tools_with_the_arguments_they_take() {
    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city"], "additionalProperties": false});
    let tool = |name: &str, parameters: Option<Value>| CallableTool {
        name: name.to_owned(),
        parameters,
        strict: true,
    };
    let tools = vec![
        tool("get \"weather\"", Some(parameters.clone())),
        tool("noop", Some(json!({"properties": {}}))),
    ];
    let names = ["get \"weather\"", "noop"];
    for words in [Words::embedded(), Words::bytes()] {
        let open = words.tokenizer.special_id(TOOL_CALL);
        let mut called = 0;
        for (seed, (required, parallel)) in
            (0..80).zip([(true, true), (true, false), (false, true), (false, false)].into_iter().cycle())
        {
            let calls = ToolCalls { tools: tools.clone(), required, parallel, answer: None };
            let constraint = words.grammars.tool_calls(&calls).expect("tools");
            let request = words.request(&constraint, seed);
            let prefer = |logits: &mut [f32]| {
                open.into_iter().for_each(|id| logits[id as usize] += 6.0);
                words
                    .end_ids
                    .iter()
                    .for_each(|&id| logits[id as usize] -= if open.is_some() { 2.0 } else { 0.0 });
            };
            let drawn = words.draw_by(&request, seed, prefer).expect("the constraint holds");
            if drawn.reason != FinishReason::Stop {
                continue;
            }
            let (content, calls) = calls_in(&drawn.text, &names);
            assert!(!content.contains(TOOL_CALL), "{}", drawn.text);
            assert!(!required || content.trim().is_empty() && !calls.is_empty(), "{}", drawn.text);
            assert!(parallel || calls.len() <= 1, "{}", drawn.text);
            for (name, arguments) in &calls {
                if name == names[0] {
                    assert_valid(&parameters, &arguments.to_string());
                }
            }
            called += calls.len();
        }
        assert!(called > 30, "{called} calls");
    }
}

#[test]
fn listed_properties_are_all_there_are_and_a_call_is_one_line() {
    let words = Words::embedded();
    let listed = json!({"type": "object", "properties": {"a": {"enum": [1]}, "b": {"type": "array", "maxItems": 2,
        "items": {"properties": {"c": {"type": "boolean"}}, "type": "object"}}}});
    let combined = json!({"allOf": [{"type": "object", "properties": {"a": {"enum": [1]}}},
        {"type": "object", "properties": {"b": {"enum": [2]}}, "required": ["b"]}], "required": ["a"]});
    let open = json!({"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"],
        "additionalProperties": {"enum": [3]}});
    let mut others = 0;
    for seed in 0..40 {
        let draw = |schema: &Value| {
            let constraint = words.grammars.json_schema(schema, false).expect("a schema");
            words.draw(&words.request(&constraint, seed), seed).expect("the constraint holds")
        };
        let drawn = draw(&listed);
        if drawn.reason == FinishReason::Stop {
            let said: Value = serde_json::from_str(&drawn.text).expect("JSON");
            let keys = said.as_object().expect("an object").keys();
            assert!(keys.into_iter().all(|key| ["a", "b"].contains(&key.as_str())), "{}", drawn.text);
            let items = said["b"].as_array().into_iter().flatten();
            let mut keys = items.filter_map(Value::as_object).flat_map(|item| item.keys());
            assert!(keys.all(|key| key == "c"), "{}", drawn.text);
        }
        for schema in [&combined, &open] {
            let drawn = draw(schema);
            if drawn.reason == FinishReason::Stop {
                assert_valid(schema, &drawn.text);
                let said: Value = serde_json::from_str(&drawn.text).expect("JSON");
                others += usize::from(said.as_object().expect("an object").len() > 1);
            }
        }
    }
    assert!(others > 5, "{others} with more than one property");
    let tool = CallableTool { name: "add".to_owned(), parameters: Some(listed), strict: false };
    let calls = ToolCalls { tools: vec![tool], required: true, parallel: false, answer: None };
    let constraint = words.grammars.tool_calls(&calls).expect("tools");
    for seed in 0..20 {
        let drawn = words.draw(&words.request(&constraint, seed), seed).expect("the constraint holds");
        assert_eq!(drawn.reason, FinishReason::Stop, "{}", drawn.text);
        assert_eq!(drawn.text.trim().lines().count(), 3, "{}", drawn.text);
    }
}

#[test]
fn beside_calls_an_answer_is_what_it_must_be() {
    let schema = json!({"enum": [{"temperature": 7}]});
    let tool =
        CallableTool { name: "go".to_owned(), parameters: Some(json!({"enum": [{"x": 1}]})), strict: true };
    let answer = Some(JsonAnswer { schema: schema.clone(), strict: true });
    let calls = ToolCalls { tools: vec![tool], required: false, parallel: true, answer };
    for words in [Words::embedded(), Words::bytes()] {
        let constraint = words.grammars.tool_calls(&calls).expect("a tool");
        let (mut answers, mut called) = (0, 0);
        for seed in 0..30 {
            let drawn = words.draw(&words.request(&constraint, seed), seed).expect("the constraint holds");
            if drawn.reason == FinishReason::Stop {
                let (content, calls) = calls_in(&drawn.text, &["go"]);
                calls.iter().for_each(|(_, arguments)| assert_eq!(arguments, &json!({"x": 1})));
                if calls.is_empty() {
                    assert_valid(&schema, &content);
                    answers += 1;
                }
                called += calls.len();
            }
        }
        assert!(answers > 0 && called > 0, "{answers} answers, {called} calls");
    }
}

#[test]
fn text_that_spells_a_call_is_a_call() {
    let words = Words::bytes();
    let tool = CallableTool { name: "go".to_owned(), parameters: None, strict: true };
    let calls = ToolCalls { tools: vec![tool], required: false, parallel: true, answer: None };
    let constraint = words.grammars.tool_calls(&calls).expect("a tool");
    let said =
        "I go. <tool_cal <tool_call>\n{\"name\": \"go\", \"arguments\": {\"a\": 1}}\n</tool_call> and more";
    let follow = |text: &str| -> Option<usize> {
        let mut matching = Matching::new(&constraint, &words.tokenizer.encode("</think>").expect("text"));
        for (at, id) in words.tokenizer.encode_letters(text).expect("text").into_iter().enumerate() {
            let allowed = matching.allowed(&[], &words.end_ids, false).expect("held");
            if !allowed.only.expect("a mask").is_allowed(id) {
                return Some(at);
            }
            matching.take(id).expect("allowed");
        }
        let allowed = matching.allowed(&[], &words.end_ids, false).expect("held");
        (!allowed.only.expect("a mask").is_allowed(words.end_ids[0])).then_some(text.len())
    };
    assert_eq!(follow(said), None);
    assert_eq!(follow("only text"), None);
    let other = "<tool_call>\n{\"name\": \"stop\"";
    assert_eq!(follow(other), Some(other.find("stop").expect("a name")));
    let open = "<tool_call>\n{\"name\": \"go\", \"arguments\": {}";
    assert_eq!(follow(open), Some(open.len()), "no end within a call");
}
