//! The other formats: each is answered in its own shape, and what is said in one is learnt from as in any.

use futures::FutureExt;
use openclaw_actors::gateway::{ApiKey, GatewayConfig};
use openclaw_journal::{NextStateKind, TurnKind};
use serde_json::{Value, json};

use crate::house::{House, Line, ask, assistant, exec_tool, user, with};

const CALL: &str =
    "<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"n\": 12345678901234567890123}}\n</tool_call>";

async fn sent(house: &House, path: &str, body: &Value) -> Value {
    let response = house.post(path, body).await;
    let status = response.status();
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(status, 200, "{body}");
    body
}

/// Names and bodies of a stream's events.
async fn events(house: &House, path: &str, body: Value) -> Vec<(String, Value)> {
    let response = house.post(path, &with(body, "stream", json!(true))).await;
    assert_eq!(response.status(), 200);
    let text = response.text().await.expect("a whole stream");
    let events = text.split("\n\n").filter(|event| !event.is_empty()).map(|event| {
        let (name, data) = event.split_once("\ndata: ").unwrap_or_else(|| panic!("{event:?}"));
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["type"], name, "{data}");
        (name.to_owned(), data)
    });
    events.collect()
}

fn responses_tool() -> Value {
    json!([{"type": "function", "name": "exec", "parameters": {"type": "object"}, "strict": false},
        {"type": "web_search"}])
}

fn messages_tool() -> Value {
    json!([{"name": "exec", "input_schema": {"type": "object"}}])
}

