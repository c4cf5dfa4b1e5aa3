//! Kinds with sandboxes, far away as here.

mod host;
#[path = "../../environments/tests/machine/mod.rs"]
#[allow(dead_code, reason = "each test uses some of it")]
mod machine;

use host::{Host, call, limits, made, same};
use machine::has_sandbox;
use openclaw_environments::world::{Action, Split};
use serde_json::json;

#[test]
fn a_terminal_and_a_tool_call_far_away_are_the_same_step_by_step() {
    if !has_sandbox() {
        return;
    }
    let (shell, code) = (
        made("kind = 'terminal'\nfamilies = ['te1', 'te3']"),
        made("kind = 'tool_call'\nfamilies = ['tc1']"),
    );
    let host = Host::start(&[("shell", shell.clone()), ("code", code.clone())], limits());
    let there = |env: &str| host.remote_at(host.address, &format!("env = '{env}'"));
    let acts = [
        call("bash", "command", "ls -R; cd /tmp && x=7"),
        call("bash", "command", "echo $x; pwd; false"),
        call("read_file", "path", "no/such/file"),
        Action::Malformed,
        call("write_file", "path", "only a path"),
        Action::Text("Done.".into()),
    ];
    for (split, number) in [(Split::Train, 0), (Split::Train, 3), (Split::HeldOut, 1)] {
        same(&*shell, &*there("shell"), split, number, &acts);
    }
    let acts = [
        call("code_interpreter", "code", "print(6 * 7)"),
        call("code_interpreter", "code", "1 / 0"),
        Action::Text("It is \\boxed{42}.".into()),
    ];
    same(&*code, &*there("code"), Split::HeldOut, 2, &acts);
}

#[test]
fn a_command_of_the_published_routes_tells_its_exit_code_and_a_patch() {
    if !has_sandbox() {
        return;
    }
    let host = Host::start(&[("shell", made("kind = 'terminal'\nfamilies = ['te1']"))], limits());
    let lease = host.lease("a");
    host.ok("/reset", json!({"lease_id": lease, "task": {"number": 0}}));
    let exec = |command: &str, more: serde_json::Value| {
        let mut body = json!({"lease_id": lease, "command": command});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let told = host.ok("/exec", body);
        (told["returncode"].as_i64().expect("a code"), told["output"].as_str().expect("a text").to_owned())
    };
    assert_eq!(exec("echo a; echo b >&2; exit 3", json!({})).0, 3);
    let (code, output) = exec("echo \"$A it's\"; pwd", json!({"cwd": "/tmp", "env": {"A": "yes 'and' no"}}));
    assert_eq!((code, output.trim_end()), (0, "yes 'and' no it's\n/tmp"));
    // Neither a folder nor a variable stays for the next one.
    assert_eq!(exec("echo \"[$A]\"; pwd", json!({})).1.trim_end(), "[]\n/workspace");
    assert_ne!(exec("true", json!({"cwd": "/no/such/folder"})).0, 0);
    let (code, output) = exec("sleep 600", json!({"timeout": 0.5}));
    assert_eq!((code, output.as_str()), (-1, "The command took longer than 0.5 seconds."));
    assert_eq!(exec("echo it goes on", json!({})), (0, "it goes on\n".to_owned()));
    let git = "git init -q r && cd r && git config user.email a@b && git config user.name a && echo 1 > f && git add f && git commit -qm x && echo 2 > f";
    if exec("command -v git", json!({})).0 == 0 {
        let (code, output) = exec(git, json!({}));
        assert_eq!(code, 0, "{output}");
        let told = host.ok("/diff", json!({"lease_id": lease, "cwd": "/workspace/r"}));
        let patch = told["patch"].as_str().expect("a patch");
        assert!(patch.contains("\n-1\n+2\n"), "{told}");
        let told = host.ok("/diff", json!({"lease_id": lease, "cwd": "/tmp"}));
        assert!(told["returncode"] != 0 && told["patch"] == "" && told["error"] != "", "{told}");
    }
}
