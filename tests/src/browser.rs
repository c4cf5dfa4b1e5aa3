//! A headless Chromium, driven through ChromeDriver's plain HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::eventually;

/// Keeps Chromium from asking anyone but whom it is told to.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];
/// The key that a client of WebDriver types for an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A browser that starts on a busy machine takes its time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);

/// A browser with one tab. Ends when dropped.
pub struct Browser {
    driver: Child,
    http: reqwest::Client,
    address: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one. `None` where this machine has no Chromium, and that may be so; panics where it must have one.
    pub async fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut driver) = command.spawn() else {
            let required = std::env::var_os("OPENCLAW_REQUIRE_ALL").is_some();
            assert!(!required, "chromedriver is missing (apt-get install chromium chromium-driver)");
            eprintln!("skipped: chromedriver is missing (apt-get install chromium chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        // Read to the end, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let address = format!("127.0.0.1:{}", port.expect("it says its port"));
        let base = format!("http://{address}");
        let profile = tempfile::tempdir().expect("a folder can be made");
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let http = reqwest::Client::builder().timeout(ANSWER_DEADLINE).build().expect("a client");
        let mut browser =
            Self { driver, http, session: format!("{base}/session"), address, _profile: profile };
        let opened = browser.ask("", Some(capabilities)).await;
        browser.session = format!("{base}/session/{}", opened["sessionId"].as_str().expect("an id"));
        // A tab that is not in front hears of no focus.
        browser.tool("Emulation.setFocusEmulationEnabled", json!({"enabled": true})).await;
        Some(browser)
    }

    /// One command of WebDriver; panics with what it said when it was not done.
    async fn ask(&self, command: &str, body: Option<Value>) -> Value {
        let url = format!("{}{command}", self.session);
        let request = match &body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.send().await.expect("chromedriver answers").text().await.expect("text");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{command}: {} {}", value["error"], value["message"]);
        value
    }

    /// One command of the developer tools.
    pub async fn tool(&self, command: &str, parameters: Value) -> Value {
        self.ask("/goog/cdp/execute", Some(json!({"cmd": command, "params": parameters}))).await
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        self.ask("/url", Some(json!({"url": url}))).await;
    }

    /// What an expression of JavaScript is worth there.
    pub async fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.ask("/execute/sync", Some(json!({"script": script, "args": []}))).await
    }

    /// Waits until an expression is true; panics with the page's text when it never is.
    pub async fn until(&self, expression: &str) {
        let holds = async || self.value(&format!("!!({expression})")).await == Value::Bool(true);
        if eventually(holds).await.is_err() {
            panic!("never: {expression}\n{}", self.value("document.body.innerText").await);
        }
    }

    async fn find(&self, selector: &str) -> String {
        let found = self.ask("/element", Some(json!({"using": "css selector", "value": selector}))).await;
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Clicks as a person would: on what is seen.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.ask(&format!("/element/{element}/click"), Some(json!({}))).await;
    }

    /// Types into an element, or presses keys on it.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.ask(&format!("/element/{element}/value"), Some(json!({"text": text}))).await;
    }

    /// How large the window is, in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.tool("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What the console said since it was asked last.
    pub async fn console(&self) -> Vec<String> {
        let lines = self.ask("/se/log", Some(json!({"type": "browser"}))).await;
        let lines = lines.as_array().cloned().unwrap_or_default();
        lines.iter().map(|line| format!("{} {}", line["level"], line["message"])).collect()
    }

    /// Writes what is seen, as a PNG, into the folder that `OPENCLAW_SCREENSHOTS` names, if it names one.
    pub async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("OPENCLAW_SCREENSHOTS") else { return };
        let shot = self.tool("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        let path = Path::new(&folder).join(format!("{name}.png"));
        let file = std::fs::File::create(path).expect("it can be made");
        let mut decode = Command::new("base64");
        let mut decode =
            decode.arg("-d").stdin(Stdio::piped()).stdout(file).spawn().expect("base64 is there");
        let text = shot["data"].as_str().expect("a picture");
        let mut stdin = decode.stdin.take().expect("it is piped");
        stdin.write_all(text.as_bytes()).expect("it is taken");
        drop(stdin);
        decode.wait().expect("it ends");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that is killed would leave its browser behind. Errors mean that they have ended already.
        let ended = || -> std::io::Result<()> {
            let mut driver = TcpStream::connect(&self.address)?;
            driver.set_read_timeout(Some(ANSWER_DEADLINE))?;
            let path = self.session.split_once(&self.address).map_or("", |(_, path)| path);
            write!(driver, "DELETE {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address)?;
            // It answers when the browser has ended, and keeps the connection open.
            driver.read(&mut [0; 64]).map(drop)
        };
        let _ = ended();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
