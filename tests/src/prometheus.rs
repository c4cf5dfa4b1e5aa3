//! A real Prometheus beside a node, with the rules that we ship.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::dashboard;

/// Prometheus as a process. Killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    url: String,
    client: reqwest::Client,
}

/// Whether `prometheus` and `promtool` can be run. Says so when they cannot; panics then when everything is required.
pub fn has_prometheus() -> bool {
    let runs =
        |tool| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    let here = runs("prometheus") && runs("promtool");
    if !here {
        let missing = "prometheus and promtool are not installed (Debian: apt-get install prometheus)";
        assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{missing}");
        eprintln!("skipped: {missing}");
    }
    here
}

/// What promtool says, given `input`.
pub fn promtool(arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(dashboard::folder().join("prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A promtool that reads nothing may have ended by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

impl Prometheus {
    /// Scrapes `target` every second, into `dir`, with the shipped configuration but for the address and the pace.
    pub fn start(target: &str, dir: &Path) -> Self {
        let shipped = dashboard::folder().join("prometheus");
        let mut config = std::fs::read_to_string(shipped.join("prometheus.yml")).expect("it is shipped");
        for (from, to) in [
            ("127.0.0.1:9300", target),
            ("scrape_interval: 2s", "scrape_interval: 1s"),
            ("evaluation_interval: 5s", "evaluation_interval: 1s"),
        ] {
            assert!(config.contains(from), "{from} is not in prometheus.yml");
            config = config.replace(from, to);
        }
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).expect("the folder can be written");
        std::fs::copy(shipped.join("rules.yml"), dir.join("rules.yml")).expect("it is shipped");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("prometheus can be run");
        let mut lines =
            BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            said.push(line);
            let listens = entry["msg"] == "Listening on";
            listens.then(|| entry["address"].as_str().expect("an address").to_owned())
        });
        let address = address.unwrap_or_else(|| panic!("it ended before it listened:\n{}", said.join("\n")));
        // Read to the end, so that the process never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}"), client: reqwest::Client::new() }
    }

    /// What it answers now, or over the last two minutes: the number of series with a value that is one.
    pub async fn answers(&self, promql: &str, instant: bool) -> Result<usize, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let range = [("start", now - 120.0), ("end", now), ("step", 1.0)].map(|(k, v)| (k, v.to_string()));
        let mut form = vec![("query", promql.to_owned())];
        let route = if instant { "query" } else { "query_range" };
        if !instant {
            form.extend(range);
        }
        let pairs: Vec<(&str, &str)> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{route}", self.url), pairs)
            .map_err(|error| error.to_string())?;
        let response = self.client.get(url).send().await.map_err(|error| error.to_string())?;
        let body: Value = response.json().await.map_err(|error| error.to_string())?;
        if body["status"] != "success" {
            return Err(format!("{}: {}", body["errorType"], body["error"]));
        }
        let is_number = |pair: &Value| pair[1].as_str().is_some_and(|value| value != "NaN");
        let has_number = |series: &&Value| {
            is_number(&series["value"])
                || series["values"].as_array().is_some_and(|v| v.iter().any(is_number))
        };
        Ok(body["data"]["result"].as_array().into_iter().flatten().filter(has_number).count())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
