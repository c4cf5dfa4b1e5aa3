//! A model for each person: whom it listens to, what it costs the others, and what is left of it when something dies.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use openclaw_tests::{Launch, Node, binary, eventually};
use serde_json::{Value, json};

/// Whether a reply is as it was wished.
type Kept = fn(&str) -> bool;

/// Long enough for any wish that the embedded model can learn.
const MOST_ROUNDS: usize = 80;

/// What is asked of everyone in the end.
const QUESTION: &str = "There are 6 cats and 8 more come. How many cats are there?";

struct House {
    run: PathBuf,
    node: Node,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl House {
    fn open(sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        Self { node: launch(&run, sets).start(), run, client: reqwest::Client::new(), _dir: dir }
    }

    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = self.client.post(format!("{}/{path}", self.node.url)).json(body);
        request.send().await.expect("an answer")
    }

    async fn ask(&self, person: &str, question: &str, temperature: f64) -> Value {
        let body = json!({"model": "policy", "user": person, "temperature": temperature,
            "messages": [{"role": "user", "content": question}]});
        let answer = self.post("chat/completions", &body).await;
        assert_eq!(answer.status(), 200, "{person}: {}", self.node.log());
        answer.json().await.expect("JSON")
    }

    /// The likeliest reply.
    async fn says(&self, person: &str) -> String {
        said(&self.ask(person, QUESTION, 0.0).await)
    }

