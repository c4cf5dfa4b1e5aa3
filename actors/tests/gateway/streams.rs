//! Streams: token by token, in the order that clients need, and ended cleanly whoever leaves first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use openclaw_actors::gateway::{GatewayConfig, Recorder};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::house::{House, Line, any_weights, ask, exec_tool, with};

fn streamed(body: Value) -> Value {
    with(body, "stream", json!(true))
}

#[tokio::test]
async fn a_stream_is_role_deltas_finish_usage_done() {
    let house = House::new().await;
    house.script.then(Line::Say("<think>\nhm\n</think>\n\nhi you"));
    let body = with(streamed(ask("hi")), "stream_options", json!({"include_usage": true}));
    let events = house.stream(&body).await;
    assert_eq!((events.content_type.as_str(), events.policy_version.as_str()), ("text/event-stream", "7"));
    let events = events.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|data| serde_json::from_str(data).expect("JSON")).collect();
    let id = house.turns()[0].id.to_string();
    for chunk in &chunks {
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &json!(id)));
        assert_eq!(chunk["policy_version"], 7);
        assert!(chunk["session_id"].is_string() && chunk["created"].is_u64() && chunk["model"] == "policy");
    }
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let told = |field: &str| -> String {
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str()).collect()
    };
    assert_eq!((told("reasoning_content").as_str(), told("content").as_str()), ("hm", "hi you"));
    let [.., finish, usage] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(
        (&finish["choices"][0]["finish_reason"], &finish["choices"][0]["delta"]),
        (&json!("stop"), &json!({}))
    );
    assert_eq!((&usage["choices"], &finish["usage"]), (&json!([]), &Value::Null));
    assert_eq!(usage["usage"]["completion_tokens"], house.turns()[0].completion.response_ids.len());
}

#[tokio::test]
async fn tokens_arrive_while_the_policy_still_speaks() {
    let house = House::new().await;
    house.script.then(Line::Hold("first"));
    let mut events = house.stream(&streamed(ask("hi"))).await;
    let mut text = String::new();
    while text != "first" {
        let chunk = events.next_json().await;
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(house.turns().len(), 0);
    house.script.release();
    assert_eq!(events.rest().await.last().map(String::as_str), Some("[DONE]"));
}

#[tokio::test]
async fn tool_calls_stream_with_index_id_type_name_and_string_arguments() {
    let house = House::new().await;
    house.script.then(Line::Say(
        "<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"exec\", \"arguments\": {}}\n</tool_call>",
    ));
    let body = streamed(with(ask("go"), "tools", exec_tool()));
    let events = house.stream(&body).await.rest().await;
    let mut calls: Vec<(Value, String)> = Vec::new();
    let mut finish = Value::Null;
    for chunk in events.iter().filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(chunk).expect("JSON");
        finish = chunk["choices"][0]["finish_reason"].clone();
        for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().expect("an index") as usize;
            if index == calls.len() {
                assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("exec")));
                calls.push((call["id"].clone(), String::new()));
            }
            calls[index].1.push_str(call["function"]["arguments"].as_str().expect("arguments are a string"));
        }
    }
    assert_eq!(finish, "tool_calls");
    let arguments: Vec<Value> =
        calls.iter().map(|(_, text)| serde_json::from_str(text).expect("JSON")).collect();
    assert_eq!(arguments, [json!({"a": 1}), json!({})]);
    assert_ne!(calls[0].0, calls[1].0);
}

#[tokio::test]
async fn every_token_has_its_logprob_in_some_chunk() {
    let house = House::new().await;
    house.script.then(Line::Say("<think>\nhm\n</think>\n\nhello"));
    let body = streamed(with(ask("hi"), "logprobs", json!(true)));
    let events = house.stream(&body).await.rest().await;
    let entries: usize = events
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().map(Vec::len))
        .sum();
    assert_eq!(entries, house.turns()[0].completion.response_ids.len());
}

