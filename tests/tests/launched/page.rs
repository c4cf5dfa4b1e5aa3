//! The page in a browser, on a launched node: what a person sees, clicks and types.

use std::process::Command;

use openclaw_tests::{Browser, Launch, Node, binary, eventually};
use serde_json::{Value, json};

/// What somebody says who would like to run a script in the operator's browser.
const MARKUP: &str =
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><b>hi</b>";
/// The width of a small telephone, in CSS pixels.
const NARROW: u32 = 360;

struct House {
    _dir: tempfile::TempDir,
    run: std::path::PathBuf,
    node: Node,
    http: reqwest::Client,
}

impl House {
    /// Three simulated users have talked, and the policy has learnt from it twice.
    async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        let launch = Launch::new("configs/quickstart.toml", &run).set("actors.optimizer.batch_samples=8");
        let house = Self { _dir: dir, node: launch.start(), run, http: reqwest::Client::new() };
        if eventually(async || house.version() >= 2).await.is_err() {
            panic!("nothing is learnt\n{}", house.node.log());
        }
        house
    }

    fn type_in(&self, words: &[&str]) -> String {
        let mut command = Command::new(binary());
        let output = command.args(words).env_remove("RUST_LOG").env("OPENCLAW_RUN", &self.run).output();
        let output = output.expect("the binary can be run");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn version(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.type_in(&["status", "--json"])).expect("JSON");
        status["version"].as_u64().expect("a number")
    }

    /// What the page is told.
    async fn told(&self, path: &str, (url, token): (&str, &str)) -> Value {
        let request = self.http.get(format!("{url}{path}")).bearer_auth(token);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Says it to the policy, in a session of this name.
    async fn say(&self, session: &str, words: &str) {
        let body =
            json!({"model": "policy", "max_tokens": 16, "messages": [{"role": "user", "content": words}]});
        let request = self.http.post(format!("{}/chat/completions", self.node.url));
        let answer = request.header("x-session-id", session).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }

    /// A session in which a teacher was shown a hint.
    async fn taught_session(&self, door: (&str, &str)) -> String {
        let sessions = self.told("page/sessions?limit=100", door).await;
        for session in sessions["sessions"].as_array().expect("sessions") {
            let name = session["session"].as_str().expect("a name");
            let story = self.told(&format!("page/session?id={name}"), door).await;
            let turns = story["turns"].as_array().expect("turns");
            if turns.iter().any(|turn| turn["tokens"]["teacher"].is_object()) {
                return name.to_owned();
            }
        }
        panic!("no hint was found: {sessions}");
    }
}