    /// A verb for one person's node: its exit code, and what it says.
    fn verb(&self, person: &str, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.args(words);
        if !person.is_empty() {
            command.args(["--person", person]);
        }
        let output = command.env_remove("RUST_LOG").env("OPENCLAW_RUN", &self.run).output();
        let output = output.expect("the binary can be run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("the output is text"))
    }

    fn status(&self, person: &str) -> Value {
        let (code, told) = self.verb(person, &["status", "--json"]);
        assert_eq!(code, Some(0), "{told}");
        serde_json::from_str(&told).expect("JSON")
    }

    fn state(&self, person: &str) -> String {
        let status = self.status("");
        let actors = status["actors"].as_array().expect("actors");
        let name = format!("person.{person}");
        let found = actors.iter().find(|actor| actor["name"] == name.as_str());
        found.map_or("nobody", |actor| actor["state"].as_str().expect("a word")).to_owned()
    }
}

fn launch(run: &Path, sets: &[&str]) -> Launch {
    let launch = Launch::new("configs/people.toml", run).set("actors.sessions.settle_secs=0");
    sets.iter().fold(launch, |launch, set| launch.set(set))
}

fn said(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().expect("words").trim().to_owned()
}

fn is_loud(reply: &str) -> bool {
    reply.chars().any(char::is_alphabetic) && reply == reply.to_uppercase()
}

fn is_short(reply: &str) -> bool {
    reply.split_whitespace().count() <= 2
}

fn is_alive(pid: u64) -> bool {
    // A process that has ended and was not waited for is no more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn two_people_with_opposite_tastes_each_get_theirs_from_one_base() {
    let house = House::open(&["people.awake=2"]);
    let base = house.says("cyd").await;
    assert!(!is_loud(&base) && !is_short(&base), "{base}");
    let tastes: [(&str, &str, Kept); 2] =
        [("ada", "Please answer in capital letters.", is_loud), ("ben", "Just one word, please.", is_short)];
    for (person, wish, kept) in tastes {
        let mut in_a_row = 0;
        for round in 0..MOST_ROUNDS {
            let question = format!(
                "Sam has {} apples and buys {} more. How many apples are there?",
                7 + round % 9,
                2 + round % 5
            );
            let mut answer = house.ask(person, &question, 0.6).await;
            in_a_row = if kept(&said(&answer)) { in_a_row + 1 } else { 0 };
            if in_a_row >= 5 {
                answer = house.ask(person, QUESTION, 0.0).await;
                if kept(&said(&answer)) {
                    break;
                }
            }
            if !kept(&said(&answer)) {
                let rated = json!({"id": answer["id"], "rating": "down", "text": wish, "user": person});
                let taken = house.post("feedback", &rated).await;
                assert_eq!(taken.status(), 200, "{}", taken.text().await.unwrap_or_default());
            }
            assert!(round + 1 < MOST_ROUNDS, "{person} gave up: {}", said(&answer));
        }
    }
    let (ada, ben) = (house.says("ada").await, house.says("ben").await);
    assert!(is_loud(&ada) && !is_short(&ada), "{ada}");
    assert!(is_short(&ben) && !is_loud(&ben), "{ben}");
    // A third makes room, and is heard by neither.
    assert_eq!(house.says("cyd").await, base);
    let states = || ["ada", "ben", "cyd"].map(|person| house.state(person));
    assert_eq!(states(), ["stopped", "running", "running"]);
    // What lay on the disk is there again, and a way back leads for one alone.
    assert_eq!(house.says("ada").await, ada);
    let (code, told) = house.verb("ada", &["rollback", "0"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(eventually(async || !is_loud(&house.says("ada").await)).await.is_ok(), "rolled back");
    assert_eq!(house.says("ben").await, ben);
    // Each has a journal, and what is asked of all of them is asked of one.
    let (code, told) = house.verb("", &["versions"]);
    assert!(code == Some(5) && told.contains("--person"), "{told}");
    for (person, others) in [("ada", "Just one word"), ("ben", "capital letters")] {
        let out = house.run.join(format!("{person}.jsonl"));
        let (code, told) =
            house.verb(person, &["export", "messages", "--out", out.to_str().expect("it is text")]);
        assert_eq!(code, Some(0), "{told}");
        assert!(!std::fs::read_to_string(out).expect("it is written").contains(others), "{person}");
    }
    assert!(house.node.stop().success());
}

#[tokio::test]
async fn what_dies_of_one_person_comes_back_and_nothing_outlives_the_house() {
    let house = House::open(&[]);
    house.says("ada").await;
    house.says("ben").await;
    let pid = |person: &str| house.status(person)["pid"].as_u64().expect("a number");
    let (ada, ben) = (pid("ada"), pid("ben"));
    assert!(Command::new("kill").args(["-9", &ada.to_string()]).status().expect("kill is there").success());
    // Whoever asks meanwhile waits.
    house.says("ada").await;
    assert_ne!(pid("ada"), ada);
    assert_eq!(pid("ben"), ben);
    assert_eq!(house.status("ada")["sessions"], 2);
    let ada = pid("ada");
    let House { run, node, client, _dir } = house;
    node.kill();
    assert!(eventually(async || !is_alive(ada) && !is_alive(ben)).await.is_ok(), "they end with the house");
    // A house that is opened again knows them.
    let house = House { node: launch(&run, &[]).start(), run, client, _dir };
    assert_eq!(["ada", "ben"].map(|person| house.state(person)), ["stopped", "stopped"]);
    house.says("ada").await;
    assert_eq!(house.status("ada")["sessions"], 3);
    assert!(house.node.stop().success());
}

#[tokio::test]
async fn who_may_not_come_in_wakes_nobody() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let node = launch(
        &run,
        &["people.most=1", "people.adapter_by=header:X-Person", "actors.gateway.api_key_env=DOOR"],
    )
    .variable("DOOR", "secret")
    .start();
    let client = reqwest::Client::new();
    let ask = async |path: &str, key: &str, person: &str| {
        let body = json!({"model": "policy", "max_tokens": 4, "user": "ignored",
            "messages": [{"role": "user", "content": "hello"}]});
        let request = client.post(format!("{}/{path}", node.url)).bearer_auth(key).header("X-Person", person);
        let answer = request.json(&body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let people = || {
        let entries = std::fs::read_dir(run.join("people")).expect("it is there").flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    let (status, told) = ask("chat/completions", "guess", "ada").await;
    assert_eq!((status, told["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    assert_eq!(people(), 0);
    let page = client.post(format!("{}/chat/completions", node.url)).bearer_auth("secret").body("user=ada");
    assert_eq!(page.send().await.expect("an answer").status(), 415);
    assert_eq!(people(), 0);
    assert_eq!(ask("chat/completions", "secret", "ada").await.0, 200);
    let (status, told) = ask("chat/completions", "secret", "ben").await;
    assert_eq!((status, told["error"]["code"].as_str()), (403, Some("too_many_people")), "{told}");
    let (status, told) = ask("messages", "secret", "ben").await;
    assert_eq!((status, told["error"]["type"].as_str()), (403, Some("permission_error")), "{told}");
    assert_eq!(people(), 1);
    assert!(node.stop().success());
    // It is a house, and stays one.
    let plain =
        Launch::new("configs/personal-agent.toml", &run).try_start().expect_err("another kind of run");
    assert!(plain.contains("many people"), "{plain}");
    let other = dir.path().join("other");
    Launch::new("configs/personal-agent.toml", &other).start().stop();
    let house = launch(&other, &[]).try_start().expect_err("another kind of run");
    assert!(house.contains("one model for all"), "{house}");
}