#[tokio::test]
async fn the_end_of_a_reply_waits_for_its_record() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder: Recorder = Arc::new({
        let gate = gate.clone();
        move |_, _| {
            let gate = gate.clone();
            async move {
                let _open = gate.acquire().await.map_err(|error| error.to_string())?;
                Ok(())
            }
            .boxed()
        }
    });
    let house = House::with(GatewayConfig::default(), Some(recorder)).await;
    house.script.then(Line::Say("yes"));
    let mut events = house.stream(&streamed(ask("hi"))).await;
    let mut text = String::new();
    while text != "yes" {
        text.push_str(events.next_json().await["choices"][0]["delta"]["content"].as_str().expect("content"));
    }
    while house.turns().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(events.next().now_or_never().is_none(), "the finish chunk overtook the record");
    gate.add_permits(1);
    assert_eq!(events.next_json().await["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_journal_that_does_not_answer_holds_no_reply_and_gets_the_turn_when_it_is_back() {
    let gate = Arc::new(Semaphore::new(0));
    let tries = Arc::new(AtomicUsize::new(0));
    let recorder: Recorder = Arc::new({
        let (gate, tries) = (gate.clone(), tries.clone());
        move |_, _| {
            let (gate, first) = (gate.clone(), tries.fetch_add(1, Ordering::SeqCst) == 0);
            async move {
                let _open = gate.acquire().await.map_err(|error| error.to_string())?;
                // Back, it fails once more.
                if first { Err("disk full".to_owned()) } else { Ok(()) }
            }
            .boxed()
        }
    });
    let config = GatewayConfig { journal_wait_secs: 0, ..GatewayConfig::default() };
    let house = House::with(config, Some(recorder)).await;
    house.script.then(Line::Say("yes"));
    let events = house.stream(&streamed(ask("hi"))).await.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let mut totals = house.journal.totals();
    assert_eq!(totals.borrow().turns, 0);
    gate.add_permits(1);
    totals.wait_for(|totals| totals.turns == 1).await.expect("the journal lives");
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_and_its_turn_is_not_recorded() {
    let house = House::new().await;
    house.script.then(Line::Hold("on and on"));
    let mut events = house.stream(&streamed(ask("hi"))).await;
    events.next().await.expect("it has begun");
    drop(events);
    while house.script.cancelled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    house.script.then(Line::Hold("on and on"));
    let plain = house.client.post(house.url("/v1/chat/completions")).json(&ask("hi"));
    let plain = tokio::spawn(plain.send());
    while house.engine.status().sequences == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    plain.abort();
    while house.script.cancelled.load(Ordering::SeqCst) == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while house.gateway.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.turns().len(), 0);
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_and_is_not_recorded() {
    let house = House::new().await;
    // It breaks again whenever it is taken up.
    for said in ["half", "", ""] {
        house.script.then(Line::Break(said));
    }
    let events = house.stream(&streamed(ask("hi"))).await.rest().await;
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    assert_eq!(last["error"]["type"], "server_error");
    assert_eq!(house.turns().len(), 0);
}

#[tokio::test]
async fn a_response_belongs_to_one_version_while_another_is_published() {
    let house = House::new().await;
    house.script.then(Line::Hold("old"));
    let mut old = house.stream(&streamed(ask("hi"))).await;
    old.next().await.expect("it has begun");
    house.engine.load(8, any_weights()).await.expect("published");
    let new = house.chat(&ask("hi")).await;
    assert_eq!(new["policy_version"], 8);
    house.script.release();
    let rest = old.rest().await;
    assert!(rest.iter().filter(|data| *data != "[DONE]").all(|data| data.contains("\"policy_version\":7")));
    let versions: Vec<u64> = house.turns().iter().map(|turn| turn.completion.policy_version).collect();
    assert_eq!(versions, [8, 7]);
}

#[tokio::test]
async fn a_stop_lets_streams_end() {
    let house = House::new().await;
    house.script.then(Line::Hold("wait"));
    let mut events = house.stream(&streamed(ask("hi"))).await;
    events.next().await.expect("it has begun");
    let (url, client) = (house.url("/health"), house.client.clone());
    let stopped = tokio::spawn(house.gateway.stop(Duration::from_secs(60)));
    while client.get(&url).send().await.is_ok() {}
    house.script.release();
    assert_eq!(events.rest().await.last().map(String::as_str), Some("[DONE]"));
    assert!(stopped.await.expect("no panic"), "nothing had to be cut");
}

#[tokio::test]
async fn a_stop_past_its_deadline_cuts_and_says_so() {
    let house = House::new().await;
    house.script.then(Line::Hold("for ever"));
    let mut events = house.stream(&streamed(ask("hi"))).await;
    events.next().await.expect("it has begun");
    let stopped = tokio::spawn(house.gateway.stop(Duration::ZERO));
    let rest = events.rest().await;
    assert!(rest.last().is_some_and(|last| last.contains("the server is stopping")), "{rest:?}");
    assert!(!stopped.await.expect("no panic"));
}