#[tokio::test]
async fn a_response_holds_thought_words_and_calls_as_items() {
    let house = House::new().await;
    house.script.then(Line::Say("<think>\nhm\n</think>\n\nI look."));
    let body = json!({"model": "policy", "instructions": "be brief", "input": "hi", "max_output_tokens": 50,
        "metadata": {"a": "b"}});
    let response = sent(&house, "/v1/responses", &body).await;
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert_eq!((&response["instructions"], &response["metadata"]), (&json!("be brief"), &json!({"a": "b"})));
    let output = response["output"].as_array().expect("a list");
    assert_eq!((&output[0]["type"], &output[0]["content"][0]["text"]), (&json!("reasoning"), &json!("hm")));
    assert_eq!((&output[1]["type"], &output[1]["role"]), (&json!("message"), &json!("assistant")));
    let text = json!({"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []});
    assert_eq!(output[1]["content"], json!([text]));
    let usage = &response["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["input_tokens"]
            .as_u64()
            .and_then(|input| { Some(input + usage["output_tokens"].as_u64()?) })
            .expect("numbers")
    );
    let turn = house.turns().remove(0);
    assert_eq!(json!(turn.id.0), response["id"]);
    assert_eq!(turn.messages[0], json!({"role": "system", "content": "be brief"}));

    let stored =
        house.client.get(house.url(&format!("/v1/responses/{}", turn.id))).send().await.expect("sent");
    let stored: Value = stored.json().await.expect("JSON");
    assert_eq!((&stored["output"], &stored["status"]), (&response["output"], &json!("completed")));
    let gone = house.client.get(house.url("/v1/responses/resp_0")).send().await.expect("sent");
    assert_eq!(gone.status(), 404);

    house.script.then(Line::Say("cut off here"));
    let cut = sent(&house, "/responses", &with(body, "max_output_tokens", json!(3))).await;
    assert_eq!((&cut["status"], &cut["output"][0]["status"]), (&json!("incomplete"), &json!("incomplete")));
    assert_eq!(cut["incomplete_details"], json!({"reason": "max_output_tokens"}));
}

#[tokio::test]
async fn a_response_streams_every_item_from_its_first_event_to_its_last() {
    let house = House::new().await;
    house.script.then(Line::Say(
        "<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"n\": 1}}\n</tool_call>",
    ));
    let body = json!({"input": [{"role": "user", "content": "hi"}], "tools": responses_tool()});
    let events = events(&house, "/v1/responses", body).await;
    let mut names =
        Vec::from_iter(events.iter().map(|(name, _)| name.strip_prefix("response.").expect("its kind")));
    names.dedup();
    assert_eq!(
        names,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
    for (number, (_, event)) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let done = events.iter().filter(|(name, _)| name == "response.output_item.done");
    let done: Vec<Value> = done.map(|(_, event)| event["item"].clone()).collect();
    let completed = &events.last().expect("an end").1["response"];
    assert_eq!(completed["output"], json!(done), "what was told is what there is");
    assert_eq!((&done[2]["name"], &done[2]["arguments"]), (&json!("exec"), &json!("{\"n\": 1}")));
    let told = |kind: &str| -> String {
        let kind = format!("response.{kind}.delta");
        events
            .iter()
            .filter(|(name, _)| *name == kind)
            .filter_map(|(_, event)| event["delta"].as_str())
            .collect()
    };
    assert_eq!((told("reasoning_text"), told("output_text")), ("hm".into(), "I look.".into()));
}

#[tokio::test]
async fn a_response_goes_on_from_the_one_it_names() {
    let mut house = House::new().await;
    house.script.then(Line::Say(CALL));
    let first = json!({"instructions": "be brief", "input": "what is here?", "tools": responses_tool()});
    let first = sent(&house, "/v1/responses", &first).await;
    let call = first["output"][0].clone();
    assert_eq!(call["arguments"], "{\"n\": 12345678901234567890123}");
    let output =
        json!([{"type": "function_call_output", "call_id": call["call_id"], "output": "Error: no net"}]);
    let second = json!({"input": output, "previous_response_id": first["id"], "tools": responses_tool()});
    let second = sent(&house, "/v1/responses", &second).await;
    assert_eq!(second["session_id"], first["session_id"]);
    let evaluate = house.evaluation().await;
    assert_eq!(
        (json!(evaluate.turn.id.0), evaluate.next_state.kind),
        (first["id"].clone(), NextStateKind::Tool)
    );
    assert!(evaluate.next_state.is_error);
    let messages = house.turns()[1].messages.clone();
    let roles =
        Vec::from_iter(messages.iter().map(|message| message["role"].as_str().expect("a role").to_owned()));
    assert_eq!(roles, ["user", "assistant", "tool"], "instructions are said anew or not at all");

    // As the AI SDK does: what the server has said is named, and not said again.
    let reference = json!({"type": "item_reference", "id": call["id"]});
    let input = json!([user("what is here?"), reference, output[0]]);
    let named = sent(&house, "/v1/responses", &json!({"input": input, "tools": responses_tool()})).await;
    assert_eq!(named["session_id"], first["session_id"]);
    let told = house.turns()[2].messages[1]["tool_calls"][0]["function"]["name"].clone();
    assert_eq!((house.turns()[2].messages.len(), told), (3, json!("exec")));
    for id in ["msg_1", "fc_00000000000000000000000000000000ff", "x"] {
        let body = json!({"input": [{"type": "item_reference", "id": id}]});
        assert_eq!(house.post("/v1/responses", &body).await.status(), 404, "{id}");
    }

    let unstored = json!({"input": "hi", "store": false});
    let unstored = sent(&house, "/v1/responses", &unstored).await;
    for id in [json!("resp_nobody"), unstored["id"].clone()] {
        let body = json!({"input": "more", "previous_response_id": id});
        let response = house.post("/v1/responses", &body).await;
        assert_eq!(response.status(), 404, "{id}");
    }
}

#[tokio::test]
async fn a_conversation_that_is_named_goes_on_from_its_last_turn() {
    let mut house = House::new().await;
    let asked = |text: &str| json!({"input": text, "conversation": {"id": "conv_7"}});
    sent(&house, "/v1/responses", &asked("hi")).await;
    let second = sent(&house, "/v1/responses", &asked("too short")).await;
    assert_eq!(second["session_id"], "conv_7");
    let evaluate = house.evaluation().await;
    assert_eq!((evaluate.next_state.text.as_str(), evaluate.turn.index), ("too short", 1));
    let expected = [user("hi"), assistant("fine"), user("too short")];
    assert_eq!(house.turns()[1].messages[..], expected);
}

#[tokio::test]
async fn a_message_holds_thought_words_and_calls_as_blocks() {
    let house = House::new().await;
    house.script.then(Line::Say("<think>\nhm\n</think>\n\nI look."));
    let body = json!({"model": "policy", "max_tokens": 50, "system": [{"type": "text", "text": "be brief"}],
        "messages": [{"role": "user", "content": "hi"}]});
    let message = sent(&house, "/v1/messages", &body).await;
    let content =
        json!([{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "I look."}]);
    assert_eq!((&message["type"], &message["content"]), (&json!("message"), &content));
    assert_eq!((&message["stop_reason"], &message["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    let usage = &message["usage"];
    let prompt = house.script.last_asked().prompt_ids.len();
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&json!(prompt - 3), &json!(3)));

    house.script.then(Line::Say(CALL));
    let called = with(with(body.clone(), "tools", messages_tool()), "max_tokens", json!(200));
    let response = house.post("/v1/messages", &called).await.text().await.expect("a body");
    assert!(response.contains("\"input\":{\"n\":12345678901234567890123}"), "as written: {response}");
    assert!(response.contains("\"stop_reason\":\"tool_use\""), "{response}");
    house.script.then(Line::Say("too long"));
    let cut = sent(&house, "/v1/messages", &with(body.clone(), "max_tokens", json!(3))).await;
    assert_eq!(cut["stop_reason"], "max_tokens");
    let count = house.post("/v1/messages/count_tokens", &body).await.json::<Value>().await.expect("JSON");
    assert_eq!(count, json!({"input_tokens": prompt}));
    assert_eq!(house.turns().len(), 3, "counting is no turn");
}

#[tokio::test]
async fn a_message_streams_its_blocks_in_order() {
    let house = House::new().await;
    house.script.then(Line::Say(
        "<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"n\": 1}}\n</tool_call>",
    ));
    let body =
        json!({"max_tokens": 200, "messages": [{"role": "user", "content": "hi"}], "tools": messages_tool()});
    let events = events(&house, "/v1/messages", body).await;
    let kinds = events.iter().map(|(name, event)| match name.as_str() {
        "content_block_start" => {
            format!("start {}", event["content_block"]["type"].as_str().expect("a type"))
        }
        "content_block_delta" => event["delta"]["type"].as_str().expect("a type").to_owned(),
        other => other.to_owned(),
    });
    let mut kinds = Vec::from_iter(kinds);
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "message_start",
            "ping",
            "start thinking",
            "thinking_delta",
            "content_block_stop",
            "start text",
            "text_delta",
            "content_block_stop",
            "start tool_use",
            "input_json_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let starts = events.iter().filter(|(name, _)| name == "content_block_start");
    let indices: Vec<_> = starts.map(|(_, event)| event["index"].as_u64().expect("a number")).collect();
    assert_eq!(indices, [0, 1, 2]);
    let (_, delta) = &events[events.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert_eq!(delta["usage"]["output_tokens"], house.turns()[0].completion.response_ids.len());
}

#[tokio::test]
async fn a_failed_tool_is_seen_and_a_stop_sequence_named_in_messages() {
    let mut house = House::new().await;
    house.script.then(Line::Say(CALL));
    let mut messages = vec![json!({"role": "user", "content": "look"})];
    let body = |messages: &[Value]| {
        json!({"max_tokens": 200, "messages": messages, "tools": messages_tool(),
        "metadata": {"user_id": "user_1_account__session_abc"}})
    };
    let first = sent(&house, "/v1/messages", &body(&messages)).await;
    assert_eq!(first["session_id"], "abc");
    messages.push(json!({"role": "assistant", "content": first["content"]}));
    messages.push(
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": first["content"][0]["id"],
        "is_error": true, "content": "nothing of the sort"}]}),
    );
    let second = with(body(&messages), "stop_sequences", json!(["zzz", "in"]));
    house.script.then(Line::Say("fine"));
    sent(&house, "/v1/messages", &second).await;
    let evaluate = house.evaluation().await;
    assert_eq!((evaluate.next_state.kind, evaluate.next_state.is_error), (NextStateKind::Tool, true));
}

#[tokio::test]
async fn errors_have_the_shape_of_their_format() {
    let config = GatewayConfig { api_key: ApiKey::new("secret"), ..GatewayConfig::default() };
    let house = House::with(config, None).await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let ask = async |path: &str, key: &str| {
        let request = house.client.post(house.url(path)).header("x-api-key", key).json(&body);
        let response = request.send().await.expect("the gateway answers");
        (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
    };
    let (status, error) = ask("/v1/messages", "wrong").await;
    assert_eq!((status, &error["type"]), (401, &json!("error")));
    assert_eq!(error["error"]["type"], "authentication_error");
    let (status, error) = ask("/v1/messages", "secret").await;
    assert_eq!((status, &error["error"]["type"]), (400, &json!("invalid_request_error")));
    assert!(
        error["error"]["message"].as_str().is_some_and(|message| message.contains("max_tokens")),
        "{error}"
    );
    let (status, error) = ask("/v1/responses", "secret").await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("input")));
    assert!(error.get("type").is_none());
}

