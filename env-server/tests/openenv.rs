//! OpenEnv's socket, both ways: a transcript of what its own client sends, and a server that answers as its own does.

mod host;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use futures::{SinkExt, StreamExt};
use host::{Host, eventually, limits, made, rig::Rig, token};
use openclaw_env_server::leases::Limits;
use openclaw_environments::world::{Action, Call, Environment, Part, Split, World, WorldError};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

type Stream = WebSocketStream<TcpStream>;

/// A client of OpenEnv, as far as a connection is.
struct Client {
    runtime: tokio::runtime::Runtime,
    stream: Stream,
}

impl Client {
    fn connect(address: SocketAddr, path: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let mut request = format!("ws://{address}{path}").into_client_request().expect("an address");
            let shown = format!("Bearer {}", token()).parse().expect("a header");
            request.headers_mut().insert("authorization", shown);
            let stream = TcpStream::connect(address).await.expect("it listens");
            client_async(request, stream).await.expect("a socket").0
        });
        Self { runtime, stream }
    }

    fn send(&mut self, text: &str) {
        self.runtime.block_on(self.stream.send(Message::text(text))).expect("it is read");
    }

    /// The next message; none at the end.
    fn next(&mut self) -> Option<Value> {
        let stream = &mut self.stream;
        self.runtime.block_on(async {
            loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(text.as_str()).ok(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return None,
                }
            }
        })
    }

    fn ask(&mut self, message: Value) -> Value {
        self.send(&message.to_string());
        self.next().expect("an answer")
    }

    fn error(&mut self, text: &str) -> String {
        self.send(text);
        let told = self.next().expect("an answer");
        assert_eq!(told["type"], "error", "{told}");
        told["data"]["code"].as_str().expect("a code").to_owned()
    }
}

fn expression(sum: &str) -> Value {
    json!({"tool_calls": [{"name": "calculator", "arguments": {"expression": sum}}]})
}

