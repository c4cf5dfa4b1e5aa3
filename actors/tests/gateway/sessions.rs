//! From HTTP to the judge's door: sessions, turn kinds, next states and feedback of real requests.

use openclaw_journal::{NextStateKind, TurnKind};
use serde_json::{Value, json};

use crate::house::{House, Line, ask, assistant, exec_tool, user, with};

const CARRIER: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nActive exec sessions:\\nnone\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";
const RUNTIME: &str =
    "\n\nRuntime: agent=main | session=agent:main:g9 | sessionId=0b7e | host=h | model=policy";

/// A request as OpenClaw sends it: system prompt, Runtime line in the first user message, transient carrier at the end.
fn openclaw(messages: &[Value]) -> Value {
    let mut all = vec![json!({"role": "system", "content": "You are an agent."})];
    all.extend_from_slice(messages);
    all.push(json!({"role": "user", "content": [{"type": "text", "text": CARRIER}]}));
    json!({"model": "policy", "messages": all, "tools": exec_tool(), "tool_choice": "auto",
        "max_completion_tokens": 8192})
}

#[tokio::test]
async fn a_next_state_is_told_when_its_request_arrives_and_not_after_the_answer() {
    let mut house = House::new().await;
    let first = user(&format!("[Sun 2026-11-22 14:00 UTC] list{RUNTIME}"));
    house.script.then(Line::Say(
        "<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
    ));
    let answer = house.chat(&openclaw(std::slice::from_ref(&first))).await;
    assert_eq!(answer["session_id"], "0b7e");

    let mut replayed = answer["choices"][0]["message"].clone();
    replayed["role"] = json!("assistant");
    let result = json!({"role": "tool", "tool_call_id": replayed["tool_calls"][0]["id"], "content": "a.txt"});
    house.script.then(Line::Hold("one"));
    let body = with(openclaw(&[first, replayed, result]), "stream", json!(true));
    let mut events = house.stream(&body).await;
    let evaluate = house.evaluation().await;
    assert_eq!(house.turns().len(), 1, "the second answer has not ended");
    assert_eq!(evaluate.turn.id.to_string(), answer["id"].as_str().expect("an id"));
    assert_eq!((evaluate.next_state.kind, evaluate.next_state.text.as_str()), (NextStateKind::Tool, "a.txt"));
    events.next().await.expect("it has begun");
    house.script.release();
    events.rest().await;
    let turns = house.turns();
    assert_eq!(
        (turns[1].index, turns[1].kind, turns[1].session.to_string().as_str()),
        (2, TurnKind::Main, "0b7e")
    );
}

#[tokio::test]
async fn clients_without_ids_keep_their_session_by_their_history() {
    let mut house = House::new().await;
    house.script.then(Line::Say("hello there"));
    let first = house.chat(&ask("hi")).await;
    let next = json!({"messages": [user("hi"), assistant("hello there"), user("be brief")]});
    let second = house.chat(&next).await;
    assert_eq!(first["session_id"], second["session_id"]);
    assert_eq!(house.evaluation().await.next_state.text, "be brief");
    assert_ne!(house.chat(&ask("something else")).await["session_id"], first["session_id"]);
}

#[tokio::test]
async fn side_turns_are_answered_and_never_judged() {
    let house = House::new().await;
    let headers = |name: &'static str, value: &'static str| (name, value);
    for (body, header) in [
        (with(ask("q"), "model", json!("policy-side")), headers("x-session-id", "s")),
        (ask("q"), headers("x-turn-type", "side")),
        (with(ask("q"), "turn_type", json!("side")), headers("x-session-id", "s")),
        (ask("between us"), headers("x-no-train", "1")),
    ] {
        let request = house.client.post(house.url("/v1/chat/completions")).header(header.0, header.1);
        let request = request.header("x-session-id", "s").json(&body);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        let id = answer["id"].clone();
        let feedback: Value =
            house.post("/v1/feedback", &json!({"id": id, "rating": "up"})).await.json().await.expect("JSON");
        assert_eq!(feedback["status"], "not_trained", "{body}");
    }
    house.chat(&json!({"session_id": "s", "messages": [user("q"), assistant("fine"), user("ok")]})).await;
    assert_eq!(house.journal.backlog().borrow().to_judge, 0);
    let kinds: Vec<(TurnKind, bool)> = house.turns().iter().map(|turn| (turn.kind, turn.trainable)).collect();
    let side = (TurnKind::Side, true);
    assert_eq!(kinds, [side, side, side, (TurnKind::Main, false), (TurnKind::Main, true)]);
}

#[tokio::test]
async fn feedback_is_a_next_state_of_its_own() {
    let mut house = House::new().await;
    let answer = house.chat(&ask("hi")).await;
    let body = json!({"id": answer["id"], "rating": "down", "text": "too stiff"});
    let feedback: Value = house.post("/v1/feedback", &body).await.json().await.expect("JSON");
    assert_eq!((&feedback["applied"], &feedback["id"]), (&json!(true), &answer["id"]));
    let state = house.evaluation().await.next_state;
    assert_eq!(
        (state.kind, state.rating, state.text.as_str()),
        (NextStateKind::Feedback, Some(-1), "too stiff")
    );
    let status = async |body: Value| {
        let answer: Value = house.post("/v1/feedback", &body).await.json().await.expect("JSON");
        answer["status"].clone()
    };
    assert_eq!(status(body.clone()).await, "applied", "a client that did not hear of it says it again");
    assert_eq!(status(with(body, "text", json!("too long"))).await, "too_late");
    let totals = *house.journal.totals().borrow();
    assert_eq!((totals.next_states, totals.corrected), (1, 0));
}

#[tokio::test]
async fn a_session_that_is_done_starts_anew() {
    let house = House::new().await;
    let body = with(with(ask("bye"), "session_id", json!("s")), "session_done", json!(true));
    house.chat(&body).await;
    house.chat(&with(ask("hello again"), "session_id", json!("s"))).await;
    let indices: Vec<u32> = house.turns().iter().map(|turn| turn.index).collect();
    assert_eq!(indices, [1, 1]);
}

#[tokio::test]
async fn a_session_can_be_ended_behind_its_last_reply() {
    let mut house = House::new().await;
    let first = house.chat(&with(ask("hi"), "session_id", json!("s"))).await;
    let ended = house.post("/v1/sessions/end", &json!({"session_id": "s"})).await;
    let ended: Value = ended.json().await.expect("JSON");
    assert_eq!((&ended["session_id"], &ended["status"]), (&json!("s"), &json!("ended")));

    // The same words under the same name are a conversation of their own; feedback still finds the old one.
    let reply = first["choices"][0]["message"]["content"].as_str().expect("a reply");
    let again = json!({"session_id": "s", "messages": [user("hi"), assistant(reply), user("no")]});
    house.chat(&again).await;
    let indices: Vec<u32> = house.turns().iter().map(|turn| turn.index).collect();
    assert_eq!(indices, [1, 1]);
    house.post("/v1/feedback", &json!({"id": first["id"], "rating": "up"})).await;
    let evaluation = house.evaluation().await;
    assert_eq!(evaluation.next_state.kind, NextStateKind::Feedback);

    let by_header = house.client.post(house.url("/v1/sessions/end")).header("x-session-id", "unknown");
    assert_eq!(by_header.send().await.expect("an answer").status(), 200, "it has ended already");
    for body in [json!({}), json!({"session_id": " "}), json!([1])] {
        assert_eq!(house.post("/v1/sessions/end", &body).await.status(), 400, "{body}");
    }
}