#[tokio::test]
async fn a_text_or_ids_are_gone_on_from_and_never_trained_on() {
    let house = House::new().await;
    house.script.then(Line::Say("<think>not a mark</think> here"));
    let text = "<|im_start|>user\nhi";
    let body = json!({"prompt": text, "max_tokens": 60, "logprobs": 2, "return_token_ids": true});
    let answer = sent(&house, "/v1/completions", &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&answer["object"], &choice["text"]),
        (&json!("text_completion"), &json!("<think>not a mark</think> here"))
    );
    let prompt = house.tokenizer.encode(text).expect("it encodes");
    assert_eq!(
        (&house.script.last_asked().prompt_ids, &choice["prompt_token_ids"]),
        (&prompt, &json!(prompt))
    );
    let logprobs = &choice["logprobs"];
    let turn = house.turns().remove(0);
    assert_eq!((turn.kind, &choice["token_ids"]), (TurnKind::Side, &json!(turn.completion.response_ids)));
    let lengths = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    for name in lengths {
        assert_eq!(
            logprobs[name].as_array().map(Vec::len),
            Some(turn.completion.response_ids.len()),
            "{name}"
        );
    }
    let ids = sent(&house, "/v1/completions", &json!({"prompt": [prompt], "max_tokens": 9})).await;
    assert_eq!(
        (&ids["choices"][0]["text"], &house.script.last_asked().prompt_ids),
        (&json!("fine"), &prompt)
    );
    for (prompt, param) in [
        (json!([]), "prompt"),
        (json!(["a", "b"]), "prompt"),
        (json!({}), "prompt"),
        (json!([1, "a"]), "prompt[1]"),
        (json!([[1, -1]]), "prompt[0][1]"),
        (json!([1, 4_000_000_000_u32]), "prompt"),
        (Value::Null, "prompt"),
    ] {
        let response = house.post("/v1/completions", &json!({"prompt": prompt})).await;
        let error = response.json::<Value>().await.expect("JSON");
        assert_eq!(error["error"]["param"], param, "{prompt}");
    }
}