/// Line for line what `GenericEnvClient` of openenv 0.10.0 sends, see tests/clients/openenv.
#[test]
fn an_episode_as_openenvs_own_client_plays_it() {
    let host = Host::of_sums(limits());
    let mut client = Client::connect(host.address, "/ws");
    let told = client.ask(json!({"type": "reset", "data": {"split": "held-out", "task_index": 7}}));
    assert_eq!(
        (&told["type"], &told["data"]["done"], &told["data"]["reward"]),
        (&json!("observation"), &json!(false), &json!(null))
    );
    let seen = &told["data"]["observation"];
    assert_eq!(seen["metadata"], json!({"task_id": "held-out/7", "split": "held-out", "task_index": 7}));
    assert_eq!(seen["tools"][0]["function"]["name"], "calculator");
    assert_eq!(
        (&seen["messages"][0]["role"], &seen["messages"][0]["content"]),
        (&json!("user"), &seen["text"])
    );
    let sum: String =
        seen["text"].as_str().expect("a text").chars().filter(|c| "0123456789+-* ".contains(*c)).collect();
    let told = client.ask(json!({"type": "step", "data": expression(sum.trim())}));
    assert_eq!((&told["data"]["done"], &told["data"]["reward"]), (&json!(false), &json!(null)));
    assert_eq!(told["data"]["observation"]["metadata"]["rule"]["score"], 1);
    let result = told["data"]["observation"]["text"].as_str().expect("a text").to_owned();
    assert_eq!(
        client.ask(json!({"type": "state"}))["data"],
        json!({"episode_id": null, "step_count": 1, "task_id": "held-out/7", "done": false})
    );
    let told = client.ask(json!({"type": "step", "data": {"message": result, "metadata": {}}}));
    assert_eq!((&told["data"]["done"], &told["data"]["reward"]), (&json!(true), &json!(1.0)));
    assert_eq!(told["data"]["observation"]["metadata"]["verdict"]["success"], true);
    // Who goes on is told, and gets nothing more for it.
    let told = client.ask(json!({"type": "step", "data": {"message": "7"}}));
    assert_eq!((&told["data"]["done"], &told["data"]["reward"]), (&json!(true), &json!(null)));
    let told = client.ask(json!({"type": "reset", "data": {"seed": 3, "episode_id": "mine"}}));
    assert_eq!(told["data"]["observation"]["metadata"]["split"], "train");
    assert_eq!(client.ask(json!({"type": "state"}))["data"]["episode_id"], "mine");
    client.send(&json!({"type": "close"}).to_string());
    assert_eq!(client.next(), None);
    eventually("its lease has ended", || host.server.count() == (0, 0));
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_code_and_the_session_lives() {
    let (rig, host) = {
        let rig = Rig::new();
        (
            rig.clone(),
            Host::start(
                &[("rig", rig as Arc<dyn Environment>), ("sums", made("kind = 'calculator'"))],
                limits(),
            ),
        )
    };
    let mut client = Client::connect(host.address, "/env/rig/ws");
    let step = |what: &str| {
        json!({"type": "step", "data": {"tool_calls": [{"name": "do", "arguments": {"what": what}}]}})
            .to_string()
    };
    assert_eq!(client.error("{"), "INVALID_JSON");
    assert_eq!(client.error(r#"{"type": "dance"}"#), "UNKNOWN_TYPE");
    assert_eq!(client.error("{}"), "UNKNOWN_TYPE");
    assert_eq!(client.error(r#"{"type": "step", "data": {"shout": "a"}}"#), "VALIDATION_ERROR");
    assert_eq!(client.error(r#"{"type": "step", "data": 7}"#), "VALIDATION_ERROR");
    assert_eq!(client.error(r#"{"type": "reset", "data": {"level": 7}}"#), "VALIDATION_ERROR");
    assert_eq!(client.error(&step("go on")), "EXECUTION_ERROR", "nothing was begun");
    assert_eq!(client.error(r#"{"type": "reset", "data": {"task_index": 99}}"#), "EXECUTION_ERROR");
    client.ask(json!({"type": "reset", "data": {"task_id": "train/3"}}));
    assert_eq!(client.error(&step("break")), "EXECUTION_ERROR");
    // Its steps have an end, and that is a verdict, too.
    for _ in 0..4 {
        client.send(&step("go on"));
        assert_eq!(client.next().expect("an answer")["data"]["done"], false);
    }
    client.send(&step("go on"));
    let told = client.next().expect("an answer");
    assert_eq!(
        (&told["data"]["done"], told["data"]["observation"]["metadata"]["limit"].as_bool()),
        (&json!(false), None)
    );
    client.send(&step("go on"));
    let told = client.next().expect("an answer");
    assert_eq!(
        (&told["data"]["done"], &told["data"]["observation"]["metadata"]["limit"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(told["data"]["reward"].as_f64().map(|reward| reward as f32), Some(0.1));
    assert_eq!(rig.counts.evaluations.load(Ordering::SeqCst), 1);
    // Without a name nobody knows which of two is meant.
    assert_eq!(
        Client::connect(host.address, "/ws").next().expect("an error")["data"]["code"],
        "SESSION_ERROR"
    );
    assert_eq!(
        Client::connect(host.address, "/ws?env=sums").ask(json!({"type": "state"}))["data"]["step_count"],
        0
    );
}

#[test]
fn a_connection_is_a_lease_and_ends_with_it() {
    let rig = Rig::new();
    let host = Host::start(&[("rig", rig.clone())], Limits { task_slots: 1, ttl_secs: 0.3, ..limits() });
    let mut client = Client::connect(host.address, "/ws");
    client.ask(json!({"type": "reset", "data": {}}));
    let mut other = Client::connect(host.address, "/ws");
    assert_eq!(other.next().expect("an error")["data"]["code"], "CAPACITY_REACHED");
    assert_eq!(other.next(), None);
    // It leaves in the middle of a step.
    client.send(
        &json!({"type": "step", "data": {"tool_calls": [{"name": "do", "arguments": {"what": "wait"}}]}})
            .to_string(),
    );
    eventually("it waits", || rig.counts.waiting.load(Ordering::SeqCst) == 1);
    drop(client);
    eventually("its lease has ended", || host.server.count() == (0, 0));
    assert_eq!(rig.counts.closed.load(Ordering::SeqCst), 1);
    // One that is silent, and reads nothing, answers no sign of life.
    let mut silent = Client::connect(host.address, "/ws");
    silent.ask(json!({"type": "reset", "data": {}}));
    eventually("its lease has ended", || host.server.count() == (0, 0));
    assert_eq!(rig.counts.closed.load(Ordering::SeqCst), 2);
}

/// What a server of OpenEnv answers: to a message, and whether it goes on.
type Script = fn(&Value) -> Option<Value>;

/// A server that answers as OpenEnv's own does; see tests/clients/openenv for the real one.
struct Their {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Their {
    fn start(schema: Value, script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(attend(stream, schema.clone(), script));
            }
        });
        Self { address, _runtime: runtime }
    }

    fn environment(&self, more: &str) -> Arc<dyn Environment> {
        made(&format!("kind = 'openenv'\nurl = 'ws://{}'\nwait_secs = 5\n{more}", self.address))
    }
}

async fn attend(stream: TcpStream, schema: Value, script: Script) {
    use tokio::io::AsyncWriteExt;
    let mut head = [0; 4096];
    let size = stream.peek(&mut head).await.expect("a head");
    let head = String::from_utf8_lossy(&head[..size]).into_owned();
    if !head.starts_with("GET /ws ") {
        let body = match head.split(' ').nth(1) {
            Some("/schema") => json!({"action": schema, "observation": {}, "state": {}}),
            _ => json!({"name": "echo", "description": "It says what you say."}),
        };
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = stream;
        stream.write_all(answer.as_bytes()).await.expect("it is read");
        return;
    }
    let mut stream = accept_async(stream).await.expect("a socket");
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let asked: Value = serde_json::from_str(text.as_str()).expect("JSON");
        let Some(answer) = script(&asked) else { break };
        stream.send(Message::text(answer.to_string())).await.expect("it is read");
    }
}

fn observation(observation: Value, reward: Value, done: bool) -> Option<Value> {
    Some(json!({"type": "observation", "data": {"observation": observation, "reward": reward, "done": done}}))
}

/// It gives what it is told to, and is over where it is told so.
fn echo(asked: &Value) -> Option<Value> {
    let data = &asked["data"];
    match asked["type"].as_str() {
        Some("reset") => observation(
            json!({"message": format!("seed {}", data["seed"]), "metadata": {}}),
            json!(null),
            false,
        ),
        Some("step") => match data["message"].as_str() {
            Some("die") => None,
            Some("fail") => {
                Some(json!({"type": "error", "data": {"message": "it fails", "code": "EXECUTION_ERROR"}}))
            }
            Some("full") => {
                Some(json!({"type": "error", "data": {"message": "no place", "code": "CAPACITY_REACHED"}}))
            }
            Some(said) => {
                observation(json!({"message": said, "metadata": {}}), data["reward"].clone(), said == "end")
            }
            None => Some(json!({"type": "error", "data": {
                "message": "Invalid message", "code": "VALIDATION_ERROR", "errors": [{"loc": ["message"], "type": "missing"}],
            }})),
        },
        _ => None,
    }
}

fn echo_schema() -> Value {
    json!({
        "type": "object", "title": "EchoAction", "description": "Says it.", "required": ["message"],
        "properties": {
            "metadata": {"type": "object"}, "message": {"type": "string"}, "reward": {"type": "number"},
        },
    })
}

fn say(arguments: Value) -> Action {
    let arguments: Map<String, Value> = arguments.as_object().expect("an object").clone();
    Action::Calls(vec![Call { id: "c".into(), name: "act".into(), arguments }])
}

fn begun(environment: &Arc<dyn Environment>) -> (Box<dyn World>, String) {
    let task = environment.task(Split::HeldOut, 4).expect("a task");
    let mut world = environment.open().expect("a world");
    let seen = world.reset(&task).expect("it begins");
    let [Part::Text(text)] = &seen.parts[..] else { panic!("not one text: {seen:?}") };
    let text = text.clone();
    (world, text)
}

#[test]
fn an_environment_of_openenv_is_one_tool_and_its_rewards() {
    let their = Their::start(echo_schema(), echo);
    let environment = their.environment("");
    assert_eq!(environment.ready(), Ok(()));
    let task = environment.task(Split::HeldOut, 4).expect("a task");
    assert_eq!(task.opening[0].message(), json!({"role": "system", "content": "It says what you say."}));
    let tool = &task.tools[0];
    assert_eq!((tool.name.as_str(), tool.description.as_str()), ("act", "Says it."));
    assert_eq!(
        tool.parameters["properties"],
        json!({"message": {"type": "string"}, "reward": {"type": "number"}})
    );
    let (mut world, first) = begun(&environment);
    assert_eq!(first, "seed 9");
    let mut step = |action: Action| world.step(&action).expect("a step");
    let outcome = step(say(json!({"message": "hello", "reward": 0.5})));
    assert_eq!(outcome.observation.results[0].parts, [Part::Text("hello".into())]);
    assert_eq!((outcome.rule.map(|rule| rule.score), outcome.done), (Some(1), false));
    assert_eq!(step(say(json!({"message": "well"}))).rule, None, "no reward, no verdict");
    // What the agent did wrong it is told.
    let outcome = step(say(json!({"shout": 1})));
    let [Part::Text(said)] = &outcome.observation.results[0].parts[..] else { panic!("{outcome:?}") };
    assert!(outcome.observation.results[0].is_error && said.contains("missing"), "{said}");
    assert!(step(say(json!({"message": "fail"}))).observation.results[0].is_error);
    let outcome = step(say(json!({"message": "end", "reward": -0.75})));
    assert_eq!((outcome.rule.map(|rule| rule.score), outcome.done), (Some(-1), true));
    assert!(step(say(json!({"message": "on"}))).observation.results[0].is_error, "it is over");
    let verdict = world.evaluate().expect("a verdict");
    assert_eq!((verdict.reward, verdict.success, verdict.numbers["steps"]), (-0.25, false, 3.0));
}

#[test]
fn an_episode_is_worth_what_the_settings_say() {
    let their = Their::start(echo_schema(), echo);
    let played = |more: &str, actions: &[Action]| {
        let (mut world, _) = begun(&their.environment(more));
        for action in actions {
            world.step(action).expect("a step");
        }
        world.evaluate().map(|verdict| (verdict.reward, verdict.success))
    };
    let two = [say(json!({"message": "a", "reward": 1.0})), say(json!({"message": "end", "reward": 0.5}))];
    assert_eq!(played("", &two), Ok((1.5, true)));
    assert_eq!(played("reward = 'last'\nsuccess_above = 0.5", &two), Ok((0.5, false)));
    let unrewarded = [say(json!({"message": "a"}))];
    let end = [say(json!({"message": "end"}))];
    assert!(matches!(played("", &end), Err(WorldError::Invalid(_))), "no reward is no zero");
    assert_eq!(played("unfinished = -1.0", &unrewarded), Ok((-1.0, false)));
    // Words end it, or are an action.
    let words = [Action::Text("end".into())];
    assert_eq!(played("unfinished = -1.0", &words), Ok((-1.0, false)));
    assert!(matches!(played("words = 'act'", &words), Err(WorldError::Invalid(_))));
}

#[test]
fn a_session_that_breaks_is_a_broken_world_and_another_one_does() {
    let their = Their::start(echo_schema(), echo);
    let environment = their.environment("");
    let (mut world, _) = begun(&environment);
    for last in ["die", "full"] {
        let error = world.step(&say(json!({"message": last}))).expect_err("it broke");
        assert!(error.may_pass(), "{error}");
        assert!(world.step(&say(json!({"message": "a"}))).is_err());
        assert!(world.reset(&environment.task(Split::Train, 0).expect("a task")).is_ok());
    }
}

#[test]
fn an_interrupt_ends_a_step_that_is_not_answered() {
    // It answers a reset and nothing else.
    let their = Their::start(echo_schema(), |asked| match asked["type"].as_str() {
        Some("reset") => echo(asked),
        Some("step") => {
            std::thread::sleep(std::time::Duration::from_secs(1));
            echo(asked)
        }
        _ => None,
    });
    let (mut world, _) = begun(&their.environment(""));
    let interrupt = world.interrupt();
    let (told, heard) = std::sync::mpsc::channel();
    let step = std::thread::spawn(move || {
        told.send(()).expect("it is heard");
        world.step(&say(json!({"message": "a"})))
    });
    heard.recv().expect("it begins");
    let outcome = loop {
        interrupt();
        if step.is_finished() {
            break step.join().expect("no panic");
        }
    };
    assert_eq!(outcome, Err(WorldError::Interrupted));
}

#[test]
fn tools_of_an_environment_that_has_no_action_of_its_own_are_its_tools() {
    let schema = json!({"type": "object", "properties": {"metadata": {"type": "object"}}});
    let their = Their::start(schema, |asked| match asked["type"].as_str() {
        Some("mcp") => Some(json!({"type": "mcp", "data": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{
            "name": "echo_message", "description": "Says it.",
            "inputSchema": {"type": "object", "properties": {"message": {"type": "string"}}},
        }]}}})),
        Some("step") => observation(json!({"got": asked["data"], "metadata": {}}), json!(1.0), true),
        _ => echo(asked),
    });
    let environment = their.environment("");
    let task = environment.task(Split::Train, 0).expect("a task");
    assert_eq!(task.tools[0].name, "echo_message");
    let (mut world, _) = begun(&environment);
    let outcome = world.step(&host::call("echo_message", "message", "hi")).expect("a step");
    let [Part::Text(said)] = &outcome.observation.results[0].parts[..] else { panic!("{outcome:?}") };
    let got: Value = serde_json::from_str(said).expect("JSON");
    assert_eq!(
        got["got"],
        json!({"type": "call_tool", "tool_name": "echo_message", "arguments": {"message": "hi"}})
    );
    assert!(outcome.done);
}

/// Our own client against our own server, by their words.
#[test]
fn the_kind_openenv_plays_what_this_server_serves() {
    let host = Host::of_sums(limits());
    let environment = made(&format!(
        "kind = 'openenv'\nurl = 'ws://{}/env/sums'\ntoken_env = '{}'\nnumber_as = 'task_index'\n\
         tasks = [9, 9]\nsplits = ['train', 'held-out']\nwords = 'end'",
        host.address,
        host::TOKEN_ENV
    ));
    let task = environment.task(Split::HeldOut, 7).expect("a task");
    let mut world = environment.open().expect("a world");
    world.reset(&task).expect("it begins");
    let outcome = world
        .step(&say(json!({"tool_calls": [{"name": "calculator", "arguments": {"expression": "1 + 1"}}]})));
    assert!(!outcome.expect("a step").done);
    let outcome = world.step(&say(json!({"message": "7"}))).expect("a step");
    assert!(outcome.done);
    assert_eq!(world.evaluate().expect("a verdict").reward, -1.0);
}
