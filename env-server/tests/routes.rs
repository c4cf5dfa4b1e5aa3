//! The routes by hand: what is refused, what is done once, and what clients of the published servers find.

mod host;

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
};

use host::{
    Host, call, eventually, limits, made, post, request,
    rig::{Rig, picture},
    token, wired,
};
use openclaw_env_server::leases::Limits;
use openclaw_environments::world::Split;
use serde_json::{Value, json};

fn of_rig(limits: Limits) -> (Arc<Rig>, Host) {
    let rig = Rig::new();
    let host = Host::start(&[("rig", rig.clone())], limits);
    (rig, host)
}

fn begun(host: &Host, key: &str) -> String {
    let lease = host.lease(key);
    host.ok("/reset", json!({"lease_id": lease, "task": {"number": 0}}));
    lease
}

fn act(what: &str) -> Value {
    wired(&call("do", "what", what))
}

#[test]
fn nothing_is_told_to_whoever_has_no_token() {
    let host = Host::of_sums(limits());
    for (method, route) in [
        ("GET", "/status"),
        ("GET", "/environments"),
        ("GET", "/task?split=train&number=0"),
        ("GET", "/image/00"),
        ("GET", "/images"),
        ("GET", "/metrics"),
        ("GET", "/schema"),
        ("GET", "/metadata"),
        ("GET", "/ws"),
        ("GET", "/env/sums/ws"),
        ("POST", "/allocate"),
        ("POST", "/close"),
    ] {
        let wrong = format!("{}x", token());
        for shown in [None, Some(wrong.as_str()), Some("")] {
            let (status, _, told) = request(host.address, method, route, shown, "{}");
            assert_eq!(status, 401, "{route}");
            assert!(!String::from_utf8_lossy(&told).contains(&token()));
        }
    }
    for route in ["/healthz", "/health"] {
        assert_eq!(request(host.address, "GET", route, None, "").0, 200, "{route}");
    }
    assert_eq!(host.server.count(), (0, 0));
}

#[test]
fn a_request_that_comes_again_is_answered_again_and_not_done() {
    let (rig, host) = of_rig(limits());
    let asked = json!({"task_key": "a", "request_id": "one"});
    let first = host.ok("/allocate", asked.clone());
    let again = host.ok("/allocate", asked);
    assert_eq!((&first["lease_id"], &again["lease_id"]), (&again["lease_id"], &first["lease_id"]));
    assert_eq!((&first["reused"], &again["reused"]), (&json!(false), &json!(true)));
    let lease = first["lease_id"].as_str().expect("a lease");
    for _ in 0..2 {
        host.ok("/reset", json!({"lease_id": lease, "request_id": "two", "task": {"number": 0}}));
    }
    let step = json!({"lease_id": lease, "request_id": "three", "action": act("go on")});
    assert_eq!(host.ok("/step", step.clone()), host.ok("/step", step));
    // What went wrong in the world is what came of it, too.
    let broken = json!({"lease_id": lease, "request_id": "four", "action": act("break")});
    let (status, told) = host.post("/step", broken.clone());
    assert_eq!((status, told["code"].as_str()), (500, Some("broken")));
    assert_eq!(host.post("/step", broken), (status, told));
    assert_eq!((rig.counts.resets.load(Ordering::SeqCst), rig.counts.steps.load(Ordering::SeqCst)), (1, 2));
    // Another one of the same name is refused; one without a name is done each time.
    let other = json!({"lease_id": lease, "request_id": "three", "action": act("something else")});
    let (status, told) = host.post("/step", other);
    assert_eq!((status, told["code"].as_str()), (409, Some("REQUEST_ID_REUSED")));
    for _ in 0..2 {
        host.ok("/step", json!({"lease_id": lease, "action": act("go on")}));
    }
    assert_eq!(rig.counts.steps.load(Ordering::SeqCst), 4);
}

#[test]
fn a_request_that_comes_again_while_it_is_done_waits_for_the_same_answer() {
    let (rig, host) = of_rig(limits());
    let lease = begun(&host, "a");
    let step = json!({"lease_id": lease, "request_id": "one", "action": act("wait")});
    let asks = |step: Value| {
        let address = host.address;
        thread::spawn(move || post(address, "/step", step))
    };
    let first = asks(step.clone());
    eventually("it waits", || rig.counts.waiting.load(Ordering::SeqCst) == 1);
    let again = asks(step);
    // The table says so at once: a heartbeat is answered, though a step runs.
    host.ok("/heartbeat", json!({"lease_id": lease}));
    host.ok("/interrupt", json!({"lease_id": lease}));
    let (first, again) = (first.join().expect("no panic"), again.join().expect("no panic"));
    assert_eq!(first.1["code"], "interrupted");
    assert_eq!(first, again);
    assert_eq!(rig.counts.steps.load(Ordering::SeqCst), 1);
}

