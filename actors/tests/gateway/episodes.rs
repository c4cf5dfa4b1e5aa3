use openclaw_journal::{EpisodeId, EpisodeState, Outcome, Sample, TurnState};
use serde_json::{Value, json};

use crate::house::*;

async fn told(house: &House, path: &str, body: Value) -> (u16, Value) {
    let response = house.post(path, &body).await;
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn begin(house: &House, body: Value) -> Value {
    let (status, answer) = told(house, "/v1/episodes/begin", body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn end(house: &House, body: Value) -> (u16, Value) {
    told(house, "/v1/episodes/end", body).await
}

/// What an optimizer would find, once so many samples are ready.
async fn samples(house: &House, count: u64) -> Vec<Sample> {
    let mut backlog = house.journal.backlog();
    backlog.wait_for(|backlog| backlog.ready == count).await.expect("the journal lives");
    let found = house.journal.samples(0, 100).await.expect("read");
    found.into_iter().map(|(_, sample)| sample).collect()
}

#[tokio::test]
async fn an_agent_outside_makes_episodes_of_its_sessions() {
    let house = House::new().await;
    let of = |session: &str| json!({"session_id": session, "task": "add", "group": "g", "group_size": 2, "seed": 7});
    let first = begin(&house, of("a")).await;
    assert_eq!((&first["session_id"], &first["status"]), (&json!("a"), &json!("open")));
    begin(&house, of("b")).await;
    // Two steps of one, the first of which a tool's result follows, and one of the other.
    let reply = house.chat(&with(ask("2 + 2?"), "session_id", json!("a"))).await;
    let reply = reply["choices"][0]["message"]["content"].as_str().expect("a reply").to_owned();
    let next = json!([user("2 + 2?"), assistant(&reply), user("Output: 4")]);
    house.chat(&json!({"session_id": "a", "messages": next})).await;
    house.chat(&with(ask("2 + 2?"), "session_id", json!("b"))).await;
    let (status, ended) =
        end(&house, json!({"id": first["id"], "reward": 1, "success": true, "numbers": {"tests": 3}})).await;
    assert_eq!((status, &ended["status"]), (200, &json!("ended")), "{ended}");
    let (status, _) = end(&house, json!({"session_id": "b", "reward": -0.5})).await;
    assert_eq!(status, 200);
    // The first step is still with the judge.
    assert_eq!(house.journal.backlog().borrow().to_judge, 1);
    assert_eq!(house.journal.backlog().borrow().held, 2);
    let turn = house.turns()[0].id.clone();
    let verdict =
        openclaw_journal::Verdict { reward: Some(1), votes: vec![Some(1), Some(-1), Some(1)], rule: None };
    let judged = openclaw_journal::Record::Judged {
        turn,
        undone: 0,
        verdict,
        answers: Vec::new(),
        hints: Vec::new(),
        hint_answers: Vec::new(),
        teach: false,
        wish: None,
    };
    house.journal.record(judged).await.expect("recorded");
    let samples = samples(&house, 3).await;
    let standing: Vec<_> = samples.iter().map(|sample| sample.standing.as_ref().expect("a step")).collect();
    let of =
        |at: usize| (&*standing[at].episode.session.0, standing[at].step, standing[at].own().expect("ended"));
    let (session, step, own) = of(1);
    assert_eq!((session, step, own.outcome.reward), ("a", 1, 1.0));
    assert_eq!(own.steps[&0].score, Some(1.0 / 3.0));
    assert_eq!(own.outcome.numbers["tests"], 3.0);
    assert_eq!((of(2).0, of(2).2.outcome.reward), ("b", -0.5));
    // Both were asked the same, and saw the same before they acted.
    assert_eq!(own.steps[&0].state, of(2).2.steps[&0].state);
    assert_ne!(own.steps[&0].state, own.steps[&1].state);
}

#[tokio::test]
async fn what_is_said_of_an_episode_twice_changes_nothing_and_what_differs_is_refused() {
    let house = House::new().await;
    let body = json!({"id": "ep", "session_id": "s", "task": "t", "environment": "shell"});
    for _ in 0..2 {
        assert_eq!(begin(&house, body.clone()).await["id"], "ep");
    }
    let refused = async |path: &str, body: Value, param: &str| {
        let (status, answer) = told(&house, path, body.clone()).await;
        assert!((400..500).contains(&status), "{body}: {answer}");
        assert_eq!(answer["error"]["param"], param, "{body}: {answer}");
    };
    let begun = "/v1/episodes/begin";
    refused(begun, with(body.clone(), "task", json!("another")), "id").await;
    refused(begun, json!({"session_id": "s", "task": "t"}), "session_id").await;
    for (key, value) in [
        ("task", json!("")),
        ("task", json!(7)),
        ("id", json!("x".repeat(300))),
        ("group", json!({})),
        ("seed", json!(-1)),
        ("seed", json!(1.5)),
    ] {
        refused(begun, with(json!({"session_id": "other", "task": "t"}), key, value), key).await;
    }
    refused(begun, json!({"task": "t", "group": "g"}), "group_size").await;
    refused(begun, json!({"task": "t", "group": "g", "group_size": 0}), "group_size").await;
    refused(begun, json!({"task": "t", "group_size": 2}), "group").await;
    refused(begun, json!({"session_id": "other"}), "task").await;

    let over = "/v1/episodes/end";
    refused(over, json!({"id": "nobody", "reward": 1}), "id").await;
    refused(over, json!({"session_id": "nobody", "reward": 1}), "id").await;
    refused(over, json!({"reward": 1}), "id").await;
    for (key, value) in [
        ("reward", json!("1")),
        ("reward", json!(1e300)),
        ("success", json!(1)),
        ("numbers", json!([1])),
        ("abandoned", json!("no")),
    ] {
        let param = if key == "abandoned" { "reward" } else { key };
        refused(over, with(json!({"id": "ep", "reward": 1}), key, value), param).await;
    }
    refused(over, json!({"id": "ep", "reward": 1, "numbers": {"a": "b"}}), "numbers.a").await;
    refused(over, json!({"id": "ep"}), "reward").await;
    let row = house.journal.episode(&EpisodeId("ep".into())).await.expect("read").expect("known").0;
    assert_eq!(row.state, EpisodeState::Open);

    for _ in 0..2 {
        assert_eq!(end(&house, json!({"session_id": "s", "reward": 0.25})).await.0, 200);
    }
    refused(over, json!({"id": "ep", "reward": 1}), "id").await;
    refused(over, json!({"id": "ep", "abandoned": "too late"}), "id").await;
    let row = house.journal.episode(&EpisodeId("ep".into())).await.expect("read").expect("known").0;
    let outcome = Outcome { reward: 0.25, success: None, numbers: Default::default() };
    assert_eq!(row.state, EpisodeState::Ended(outcome));
}

#[tokio::test]
async fn an_episode_without_an_outcome_is_not_trained_on() {
    let house = House::new().await;
    let begun = begin(&house, json!({"task": "t"})).await;
    let session = begun["session_id"].clone();
    house.chat(&with(ask("hi"), "session_id", session.clone())).await;
    let (status, ended) = end(&house, json!({"id": begun["id"], "abandoned": "the sandbox broke"})).await;
    assert_eq!((status, &ended["status"]), (200, &json!("abandoned")));
    let turn = house.turns()[0].id.clone();
    let row = house.journal.turn(&turn).await.expect("read").expect("known");
    assert_eq!((row.state, row.reason.as_deref()), (TurnState::Dropped, Some("episode_abandoned")));
}