#[tokio::test]
async fn trainers_elsewhere_have_ids_in_and_ids_out() {
    let house = House::new().await;
    let prompt = house.tokenizer.encode("hello").expect("it encodes");
    let body = json!({"token_ids": prompt, "sampling_params": {"max_tokens": 30, "temperature": 0.5, "logprobs": 1}});
    let answer = sent(&house, "/inference/v1/generate", &body).await;
    let (turn, asked) = (house.turns().remove(0), house.script.last_asked());
    assert_eq!((asked.prompt_ids, asked.sampling.temperature), (prompt.clone(), 0.5));
    let choice = &answer["choices"][0];
    assert_eq!(choice["token_ids"], json!(turn.completion.response_ids));
    assert_eq!(
        choice["logprobs"]["content"].as_array().map(Vec::len),
        Some(turn.completion.response_ids.len())
    );

    let chat = with(with(ask("hi"), "return_token_ids", json!(true)), "stream", json!(true));
    let events = house.stream(&chat).await.rest().await;
    let chunks: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    let turn = house.turns().remove(1);
    let ids = chunks.iter().filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array()).flatten();
    assert_eq!(Value::from_iter(ids.cloned()), json!(turn.completion.response_ids));
    let told = chunks.iter().filter(|chunk| chunk["prompt_token_ids"] == json!(turn.completion.prompt_ids));
    assert_eq!(told.count(), 1);

    let counted = sent(&house, "/tokenize", &json!({"prompt": "hello"})).await;
    assert_eq!((&counted["tokens"], &counted["count"]), (&json!(prompt), &json!(prompt.len())));
    let counted = sent(&house, "/tokenize", &json!({"messages": [user("hi")]})).await;
    assert_eq!(counted["tokens"], json!(turn.completion.prompt_ids));
    let pieces = sent(&house, "/v1/tokenize", &json!({"content": "hello", "with_pieces": true})).await;
    assert_eq!(pieces["tokens"][0]["id"], prompt[0]);
    assert_eq!(sent(&house, "/detokenize", &json!({"tokens": prompt})).await["content"], "hello");
}