#[test]
fn slots_are_of_tasks_and_of_their_runs() {
    let (_rig, host) = of_rig(Limits { task_slots: 2, run_slots: 1, ..limits() });
    let (first, _second) = (begun(&host, "a"), host.lease("b"));
    let denied = |key: &str, code: &str| {
        let body = json!({"task_key": key}).to_string();
        let (status, head, told) = request(host.address, "POST", "/allocate", Some(&token()), &body);
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        assert_eq!((status, told["code"].as_str()), (429, Some(code)));
        assert!(head["retry-after"].parse::<u32>().expect("seconds") > 0);
    };
    denied("a", "RUN_SLOTS_EXHAUSTED");
    denied("c", "TASK_SLOTS_EXHAUSTED");
    assert_eq!(host.ok("/close", json!({"lease_id": first}))["found"], true);
    assert_eq!(host.ok("/close", json!({"lease_id": first}))["found"], false);
    // When it was closed, its world was, and its slot is free.
    host.lease("c");
    let (status, told) = host.post("/step", json!({"lease_id": first, "action": act("go on")}));
    assert_eq!((status, told["code"].as_str()), (410, Some("LEASE_GONE")));
}

#[test]
fn a_client_of_the_published_terminal_server_is_served() {
    let (rig, host) = of_rig(limits());
    let told = host.ok("/allocate", json!({"task_key": "held-out/1"}));
    let lease = told["lease_id"].as_str().expect("a lease");
    let meta = json!({"task_name": "held-out/1", "task_path": "tasks/held-out/1", "instruction": "x"});
    let timeouts = json!({"ensure_image": 300, "reset_session": 300, "close_session": 60, "eval": 0});
    let run = json!({"uid": "u", "group_index": 0, "sample_index": 1, "log_dir": "/tmp"});
    let told = host.ok(
        "/reset",
        json!({"lease_id": lease, "task_meta": meta, "run_ctx": run, "task_timeouts": timeouts}),
    );
    assert_eq!(told["user_msg"], "Begin.\n\nHere we are.");
    assert_eq!(told["tool_schemas"][0]["function"]["name"], "do");
    assert_eq!((&told["task"]["split"], &told["task"]["number"]), (&json!("held-out"), &json!(1)));
    let tool_call = json!({"name": "do", "arguments": {"what": "go on"}});
    let told = host.ok("/exec_tool", json!({"lease_id": lease, "tool_call": tool_call}));
    assert_eq!(told["observation"], "step 1");
    assert_eq!(host.ok("/get_obs", json!({"lease_id": lease}))["observation"]["results"][0]["id"], "call_0");
    let told = host.ok("/evaluate", json!({"lease_id": lease}));
    assert_eq!((&told["score"], &told["verdict"]["success"]), (&json!(0.5), &json!(false)));
    host.ok("/heartbeat", json!({"lease_id": lease}));
    host.ok("/close", json!({"lease_id": lease}));
    assert_eq!(rig.counts.closed.load(Ordering::SeqCst), 1);
    assert_eq!(host.server.count(), (0, 0));
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_done() {
    let (rig, host) = of_rig(limits());
    let lease = host.lease("a");
    let with = |more: Value| {
        let mut body = json!({"lease_id": lease});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    for (route, body, says) in [
        ("/step", json!({}), "action: missing"),
        ("/step", json!({"action": act("go on")}), "lease_id: missing"),
        ("/step", with(json!({"action": {"shout": 1}})), "action: shout: unknown field `shout`"),
        ("/step", with(json!({"action": act("go on"), "request_id": 7})), "request_id: no text"),
        ("/reset", with(json!({})), "task: missing"),
        ("/reset", with(json!({"task": {"number": 0, "seed": 1}})), "task: one of number, seed and id"),
        ("/reset", with(json!({"task": {"split": "both", "number": 0}})), "task.split: \"both\" is none"),
        ("/reset", with(json!({"task": {"number": 0}, "seed": 3})), "task: one of number, seed and id"),
        ("/reset", with(json!({"task_meta": {"task_name": "a"}, "seed": 3})), "seed: task_meta names"),
        ("/reset", with(json!({"task": {"number": 0}, "limits": {"steps": 1}})), "limits: those of the env"),
        (
            "/step",
            with(json!({"action": act("go on"), "sleep_after_execution": 0.5})),
            "sleep_after_execution: ",
        ),
        ("/exec_tool", with(json!({"tool_call": {"arguments": {}}})), "tool_call: missing field `name`"),
        ("/exec", with(json!({"command": "ls", "env": {"A B": "c"}})), "env: \"A B\" is no name"),
        ("/evaluate", with(json!({"eval_script": "true"})), "eval_script: a task is evaluated by its own"),
        ("/allocate", json!({"task_key": "a", "env": "other"}), "env: there is no \"other\", but rig"),
        ("/allocate", json!({"task_key": "a", "user": "me"}), "user: rig has no \"me\""),
        ("/allocate", json!({"task_key": "a", "ttl_secs": "long"}), "ttl_secs: no number of seconds"),
    ] {
        let (status, told) = host.post(route, body.clone());
        let said = told["error"].as_str().unwrap_or_default();
        assert!(status == 400 && said.starts_with(says), "{route} {body}: {status} {said}");
    }
    // Before a reset there is nothing to step in.
    let (status, told) = host.post("/step", with(json!({"action": act("go on")})));
    assert_eq!((status, told["code"].as_str()), (500, Some("broken")));
    assert_eq!(host.post("/reset", with(json!({"task": {"number": 5}}))).0, 404);
    let (status, _, told) = request(host.address, "POST", "/step", Some(&token()), "[1]");
    assert_eq!((status, String::from_utf8_lossy(&told).contains("no object")), (400, true));
    assert_eq!(rig.counts.steps.load(Ordering::SeqCst), 0);
}

#[test]
fn images_are_there_as_long_as_a_lease_that_has_shown_them() {
    let (_rig, host) = of_rig(limits());
    let lease = begun(&host, "a");
    host.ok("/step", json!({"lease_id": lease, "action": act("show")}));
    let (bytes, image) = picture();
    let route = format!("/image/{}", image.sha256);
    let (status, head, body) = request(host.address, "GET", &route, Some(&token()), "");
    assert_eq!((status, head["content-type"].as_str(), &body[..]), (200, "image/png", bytes));
    host.ok("/close", json!({"lease_id": lease}));
    assert_eq!(request(host.address, "GET", &route, Some(&token()), "").0, 404);
}

#[test]
fn environments_and_their_tasks_are_listed() {
    let sums = made("kind = 'calculator'");
    let host = Host::start(&[("rig", Rig::new()), ("sums", sums.clone())], limits());
    let get = |route: &str| {
        let (status, _, told) = request(host.address, "GET", route, Some(&token()), "");
        (status, serde_json::from_slice::<Value>(&told).expect("JSON"))
    };
    let (_, told) = get("/environments");
    let rig = json!({
        "name": "rig", "kind": "rig", "steps": 6, "patience_secs": 60.0, "agent": "tools", "tasks": {"train": 5, "held_out": 2}, "users": [],
    });
    assert_eq!(told["environments"][0], rig);
    assert_eq!(told["environments"][1]["tasks"], json!({"train": null, "held_out": null}));
    let (_, told) = get("/task?env=sums&split=held-out&number=9");
    let task = sums.task(Split::HeldOut, 9).expect("a task");
    assert_eq!(openclaw_environments::wire::read_task(told["task"].clone()), Ok(task));
    assert_eq!(get("/task?env=rig&split=train&number=5").0, 404);
    let (status, told) = get("/task?split=train&number=5");
    assert_eq!((status, told["error"].as_str()), (400, Some("env: which of rig, sums")));
    let (_, told) = get("/status");
    assert_eq!((&told["pool"]["leases"], &told["environments"]), (&json!(0), &json!(["rig", "sums"])));
}

#[test]
fn a_lease_whose_world_panics_is_gone_and_the_others_are_not() {
    let (_rig, host) = of_rig(limits());
    let (one, other) = (begun(&host, "a"), begun(&host, "b"));
    let (status, _) = host.post("/step", json!({"lease_id": one, "action": act("panic")}));
    assert_eq!(status, 410);
    eventually("it is gone", || host.server.count() == (1, 0));
    host.ok("/step", json!({"lease_id": other, "action": act("go on")}));
}

#[test]
fn a_server_that_stops_closes_every_world() {
    let (rig, host) = of_rig(limits());
    for key in ["a", "b", "c"] {
        begun(&host, key);
    }
    let lease = begun(&host, "d");
    let address = host.address;
    let body = json!({"lease_id": lease, "action": act("wait")});
    let waits = thread::spawn(move || post(address, "/step", body));
    eventually("it waits", || rig.counts.waiting.load(Ordering::SeqCst) == 1);
    host.stop();
    assert_eq!(rig.counts.closed.load(Ordering::SeqCst), 4);
    assert_eq!(waits.join().expect("no panic").0, 410, "whoever waits is told");
}

#[test]
fn metrics_tell_what_was_denied_and_how_leases_ended() {
    let (_rig, host) = of_rig(Limits { task_slots: 1, run_slots: 1, ..limits() });
    let lease = begun(&host, "a");
    assert_eq!(host.post("/allocate", json!({"task_key": "a"})).0, 429);
    host.ok("/step", json!({"lease_id": lease, "action": act("go on")}));
    host.ok("/close", json!({"lease_id": lease}));
    let (status, _, page) = request(host.address, "GET", "/metrics", Some(&token()), "");
    let page = String::from_utf8_lossy(&page);
    assert_eq!(status, 200);
    for line in [
        "openclaw_env_server_leases_total{end=\"closed\"}",
        "openclaw_env_server_denied_total{reason=\"RUN_SLOTS_EXHAUSTED\"}",
        "openclaw_env_server_steps_total{environment=\"rig\"}",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}
