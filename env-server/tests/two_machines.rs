//! A server and a client on two machines, which are network namespaces with a cable between them: pulled for a while, and for
//! good. Needs root and `ip`.

#[path = "../../environments/tests/machine/mod.rs"]
#[allow(dead_code, reason = "each test uses some of it")]
mod machine;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use machine::{can, eventually};

const TOKEN: &str = "a-token-of-this-test-alone";

fn ip(words: &str) -> Result<String, String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Two namespaces, each with an end of a cable. They go when this is dropped.
struct Machines {
    server: String,
    client: String,
}

impl Machines {
    /// Where they cannot be made, why.
    fn new(test: &str) -> Result<Self, String> {
        let name = |end: &str| format!("oc-{test}-{end}-{}", std::process::id());
        let machines = Self { server: name("s"), client: name("c") };
        let (server, client) = (&machines.server, &machines.client);
        // Names of devices are short.
        let (near, far) =
            (format!("oc{test}s{}", std::process::id()), format!("oc{test}c{}", std::process::id()));
        for words in [
            format!("netns add {server}"),
            format!("netns add {client}"),
            format!("link add {near} netns {server} type veth peer name {far} netns {client}"),
            format!("-n {server} link set {near} name cable"),
            format!("-n {client} link set {far} name cable"),
            format!("-n {server} addr add 10.77.0.1/24 dev cable"),
            format!("-n {client} addr add 10.77.0.2/24 dev cable"),
            format!("-n {server} link set lo up"),
            format!("-n {server} link set cable up"),
            format!("-n {client} link set cable up"),
        ] {
            ip(&words)?;
        }
        Ok(machines)
    }

    fn cable(&self, state: &str) {
        ip(&format!("-n {} link set cable {state}", self.client)).expect("the cable is there");
    }

    fn command(machine: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", machine]).arg(program);
        command.env("OPENCLAW_ENV_TOKEN", TOKEN);
        command
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in [&self.server, &self.client] {
            if let Err(error) = ip(&format!("netns del {machine}")) {
                eprintln!("{error}");
            }
        }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of sums on its machine.
fn serve(machines: &Machines, folder: &Path, ttl_secs: f64) -> Process {
    let file = folder.join("server.toml");
    let text = format!(
        "[server]\nbind = '10.77.0.1:18080'\nttl_secs = {ttl_secs:?}\n[environments.sums]\nkind = 'calculator'\n"
    );
    fs::write(&file, text).expect("it is written");
    let log = File::create(folder.join("log")).expect("a log");
    let program = Path::new(env!("CARGO_BIN_EXE_openclaw-env-server"));
    let started = Machines::command(&machines.server, program).arg(&file).stderr(log).spawn();
    let server = Process(started.expect("it starts"));
    eventually("it listens", || {
        fs::read_to_string(folder.join("log")).is_ok_and(|log| log.contains("environments are served"))
    });
    server
}

/// A client on the other machine, which plays that many episodes.
fn play(machines: &Machines, folder: &Path, episodes: u32, wait_secs: u32) -> Process {
    let test = std::env::current_exe().expect("a path");
    let player: PathBuf =
        test.ancestors().nth(2).expect("it lies in target/debug/deps").join("examples/play");
    assert!(
        player.exists(),
        "{} is built by cargo build --examples -p openclaw-env-server",
        player.display()
    );
    let settings = format!("kind = 'remote'\nurl = 'http://10.77.0.1:18080'\nwait_secs = {wait_secs}");
    let output = File::create(folder.join("played")).expect("a file");
    let errors = File::create(folder.join("errors")).expect("a file");
    let started = Machines::command(&machines.client, &player)
        .args([&settings, &format!("0..{episodes}"), "calculator: 1 + 1", "2"])
        .stdout(output)
        .stderr(errors)
        .stdin(Stdio::null())
        .spawn();
    Process(started.expect("it starts"))
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// How many leases the server has, and how many of them are ending.
fn leases(machines: &Machines) -> String {
    let ask = "exec 3<>/dev/tcp/10.77.0.1/18080; printf 'GET /status HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\
               authorization: Bearer %s\\r\\n\\r\\n' \"$OPENCLAW_ENV_TOKEN\" >&3; cat <&3";
    let output = Machines::command(&machines.server, Path::new("bash")).args(["-c", ask]).output();
    let said = String::from_utf8_lossy(&output.expect("bash runs").stdout).into_owned();
    let told: serde_json::Value =
        serde_json::from_str(said.split_once("\r\n\r\n").expect("a body").1).expect("JSON");
    format!("{} {}", told["pool"]["leases"], told["pool"]["ending"])
}

/// Where none can be made, whoever runs these tests may say so.
fn without_namespaces() -> bool {
    let why = std::env::var_os("OPENCLAW_WITHOUT_NAMESPACES");
    if let Some(why) = &why {
        eprintln!("skipped: {}", why.display());
    }
    why.is_some()
}

#[test]
fn a_cable_that_is_pulled_for_a_while_costs_no_episode() {
    let machines = Machines::new("a");
    let why = machines.as_ref().err().cloned().unwrap_or_default();
    if without_namespaces() || !can("no two machines can be made here", machines.is_ok(), &why) {
        return;
    }
    let machines = machines.expect("they were made");
    let folder = tempfile::tempdir().expect("a folder");
    let _server = serve(&machines, folder.path(), 60.0);
    let episodes = 60;
    let mut client = play(&machines, folder.path(), episodes, 60);
    let (played, mut before) = (folder.path().join("played"), 0);
    for _ in 0..3 {
        eventually("it plays", || lines(&played) > before || client.0.try_wait().expect("asked").is_some());
        machines.cable("down");
        before = lines(&played);
        machines.cable("up");
    }
    let ended = client.0.wait().expect("it ends");
    assert!(ended.success(), "{}", fs::read_to_string(folder.path().join("errors")).unwrap_or_default());
    // Two steps and a verdict of each: the sum was not said, whatever the cable did.
    let told = fs::read_to_string(&played).expect("it is there");
    assert_eq!(told.lines().count(), 3 * episodes as usize);
    assert_eq!(told.matches("success: false").count(), episodes as usize);
    assert_eq!(leases(&machines), "0 0");
}

#[test]
fn a_cable_that_is_pulled_for_good_ends_the_lease_there_and_the_world_here() {
    let machines = Machines::new("b");
    let why = machines.as_ref().err().cloned().unwrap_or_default();
    if without_namespaces() || !can("no two machines can be made here", machines.is_ok(), &why) {
        return;
    }
    let machines = machines.expect("they were made");
    let folder = tempfile::tempdir().expect("a folder");
    let _server = serve(&machines, folder.path(), 1.0);
    let mut client = play(&machines, folder.path(), 1_000_000, 1);
    eventually("it plays", || lines(&folder.path().join("played")) > 0);
    machines.cable("down");
    eventually("its lease has ended", || leases(&machines) == "0 0");
    // Until then it asks again, each time longer.
    eventually("it gives up", || client.0.try_wait().expect("asked").is_some());
    let said = fs::read_to_string(folder.path().join("errors")).expect("it is there");
    assert!(said.contains("Broken"), "{said}");
}