#[tokio::test]
async fn several_answers_are_turns_of_their_own_and_the_one_that_is_gone_on_from_is_judged() {
    let mut house = House::new().await;
    house.script.then(Line::Say("one"));
    house.script.then(Line::Say("two"));
    let answer = house.chat(&with(ask("hi"), "n", json!(2))).await;
    let choices = answer["choices"].as_array().expect("a list");
    let said = |i: usize| choices[i]["message"]["content"].as_str().expect("words").to_owned();
    assert_eq!((choices.len(), said(0), said(1)), (2, "one".into(), "two".into()));
    assert_eq!((&choices[0]["turn_id"], &choices[1]["index"]), (&answer["id"], &json!(1)));
    house.chat(&json!({"messages": [user("hi"), assistant("two"), user("shorter!")]})).await;
    let evaluate = house.evaluation().await;
    assert_eq!(json!(evaluate.turn.id.0), choices[1]["turn_id"]);
    house.script.then(Line::Say("three"));
    house.script.then(Line::Say("four"));
    let body = with(with(ask("and streamed?"), "n", json!(2)), "stream", json!(true));
    let events = house.stream(&body).await.rest().await;
    let chunks: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    for (index, words) in [(0, "three"), (1, "four")] {
        let own = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let told: String = own.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(told, words);
    }
    assert_eq!(events.iter().filter(|event| *event == "[DONE]").count(), 1);
}

#[tokio::test]
async fn a_conversation_may_change_its_format_and_goes_on() {
    let mut house = House::new().await;
    let first = house.chat(&ask("hi")).await;
    let body = json!({"max_tokens": 50, "messages": [user("hi"), assistant("fine"), user("in blocks")]});
    let second = sent(&house, "/v1/messages", &body).await;
    assert_eq!(second["session_id"], first["session_id"]);
    assert_eq!(house.evaluation().await.next_state.text, "in blocks");
    let input =
        json!([user("hi"), assistant("fine"), user("in blocks"), assistant("fine"), user("as items")]);
    let third = sent(&house, "/v1/responses", &json!({"input": input})).await;
    assert_eq!(third["session_id"], first["session_id"]);
    assert_eq!(house.evaluation().await.next_state.text, "as items");
    let tools = with(ask("x"), "tools", exec_tool());
    assert_eq!(house.post("/chat/completions", &tools).await.status(), 200, "without /v1");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_no_others() {
    let config =
        GatewayConfig { allow_origins: vec!["https://chat.example".to_owned()], ..GatewayConfig::default() };
    let house = House::with(config, None).await;
    for (origin, allowed) in [("https://chat.example", true), ("https://evil.example", false)] {
        let preflight = house
            .client
            .request(reqwest::Method::OPTIONS, house.url("/v1/chat/completions"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .send()
            .await
            .expect("sent");
        let headers = preflight.headers();
        assert_eq!(headers.get("access-control-allow-origin").is_some(), allowed, "{origin}");
        let asked =
            house.client.post(house.url("/v1/chat/completions")).header("origin", origin).json(&ask("hi"));
        let response = asked.send().await.expect("sent");
        assert_eq!(response.status(), if allowed { 200 } else { 403 }, "{origin}");
        assert_eq!(response.headers().get("access-control-allow-origin").is_some(), allowed);
    }
}

#[tokio::test]
async fn a_reply_that_the_client_began_goes_on_and_is_recognised_whole() {
    let mut house = House::new().await;
    let begun = json!({"messages": [user("hi"), assistant("Well, <|im_end|> ")]});
    house.script.then(Line::Say(" then"));
    let first = house.chat(&begun).await;
    assert_eq!(first["choices"][0]["message"]["content"], " then");
    let prompt = house.script.last_asked().prompt_ids;
    assert!(house.tokenizer.decode(&prompt, false).ends_with("<|im_start|>assistant\nWell, <|im_end|>"));
    let end = house.tokenizer.special_id("<|im_end|>").expect("a mark");
    assert_ne!(prompt.last(), Some(&end), "what a client wrote is no control token");
    assert!(!house.turns()[0].trainable, "its beginning is not the model's");
    let on = [user("hi"), assistant("Well, <|im_end|> then"), user("go on")];
    assert_eq!(house.chat(&json!({"messages": on})).await["session_id"], first["session_id"]);

    house.chat(&with(begun.clone(), "add_generation_prompt", json!(true))).await;
    let prompt = house.tokenizer.decode(&house.script.last_asked().prompt_ids, false);
    assert!(prompt.ends_with("<|im_start|>assistant\n"), "{prompt}");
    let both = with(with(begun, "add_generation_prompt", json!(true)), "continue_final_message", json!(true));
    for body in [both, with(ask("hi"), "continue_final_message", json!(true))] {
        let response = house.post("/v1/chat/completions", &body).await;
        assert_eq!(response.status(), 400);
        assert_eq!(response.json::<Value>().await.expect("JSON")["error"]["param"], "continue_final_message");
    }
    assert!(house.evaluation().now_or_never().is_none(), "nothing is judged");
}
