//! Episodes, looked at: in a terminal and in a browser, on a launched node.

use std::process::{Command, Output};

use openclaw_tests::{Browser, Launch, Node, binary, eventually};
use serde_json::{Value, json};

/// What a task says that would like to run a script in the operator's browser.
const MARKUP: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

struct House {
    _dir: tempfile::TempDir,
    run: std::path::PathBuf,
    node: Node,
}

impl House {
    /// An agent adds numbers: one group, and held-out tasks before and after it.
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        let agent = r#"[{environment="sums", group=3, groups=1, held_out=2, steps=3, max_new_tokens=48}]"#;
        let node = Launch::new("configs/quickstart.toml", &run)
            .set("actors.rollout=[]")
            .set(r#"method={kind="step_wise"}"#)
            .set(r#"environments.sums={kind="calculator"}"#)
            .set(&format!("actors.agent={agent}"))
            .start();
        let house = Self { _dir: dir, run, node };
        if eventually(async || {
            house.episodes().iter().filter(|one| one["state"]["ended"].is_object()).count() >= 7
        })
        .await
        .is_err()
        {
            panic!("{:?}\n{}", house.episodes(), house.node.log());
        }
        house
    }

    fn type_in(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        let output = command.args(words).env_remove("RUST_LOG").env("OPENCLAW_RUN", &self.run).output();
        output.expect("the binary can be run")
    }

    fn told(&self, words: &[&str]) -> String {
        let output = self.type_in(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn episodes(&self) -> Vec<Value> {
        let told = self.told(&["episodes", "list", "--json", "--environment", "sums"]);
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// In the run's folder: how an episode came out, and its trajectory.
    async fn keeps(&self, id: &str) {
        let folder = self.run.join("episodes").join(id);
        let read = |path: std::path::PathBuf| -> Option<Value> {
            serde_json::from_slice(&std::fs::read(path).ok()?).ok()
        };
        let trajectory = || {
            let files = std::fs::read_dir(&folder).ok()?.flatten();
            files.filter_map(|file| read(file.path())).find(|file| file["schema_version"].is_string())
        };
        if eventually(async || trajectory().is_some()).await.is_err() {
            panic!("{id} has no trajectory\n{}", self.node.log());
        }
        let told = read(folder.join("outcome.json")).expect("it is there before");
        let steps = trajectory().expect("it was there");
        let episode = &steps["final_metrics"]["extra"]["episodes"][0];
        assert_eq!(episode["reward"], told["outcome"]["reward"], "{steps}");
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = reqwest::Client::new().post(format!("{}{path}", self.node.url)).json(&body);
        let answer = request.header("x-session-id", "outside").send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    /// An agent outside, in an environment of its own: two steps, the second after a long result of a tool.
    async fn act_outside(&self) {
        let begin = json!({"session_id": "outside", "environment": "shell", "task": MARKUP, "group": "g", "group_size": 1});
        self.post("/episodes/begin", begin).await;
        let said = |role: &str, content: &str| json!({"role": role, "content": content});
        let mut messages = vec![said("user", "Count the lines of a.txt.")];
        let body = |messages: &[Value]| json!({"model": "policy", "max_tokens": 24, "messages": messages});
        let answer = self.post("/chat/completions", body(&messages)).await;
        messages.push(said("assistant", answer["choices"][0]["message"]["content"].as_str().expect("text")));
        let listing: Vec<String> = (0..60).map(|line| format!("{line} {MARKUP}")).collect();
        messages.push(said("user", &listing.join("\n")));
        self.post("/chat/completions", body(&messages)).await;
        let end = json!({"session_id": "outside", "reward": -1, "success": false, "numbers": {"tests": 3}});
        self.post("/episodes/end", end).await;
    }
}

#[tokio::test]
async fn a_person_sees_what_agents_did_and_has_it_done_again() {
    let house = House::open().await;
    let episodes = house.episodes();
    for episode in &episodes {
        house.keeps(episode["id"].as_str().expect("text")).await;
    }
    let success = house.told(&["episodes", "success"]);
    assert!(success.contains("held-out") && success.contains("train"), "{success}");
    for episode in &episodes {
        let id = episode["id"].as_str().expect("text");
        let told = house.told(&["episodes", "replay", id]);
        assert!(!told.contains("OTHERWISE") && told.contains("recorded  "), "{told}");
    }
    // A world that answers otherwise is told, and so is one that makes other tasks.
    let text = std::fs::read_to_string(house.run.join("topology.toml")).expect("it is written");
    let other = house.run.join("other.toml");
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&other, text.replace(from, to)).expect("it can be written");
    };
    change("kind = \"calculator\"", "kind = \"calculator\"\nnumbers = 4");
    let (id, path) = (episodes[0]["id"].as_str().expect("text"), other.to_str().expect("text"));
    let output = house.type_in(&["episodes", "replay", id, "--config", path]);
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && told.contains("otherwise than it was"), "{told}");

    house.act_outside().await;
    let outside = house.told(&["episodes", "list", "--json", "--environment", "shell"]);
    let outside: Value = serde_json::from_str(&outside).expect("one");
    let outside = outside["id"].as_str().expect("text");
    let output = house.type_in(&["episodes", "replay", outside]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("agent outside"));

    let Some(browser) = Browser::start().await else { return };
    let link = house.told(&["page"]);
    browser.go(&link).await;
    browser.until("document.querySelectorAll('tbody tr').length > 3").await;
    let shows = async |view: &str, ready: &str| {
        browser.value(&format!("void (location.hash = '#/{view}')")).await;
        let name = view.split('?').next().unwrap_or_default();
        browser
            .until(&format!("location.hash.startsWith('#/{name}') && !document.querySelector('[aria-busy]')"))
            .await;
        browser.until(ready).await;
    };
    let story = format!("episode?id={outside}");
    let own = format!("episode?id={id}");
    for (width, scheme) in [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")] {
        browser.resize(width, 900).await;
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.tool("Emulation.setEmulatedMedia", feature).await;
        for (view, ready) in [
            ("episodes", "document.querySelectorAll('tbody tr').length > 7"),
            (&*story, "document.querySelectorAll('article').length === 2"),
            (&*own, "document.querySelector('article')"),
        ] {
            shows(view, ready).await;
            let wide = browser.value("document.documentElement.scrollWidth").await;
            assert!(wide.as_u64() <= Some(width.into()), "{view} is {wide} pixels wide");
            let name = if view == story { "outside" } else { view.split('?').next().unwrap_or_default() };
            browser.picture(&format!("{name}-{width}-{scheme}")).await;
        }
    }
    browser.resize(1400, 900).await;
    shows(&story, "document.querySelectorAll('article').length === 2").await;
    let text = browser.value("document.querySelector('#main').textContent").await;
    let text = text.as_str().expect("text");
    assert!(text.contains(MARKUP) && text.contains("not done") && text.contains("tests"), "{text}");
    assert_eq!(browser.value("document.querySelectorAll('main script, main img').length").await, 0);
    assert_ne!(browser.value("document.title").await, "owned");
    assert_eq!(browser.value("document.querySelector('article details').open").await, false);
    browser.click("article details summary").await;
    browser.until("document.querySelector('article details').textContent.includes('59 <script>')").await;
    // To the turn, and back by its session.
    browser.click("article [data-key$='-turn']").await;
    browser.until("location.hash.startsWith('#/session') && document.querySelector('article h3')").await;
    browser.click(&format!("[data-key='episode-{outside}']")).await;
    browser
        .until("location.hash.startsWith('#/episode?') && document.querySelectorAll('article').length === 2")
        .await;
    let trouble: Vec<String> =
        browser.console().await.into_iter().filter(|line| line.contains("SEVERE")).collect();
    assert!(trouble.is_empty(), "{trouble:?}");
}