#[tokio::test]
async fn a_person_sees_what_was_learnt_and_takes_it_back() {
    let Some(browser) = Browser::start().await else { return };
    let house = House::open().await;
    let link = house.type_in(&["page"]);
    let (url, token) = link.split_once("#token=").expect("the link is a key");
    let door = (url, token);
    let shows = async |view: &str, ready: &str| {
        browser.value(&format!("void (location.hash = '#/{view}')")).await;
        let name = view.split('?').next().unwrap_or_default();
        browser
            .until(&format!("location.hash.startsWith('#/{name}') && !document.querySelector('[aria-busy]')"))
            .await;
        browser.until(ready).await;
    };

    // Without the token there is a form; with a wrong one, too.
    browser.go(url).await;
    browser.until("document.activeElement?.id === 'token'").await;
    browser.picture("login").await;
    assert_eq!(browser.value("document.querySelectorAll('table, article').length").await, 0);
    browser.type_into("#token", "wrong").await;
    browser.click("form button").await;
    browser.until("document.querySelector('#trouble').textContent.includes('not this run')").await;
    browser.type_into("#token", token).await;
    browser.click("form button").await;
    browser.until("document.querySelectorAll('tbody tr').length > 3").await;
    browser.click("#leave").await;
    browser.until("document.querySelector('#token') && !sessionStorage.length").await;
    // The link signs in, and its key stays in no address.
    browser.go("about:blank").await;
    browser.go(&link).await;
    browser.until("document.querySelectorAll('tbody tr').length > 3").await;
    assert_eq!(browser.value("location.href.includes('token')").await, false);

    // No batch takes what is looked at below.
    house.type_in(&["pause", "optimizer"]);
    // Whatever is said stays text, and arrives without a click.
    house.say("mischief", MARKUP).await;
    browser
        .until("document.querySelector('tbody').textContent.includes(\"<script>document.title='owned'\")")
        .await;
    browser.picture("overview").await;
    assert_eq!(browser.value("location.hash").await, "#/overview", "it opens on the answer");
    browser.until("document.querySelector('h1').textContent.length > 10").await;
    browser.until("document.querySelector('.own').textContent.includes('You have rated no reply')").await;
    shows("sessions", "document.querySelectorAll('tbody tr').length > 3").await;
    browser.picture("sessions").await;
    shows("session?id=mischief", "document.querySelector('article .said')").await;
    let said = browser.value("document.querySelector('article .said').textContent").await;
    assert!(said.as_str().expect("text").contains(MARKUP), "{said}");
    assert_eq!(browser.value("document.querySelectorAll('main script, main img, main b b').length").await, 0);
    assert_ne!(browser.value("document.title").await, "owned");

    // A person's word: by keyboard and by click, once each, and the audit tells of it.
    let said = |sign: &str| {
        format!("document.querySelector('article [role=status]').textContent.includes('{sign}')")
    };
    browser.type_into("article .actions button", "\u{e007}").await;
    browser.until(&said("Rated good: that is what followed")).await;
    browser
        .until("document.querySelector('article .actions button').getAttribute('aria-pressed') === 'true'")
        .await;
    browser.until("document.activeElement.dataset.key?.endsWith('-good')").await;
    browser.click("article section details summary").await;
    browser.type_into("article textarea", MARKUP).await;
    browser.click("article .hint button").await;
    browser.until(&said("Hint corrected")).await;
    browser.until("document.querySelector('article').textContent.includes('a person\u{2019}s words')").await;
    assert_ne!(browser.value("document.title").await, "owned");
    browser.picture("word").await;
    browser.click("article .actions button:last-child").await;
    browser.until(&said("Dropped: nothing is learnt")).await;
    browser.until("document.querySelector('article .badge').textContent === 'dropped'").await;
    browser.until("document.querySelector('article .actions').hidden").await;
    let audit = house.type_in(&["audit", "--json"]);
    for verb in ["turn/rate", "turn/hint", "turn/drop"] {
        assert!(audit.contains(verb), "{verb}: {audit}");
    }
    assert!(!audit.contains("owned"), "nothing of a conversation is in the audit: {audit}");

    // A reply under the teacher's eyes: a token says its numbers to the pointer and to the keyboard.
    let session = house.taught_session(door).await;
    shows(&format!("session?id={session}"), "document.querySelector('.heatmap .token')").await;
    for heading in ["Asked", "Reply", "What followed", "Judge", "Hint", "What became of it"] {
        let found = format!(
            "[...document.querySelectorAll('article h3')].some((h) => h.textContent === '{heading}')"
        );
        assert_eq!(browser.value(&found).await, true, "{heading}");
    }
    let reply = browser.value("document.querySelectorAll('.heatmap .token').length").await;
    assert!(reply.as_u64() > Some(2), "{reply}");
    assert!(
        browser
            .value("document.querySelectorAll('.heatmap [class*=shade-]:not(.shade-0)').length")
            .await
            .as_u64()
            > Some(0)
    );
    browser.type_into(".heatmap .token", "\u{e014}").await;
    browser.until("document.activeElement.dataset.place === '1'").await;
    let told = browser
        .value("document.activeElement.closest('section').querySelector('.readout').textContent")
        .await;
    let told = told.as_str().expect("text");
    assert!(told.contains("gap ") && told.contains("teacher ") && told.contains("student "), "{told}");
    browser.picture("session").await;

    shows("learning", "document.querySelectorAll('svg .line').length === 3").await;
    browser.picture("learning").await;

    // Back to version 1, after a second thought.
    let undone = || house.type_in(&["audit", "--json"]).contains("rollback");
    let button = "[aria-label='Roll back to version 1']";
    shows("versions", &format!("document.querySelector(\"{button}\")")).await;
    browser.picture("versions").await;
    browser.click(button).await;
    browser.until("document.querySelector('dialog[open]')").await;
    browser.picture("rollback").await;
    browser.click("dialog .buttons button:not(.primary)").await;
    browser.until("!document.querySelector('dialog')").await;
    assert!(!undone(), "nothing is done before it is confirmed");
    browser.click(button).await;
    browser.click("dialog .primary").await;
    browser.until("document.querySelector('[role=status]').textContent.includes('to 1')").await;
    assert!(undone(), "the audit tells of it");

    shows("compare", "document.querySelector('#new option')").await;
    let asked = browser.value("document.querySelector('#prompt').value").await;
    assert!(
        asked.as_str().is_some_and(|asked| asked.len() > 5),
        "the last question is there already: {asked}"
    );
    browser.click("form .primary").await;
    browser.until("document.querySelectorAll('.replies article').length === 2").await;
    browser.picture("compare").await;

    // On a telephone nothing has to be dragged sideways.
    browser.resize(NARROW, 740).await;
    for (view, ready) in [
        ("overview", "document.querySelector('figure svg')"),
        ("sessions", "document.querySelector('tbody')"),
        (&*format!("session?id={session}"), "document.querySelector('.heatmap')"),
        ("learning", "document.querySelector('svg')"),
        ("versions", "document.querySelector('tbody')"),
        ("compare", "document.querySelector('#new option')"),
    ] {
        shows(view, ready).await;
        let wide = browser.value("document.documentElement.scrollWidth").await;
        assert!(wide.as_u64() <= Some(NARROW.into()), "{view} is {wide} pixels wide");
        browser.picture(&format!("narrow-{}", view.split('?').next().unwrap_or_default())).await;
    }

    // An actor that does not come back says what to type, and can be brought back from here.
    browser.resize(1000, 740).await;
    let is_down = || house.type_in(&["status", "--json"]).contains("\"failed\"");
    let killed = eventually(async || {
        house.type_in(&["kill", "judge.0"]);
        is_down()
    });
    killed.await.expect("it stays down");
    browser
        .until("document.querySelector('#needs code')?.textContent === 'openclaw-rl restart judge.0'")
        .await;
    browser.picture("failed").await;
    browser.click("#needs .primary").await;
    browser.until("document.querySelector('#needs').hidden").await;
    assert!(!is_down());

    // Nobody else was asked, and nothing was tried that the policy forbids.
    let asked = browser.value("performance.getEntriesByType('resource').map((one) => one.name)").await;
    let asked = asked.as_array().expect("addresses");
    assert!(
        asked.len() > 10 && asked.iter().all(|one| one.as_str().is_some_and(|one| one.starts_with(url))),
        "{asked:?}"
    );
    let console = browser.console().await;
    let trouble: Vec<_> = console.iter().filter(|line| !line.contains("401")).collect();
    assert!(trouble.is_empty(), "{trouble:?}");

    // A run that ended says so, without alarms of before.
    house.type_in(&["stop"]);
    browser.until("document.querySelector('#trouble').textContent.includes('last seen')").await;
    browser.until("document.querySelector('#needs').hidden").await;
    browser.until("document.querySelector('#status').textContent === 'not running'").await;
    browser.picture("ended").await;
}
