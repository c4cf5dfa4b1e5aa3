//! Servers and clients for these tests, in this process.
#![allow(dead_code, reason = "each test uses some of it")]

pub mod proxy;
pub mod rig;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openclaw_env_server::{Config, Listening, config::Served, leases::Limits, server::Server};
use openclaw_environments::{
    registry::{self, Table},
    world::{Action, Call, Environment, World},
};
use serde_json::{Map, Value, json};
use tokio::{runtime::Runtime, sync::oneshot};

/// The variable that has the token. A test cannot set one of its own, which is unsafe, and cargo sets this one.
pub const TOKEN_ENV: &str = "CARGO_PKG_NAME";

/// A server that is stopped when it is dropped.
pub struct Host {
    pub address: SocketAddr,
    pub server: Arc<Server>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// What is served where a test says nothing else.
pub fn limits() -> Limits {
    Limits { task_slots: 64, run_slots: 64, ttl_secs: 60.0, answers_mb: 4 }
}

impl Host {
    /// Serves environments by name.
    pub fn start(environments: &[(&str, Arc<dyn Environment>)], limits: Limits) -> Self {
        let served = |environment: &Arc<dyn Environment>| Served {
            environment: environment.clone(),
            kind: environment.spec().kind.to_owned(),
            image: None,
        };
        let environments: BTreeMap<String, Served> =
            environments.iter().map(|(name, made)| ((*name).to_owned(), served(made))).collect();
        let config = Config {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: token(),
            connections: 1024,
            image_bytes: 1 << 20,
            limits,
            environments,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listening = runtime.block_on(Listening::bind(config)).expect("it listens");
        let (address, server) = (listening.address(), listening.server().clone());
        let (stop, stopped) = oneshot::channel();
        let running = runtime.spawn(listening.run(async move {
            // Dropped, it is a stop, too.
            let _ = stopped.await;
        }));
        Self { address, server, stop: Some(stop), running: Some(running), runtime: Some(runtime) }
    }

    /// With the calculator alone.
    pub fn of_sums(limits: Limits) -> Self {
        Self::start(&[("sums", made("kind = 'calculator'"))], limits)
    }

    /// The kind `remote`, with this server, or with what stands before it.
    pub fn remote_at(&self, address: SocketAddr, more: &str) -> Arc<dyn Environment> {
        remote(address, more)
    }

    pub fn remote(&self) -> Arc<dyn Environment> {
        remote(self.address, "")
    }

    /// A request of the routes, and its status.
    pub fn post(&self, route: &str, body: Value) -> (u16, Value) {
        post(self.address, route, body)
    }

    /// A request that is named, so that it is done once.
    pub fn ok(&self, route: &str, body: Value) -> Value {
        let (status, told) = self.post(route, body);
        assert_eq!((status, &told["ok"]), (200, &json!(true)), "{route}: {told}");
        told
    }

    /// Begins a task by a lease of its own.
    pub fn lease(&self, key: &str) -> String {
        let told = self.ok("/allocate", json!({"task_key": key}));
        told["lease_id"].as_str().expect("a lease").to_owned()
    }

    /// Ends it, and waits until it has ended.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            runtime.block_on(running).expect("it ends in order");
            runtime.shutdown_background();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

/// What every request has to show.
pub fn token() -> String {
    std::env::var(TOKEN_ENV).expect("cargo sets it")
}

/// An environment by its table.
pub fn made(text: &str) -> Arc<dyn Environment> {
    let mut table: Table = text.parse().expect("a table");
    let kind = table.remove("kind").expect("a kind");
    registry::make(kind.as_str().expect("a text"), table).expect("it is made")
}

pub fn remote(address: SocketAddr, more: &str) -> Arc<dyn Environment> {
    made(&format!("kind = 'remote'\nurl = 'http://{address}'\ntoken_env = '{TOKEN_ENV}'\n{more}"))
}

/// A request of the routes by hand.
pub fn request(
    address: SocketAddr,
    method: &str,
    route: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, BTreeMap<String, String>, Vec<u8>) {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    let mut stream = TcpStream::connect(address).expect("it listens");
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "{method} {route} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{token}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it is read");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    (status, fields, answer[end + 4..].to_vec())
}

pub fn post(address: SocketAddr, route: &str, body: Value) -> (u16, Value) {
    let (status, _, answer) = request(address, "POST", route, Some(&token()), &body.to_string());
    (status, serde_json::from_slice(&answer).expect("JSON"))
}

/// A call with one text.
pub fn call(name: &str, argument: &str, value: &str) -> Action {
    let arguments = Map::from_iter([(argument.to_owned(), json!(value))]);
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

/// Waits for a condition.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < patience, "not in a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Plays the same in both, and compares what comes of each step.
pub fn same(
    one: &dyn Environment,
    other: &dyn Environment,
    split: openclaw_environments::world::Split,
    number: u64,
    actions: &[Action],
) {
    let (task, again) =
        (one.task(split, number).expect("a task"), other.task(split, number).expect("a task"));
    assert_eq!(task, again);
    let (mut here, mut there) = (one.open().expect("a world"), other.open().expect("a world"));
    let reset = |world: &mut Box<dyn World>| world.reset(&task).expect("it begins");
    assert_eq!(reset(&mut here), reset(&mut there));
    for action in actions {
        let step = |world: &mut Box<dyn World>| world.step(action).expect("a step");
        assert_eq!(step(&mut here), step(&mut there), "{action:?}");
    }
    let outcome = |world: &mut Box<dyn World>| world.evaluate();
    assert_eq!(outcome(&mut here), outcome(&mut there));
    assert_eq!(outcome(&mut there), outcome(&mut there), "again it says the same");
}

/// An action as it is sent.
pub fn wired(action: &Action) -> Value {
    openclaw_environments::wire::action(action)
}
