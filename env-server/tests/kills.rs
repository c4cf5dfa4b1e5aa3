//! What is left when a server or a client is killed: nothing, and nobody waits for ever. The processes are this crate's own
//! program and its example `play`.

#[path = "../../environments/tests/machine/mod.rs"]
#[allow(dead_code, reason = "each test uses some of it")]
mod machine;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use machine::{eventually, has_sandbox, with_marker};
use openclaw_environments::{
    registry,
    world::{Action, Call, Split, World},
};
use serde_json::{Map, Value, json};

const TTL_SECS: f64 = 0.5;

/// A program that is killed when it is dropped.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Server {
    process: Process,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

fn token() -> String {
    std::env::var("CARGO_PKG_NAME").expect("cargo sets it")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = folder.path().join("server.toml");
        let text = format!(
            "[server]\nbind = '{address}'\nttl_secs = {TTL_SECS}\n\
             [environments.shell]\nkind = 'terminal'\nfamilies = ['te1']\nstep_secs = 60\n"
        );
        fs::write(&file, text).expect("it is written");
        let log = File::create(folder.path().join("log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_openclaw-env-server"))
            .arg(&file)
            .env("OPENCLAW_ENV_TOKEN", token())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut server = Self { process: Process(process), address, folder };
        eventually("it listens", || {
            let ended = server.process.0.try_wait().expect("it can be asked");
            assert!(
                ended.is_none(),
                "{}",
                fs::read_to_string(server.folder.path().join("log")).unwrap_or_default()
            );
            std::net::TcpStream::connect(address).is_ok()
        });
        server
    }

    fn settings(&self) -> String {
        format!("url = 'http://{}'\nwait_secs = 2\n", self.address)
    }

    fn leases(&self) -> u64 {
        let status = host::get(self.address, "/status", &token());
        status["pool"]["leases"].as_u64().expect("a number")
            + status["pool"]["ending"].as_u64().expect("a number")
    }
}

/// The one request that these tests make by hand.
mod host {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
    };

    pub fn get(address: SocketAddr, route: &str, token: &str) -> super::Value {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let head = format!(
            "GET {route} HTTP/1.1\r\nhost: here\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    }
}

/// The example `play`, which cargo builds with these tests.
fn player() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("it lies in target/debug/deps");
    let player = target.join("examples/play");
    assert!(
        player.exists(),
        "{} is built by cargo build --examples -p openclaw-env-server",
        player.display()
    );
    player
}

/// A client process whose command says `marker` in the sandbox, and waits there.
fn client(server: &Server, number: u64, marker: &str) -> Process {
    let settings = format!("kind = 'remote'\n{}", server.settings());
    let step = format!("bash: sh -c 'sleep 600' {marker}");
    let started = Command::new(player())
        .args([&settings, &format!("{number}..{}", number + 1), &step])
        .env("OPENCLAW_ENV_TOKEN", token())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(started.expect("it starts"))
}

/// Names what one test runs in its sandboxes.
fn marker(what: &str) -> String {
    format!("openclaw-{what}-{}-{:08x}", std::process::id(), std::process::id().wrapping_mul(2_654_435_761))
}

/// Those in sandboxes: the client has it among its own arguments, too.
fn in_sandboxes(marker: &str) -> usize {
    with_marker(&format!("sleep 600\0{marker}"))
}

#[test]
fn a_client_that_is_killed_loses_its_lease_and_its_sandbox() {
    if !has_sandbox() {
        return;
    }
    let server = Server::start();
    let marker = marker("client");
    for round in 0..3 {
        // At whatever moment: before it has a lease, while its sandbox is made, in the middle of its step.
        let mut clients: Vec<Process> = (0..3).map(|nth| client(&server, round * 3 + nth, &marker)).collect();
        match round {
            0 => {}
            1 => eventually("a client has a lease", || server.leases() > 0),
            _ => eventually("all of them wait in sandboxes", || in_sandboxes(&marker) == 3),
        }
        clients.iter_mut().for_each(Process::kill);
        eventually("every lease has ended", || server.leases() == 0);
        assert_eq!(in_sandboxes(&marker), 0, "a lease has ended when nothing is left of its world");
    }
}

#[test]
fn a_server_that_is_killed_leaves_no_sandbox_and_its_clients_are_told() {
    if !has_sandbox() {
        return;
    }
    let mut server = Server::start();
    let marker = marker("server");
    let mut table: registry::Table = server.settings().parse().expect("a table");
    // A variable that cargo sets, as a test cannot set one.
    table.insert("token_env".to_owned(), "CARGO_PKG_NAME".into());
    let environment = registry::make("remote", table).expect("it is made");
    let task = environment.task(Split::Train, 0).expect("a task");
    let mut worlds: Vec<Box<dyn World>> = (0..2).map(|_| environment.open().expect("a world")).collect();
    for world in &mut worlds {
        world.reset(&task).expect("it begins");
    }
    let steps: Vec<_> = worlds
        .into_iter()
        .map(|mut world| {
            let command = format!("sh -c 'sleep 600' {marker}");
            let arguments = Map::from_iter([("command".to_owned(), json!(command))]);
            let action = Action::Calls(vec![Call { id: "c".into(), name: "bash".into(), arguments }]);
            std::thread::spawn(move || world.step(&action))
        })
        .collect();
    eventually("all of them wait in sandboxes", || in_sandboxes(&marker) == 2);
    server.process.kill();
    eventually("no sandbox is left", || in_sandboxes(&marker) == 0);
    for step in steps {
        let broken = step.join().expect("no panic").expect_err("nobody is there");
        assert!(broken.may_pass(), "another world may do: {broken}");
    }
}

#[test]
fn a_server_that_is_asked_to_stop_leaves_nothing() {
    if !has_sandbox() {
        return;
    }
    let mut server = Server::start();
    let marker = marker("stop");
    let _client = client(&server, 0, &marker);
    eventually("it waits in a sandbox", || in_sandboxes(&marker) == 1);
    let pid = rustix::process::Pid::from_raw(server.process.0.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is told");
    assert!(server.process.0.wait().expect("it ends").success());
    assert_eq!(in_sandboxes(&marker), 0);
}

#[test]
fn a_server_without_a_token_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("server.toml");
    fs::write(&file, "[server]\nbind = '127.0.0.1:0'\n[environments.sums]\nkind = 'calculator'\n")
        .expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_openclaw-env-server"))
        .arg(&file)
        .env_remove("OPENCLAW_ENV_TOKEN")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("server.token_env: OPENCLAW_ENV_TOKEN is not set"),
        "{said}"
    );
}
