use super::*;
use proptest::prelude::*;

const TASK: &str = r#"
schema_version = "1.4"
source = "made here"
multi_step_reward_strategy = "final"
artifacts = ["/app/out.txt", { source = "/app/log", destination = "log" }]

[task]
name = "openclaw/count-lines__b2"
version = "0.1"
keywords = ["text"]

[metadata]
difficulty = "easy"
anything = { is = "kept" }

[agent]
timeout_sec = 300
user = 1000
network_mode = "no-network"

[verifier]
timeout_sec = 120.5
environment_mode = "separate"
env = { KEY = "${KEY:-none}", N = 3 }
environment = { docker_image = "checker" }

[[verifier.collect]]
command = "cat /app/out.txt"
timeout_sec = 5

[environment]
build_timeout_sec = 900.0
cpus = 1.5
memory_mb = 2048
gpus = 0
network_mode = "allowlist"
allowed_hosts = ["example.org"]
workdir = "/app"
env = { MODE = "test" }
skills_dir = "/skills"

[environment.healthcheck]
command = "true"
interval_sec = 1.0
start_period_sec = 0
retries = 3

[[environment.mcp_servers]]
name = "files"
transport = "stdio"
command = "server"
args = ["--quiet"]

[[environment.mcp_servers]]
name = "web"
transport = "streamable-http"
url = "http://web:80/mcp"

[solution]
env = { DEBUG = true }

[[steps]]
name = "first"
min_reward = 0.5
agent = { timeout_sec = 60 }

[[steps]]
name = "second"
min_reward = { tests = 1.0 }
verifier = { timeout_sec = 30 }
"#;

fn error(toml: &str) -> String {
    parse("t", toml).unwrap_err().to_string()
}

#[test]
fn every_key_of_the_newest_schema_is_read() {
    let task = parse("folder", TASK).unwrap();
    assert_eq!(task.unknown_keys, [""; 0]);
    assert_eq!((task.id.as_str(), task.group.as_str()), ("openclaw/count-lines__b2", "openclaw/count-lines"));
    assert_eq!(task.form, Form::Harbor { minor: 4 });
    assert_eq!(task.step_rewards, StepRewards::Final);
    assert_eq!(task.artifacts.len(), 2);
    assert_eq!(task.metadata["anything"]["is"], "kept");
    assert_eq!(task.metadata["keywords"][0], "text");
    assert_eq!(task.agent.user.as_deref(), Some("1000"));
    assert_eq!(task.agent.network, Some(Network::None));
    assert!(task.verifier.separate);
    assert_eq!(task.verifier.timeout_secs, 120.5);
    assert_eq!((task.verifier.env["KEY"].as_str(), task.verifier.env["N"].as_str()), ("${KEY:-none}", "3"));
    assert_eq!(task.verifier.collect[0].command, "cat /app/out.txt");
    let environment = &task.environment;
    assert_eq!((environment.cpus, environment.memory_mb, environment.gpus), (Some(1.5), Some(2048), Some(0)));
    assert_eq!(environment.network, Some(Network::Allowlist(vec!["example.org".into()])));
    assert_eq!(environment.healthcheck.as_ref().unwrap().retries, Some(3));
    assert_eq!(
        environment.mcp_servers[0].transport,
        McpTransport::Stdio("server".into(), vec!["--quiet".into()])
    );
    assert_eq!(task.solution_env["DEBUG"], "true");
    assert_eq!(task.steps[0].min_reward["reward"], 0.5);
    assert_eq!(task.steps[1].min_reward["tests"], 1.0);
    assert_eq!(task.steps[0].agent_timeout_secs, Some(60.0));
    assert_eq!(task.steps[1].verifier_timeout_secs, Some(30.0));
}

#[test]
fn folders_of_the_first_schema_are_read() {
    let task = parse(
        "old-task",
        "version = \"1.0\"\n[metadata]\nauthor_name = \"a\"\n[verifier]\ntimeout_sec = 90.0\n[agent]\ntimeout_sec = 90.0\n\
         [environment]\nmemory = \"2G\"\nstorage = \"10240M\"\nallow_internet = false\n",
    )
    .unwrap();
    assert_eq!((task.id.as_str(), task.form), ("old-task", Form::Harbor { minor: 0 }));
    assert_eq!((task.environment.memory_mb, task.environment.storage_mb), (Some(2048), Some(10240)));
    assert_eq!(task.environment.network, Some(Network::None));
    assert!(task.unknown_keys.is_empty());
    let empty = parse("t", "").unwrap();
    assert_eq!((empty.verifier.timeout_secs, empty.agent.timeout_secs), (600.0, None));
}

#[test]
fn keys_that_are_not_known_are_listed() {
    let task = parse(
        "t",
        "odd = 1\n[environment]\nmood = \"good\"\n[environment.healthcheck]\ncommand = \"true\"\nx = 1",
    )
    .unwrap();
    assert_eq!(task.unknown_keys, ["environment.healthcheck.x", "environment.mood", "odd"]);
}

#[test]
fn errors_name_the_key() {
    for (toml, says) in [
        ("schema_version = \"2.0\"", "task.toml: key `schema_version` is \"2.0\", known are 1.0 to 1.4"),
        ("version = \"1.5\"", "task.toml: key `version` is \"1.5\", known are 1.0 to 1.4"),
        (
            "version = \"1.0\"\nschema_version = \"1.1\"",
            "task.toml: key `version` is \"1.0\" but `schema_version` is \"1.1\"",
        ),
        ("agent = 1", "task.toml: key `agent` is a number, expected a table"),
        (
            "[agent]\ntimeout_sec = \"x\"",
            "task.toml: key `agent.timeout_sec` is text, expected a finite number",
        ),
        (
            "[verifier]\ntimeout_sec = 0",
            "task.toml: key `verifier.timeout_sec` is 0 s, expected more than 0 and at most 604800 s",
        ),
        ("[verifier]\ncollect = [{}]", "task.toml: key `verifier.collect[0].command` is missing"),
        (
            "[environment]\nmemory = \"lots\"",
            "task.toml: key `environment.memory` is \"lots\", expected a size such as \"2G\"",
        ),
        (
            "[environment]\nmemory = \"1G\"\nmemory_mb = 5",
            "task.toml: key `environment.memory` is 1024 MiB but `memory_mb` is 5",
        ),
        (
            "[environment]\nallow_internet = true\nnetwork_mode = \"no-network\"",
            "task.toml: key `environment.allow_internet` contradicts `network_mode`",
        ),
        (
            "[environment]\nallowed_hosts = [\"a\"]",
            "task.toml: key `environment.allowed_hosts` needs network_mode = \"allowlist\"",
        ),
        (
            "[[steps]]\nname = \"../x\"",
            "task.toml: key `steps[0].name` is \"../x\", expected the name of a folder in steps/",
        ),
        (
            "[environment]\nmemory_mb = -1",
            "task.toml: key `environment.memory_mb` is a number, expected a whole number, 0 or more",
        ),
    ] {
        assert_eq!(error(toml), says);
    }
    assert!(error("a = ").starts_with("task.toml: "));
    assert_eq!(
        error("[agent]\ntimeout_sec = nan"),
        "task.toml: key `agent.timeout_sec` is null, expected a finite number"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_task_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse("t", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_damaged_task_is_a_task_or_an_error(at in 0usize..TASK.len(), len in 0usize..9, new in r#"\PC{0,5}|[\n\[\]{}="'.]{1,4}"#) {
        let mut text = TASK.to_owned();
        text.replace_range(at..(at + len).min(TASK.len()), &new);
        let _ = parse("t", &text);
    }
}
