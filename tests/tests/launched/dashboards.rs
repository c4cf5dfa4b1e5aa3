//! The dashboards and rules ask for what the code exports, and a live Prometheus answers every panel.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_runtime::telemetry::{Kind, METRICS};
use openclaw_tests::{
    Launch, Prometheus,
    dashboard::{self, Dashboard, Expression, series_names},
    eventually, has_prometheus, promtool,
};
use serde_json::Value;

/// More would be a label that is not bounded.
const MOST_SERIES: usize = 2000;

fn shipped(path: &str) -> String {
    std::fs::read_to_string(dashboard::folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows `key` in each line of a YAML file.
fn values<'a>(yaml: &'a str, key: &str) -> BTreeSet<&'a str> {
    yaml.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect()
}

/// Whether the code exports a series of this name.
fn is_exported(name: &str) -> bool {
    METRICS.iter().any(|metric| match metric.kind {
        Kind::Histogram(_) => {
            let suffix = name.strip_prefix(metric.name);
            matches!(suffix, Some("_bucket" | "_sum" | "_count"))
        }
        Kind::Counter | Kind::Gauge => name == metric.name,
    })
}

#[test]
fn dashboards_are_whole() {
    let all = Dashboard::all();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["agents", "overview", "rollouts", "serving", "supervision", "training"]);
    for (name, board) in &all {
        assert_eq!(board.uid, format!("openclaw-{name}"), "links lead to it by this name");
        assert_eq!(board.schema_version, 42, "{name}");
        assert_eq!(board.templating["list"][0]["name"], "datasource", "{name}");
        assert_eq!(board.panels[0].r#type, "row", "{name} begins with what matters most");
        assert!(board.panels[0].title.starts_with("Is it "), "{name}: {}", board.panels[0].title);
        let ids: BTreeSet<u32> = board.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), board.panels.len(), "{name}: an id names one panel");
        for panel in board.shown() {
            let at = format!("{name}: {}", panel.title);
            assert!(
                panel.description.len() > 10 && panel.description.ends_with(['.', '`']),
                "{at} explains itself"
            );
            assert!(panel.field_config["defaults"]["unit"].is_string(), "{at} has no unit");
            assert_eq!(panel.datasource["uid"], "${datasource}", "{at}");
            assert!(!panel.targets.is_empty(), "{at} asks nothing");
            let letters: BTreeSet<&str> = panel.targets.iter().map(|target| target.ref_id.as_str()).collect();
            assert_eq!(letters.len(), panel.targets.len(), "{at}");
            assert!(panel.grid_pos.x + panel.grid_pos.w <= 24, "{at} does not fit");
        }
        for (i, panel) in board.panels.iter().enumerate() {
            let overlap = board.panels[i + 1..].iter().find(|other| {
                let (a, b) = (panel.grid_pos, other.grid_pos);
                a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
            });
            assert!(
                overlap.is_none(),
                "{name}: {} lies on {:?}",
                panel.title,
                overlap.map(|panel| &panel.title)
            );
        }
    }
}

#[test]
fn grafanas_own_schema_takes_every_dashboard_and_refuses_a_mistyped_key() {
    let mut compiler = boon::Compiler::new();
    let text = include_str!("../../data/grafana-dashboard.schema.json");
    let schema = serde_json::from_str(text).expect("the schema is JSON");
    compiler.add_resource("grafana.json", schema).expect("it can be added");
    let mut schemas = boon::Schemas::new();
    let classic = compiler.compile("grafana.json", &mut schemas).expect("it is a schema");
    for (name, _) in Dashboard::all() {
        let mut board: Value =
            serde_json::from_str(&shipped(&format!("grafana/{name}.json"))).expect("it is JSON");
        for mark in board["annotations"]["list"].as_array_mut().expect("a list") {
            // The schema knows the marks of Grafana itself alone; these keys are the Prometheus data source's.
            mark.as_object_mut()
                .expect("an object")
                .retain(|key, _| !["expr", "titleFormat"].contains(&&**key));
        }
        schemas.validate(&board, classic).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        board["panles"] = board["panels"].clone();
        assert!(schemas.validate(&board, classic).is_err(), "{name}");
    }
}

#[test]
fn every_series_that_dashboards_and_rules_ask_for_is_one_that_the_code_describes() {
    let rules = shipped("prometheus/rules.yml");
    let recorded: BTreeSet<String> = values(&rules, "record:").into_iter().map(str::to_owned).collect();
    let mut asked: Vec<(String, String)> =
        series_names(&rules).into_iter().map(|name| ("rules.yml".to_owned(), name)).collect();
    for (name, board) in Dashboard::all() {
        for expression in board.expressions(&name) {
            let names = series_names(&expression.promql);
            asked.extend(names.into_iter().map(|name| (expression.place.clone(), name)));
        }
    }
    assert!(asked.len() > 100, "the search found {}", asked.len());
    for (place, name) in &asked {
        let known = match name.as_str() {
            // Of other crates; the live Prometheus knows whether they are there.
            name if name.starts_with("process_") || name.starts_with("scrape_") => true,
            name if name.starts_with("openclaw:") => recorded.contains(name),
            name => is_exported(name),
        };
        assert!(known, "{place}: nobody exports {name}");
    }
    for name in recorded {
        let readers = asked.iter().filter(|(place, asked)| place != "rules.yml" && *asked == name).count();
        assert!(readers > 0, "no panel reads {name}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_has_a_test() {
    let (rules, tests) = (shipped("prometheus/rules.yml"), shipped("prometheus/rules_test.yml"));
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() > 10, "the search found {alerts:?}");
    assert_eq!(rules.matches("description:").count(), alerts.len());
    assert_eq!(rules.matches("summary:").count(), alerts.len());
    assert_eq!(rules.matches("severity:").count(), alerts.len());
    for alert in alerts {
        assert!(
            tests.contains(&format!("alertname=\"{alert}\", alertstate=\"firing\"")),
            "{alert} has no test"
        );
    }
    for record in values(&rules, "record:") {
        assert!(tests.contains(record), "{record} has no test");
    }
}

#[test]
fn prometheus_takes_the_configuration_and_the_rules_do_what_their_tests_say() {
    if !has_prometheus() {
        return;
    }
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ] {
        let said = promtool(&arguments, "");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

#[tokio::test]
async fn a_live_prometheus_answers_every_panel_of_a_learning_node() {
    if !has_prometheus() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder can be made");
    // Three votes, so that there are hints to choose from; small batches, so that versions come soon; and steps so
    // small that the users are never satisfied and go on talking.
    let users = r#"[{environment="users", workers=3, max_sessions=100000}]"#;
    // And an agent whose outcomes come as fast.
    let agents = r#"[{environment="sums", concurrency=2, group=2, held_out=2, held_out_every=1, steps=2, max_new_tokens=32}]"#;
    let node = Launch::new("configs/quickstart.toml", &dir.path().join("run"))
        .set(r#"environments.sums={kind="calculator"}"#)
        .set(&format!("actors.agent={agents}"))
        .set("actors.judge.votes=3")
        .set("actors.optimizer.batch_samples=4")
        .set("optimizer.learning_rate=1e-9")
        .set(&format!("actors.rollout={users}"))
        .start();
    let prometheus = Prometheus::start(&node.metrics(), dir.path());

    let page = async || {
        let page = reqwest::get(format!("http://{}/metrics", node.metrics())).await.expect("it is served");
        page.text().await.expect("metrics are text")
    };
    let expressions: Vec<Expression> =
        Dashboard::all().iter().flat_map(|(name, board)| board.expressions(name)).collect();
    let mut problems: BTreeMap<usize, String> =
        (0..expressions.len()).map(|i| (i, "not asked".to_owned())).collect();
    // Twice the usual patience: some panels look back a minute.
    for _ in 0..2 {
        let answered = async || {
            for (i, Expression { place, promql, instant }) in expressions.iter().enumerate() {
                if !problems.contains_key(&i) {
                    continue;
                }
                let promql = promql.replace("$__rate_interval", "15s");
                match prometheus.answers(&promql, *instant).await {
                    Ok(1..) => drop(problems.remove(&i)),
                    Ok(0) => drop(problems.insert(i, format!("{place}: no data for {promql}"))),
                    Err(error) => drop(problems.insert(i, format!("{place}: {error} in {promql}"))),
                }
            }
            problems.is_empty()
        };
        if eventually(answered).await.is_ok() {
            break;
        }
    }
    let problems: Vec<String> = problems.into_values().collect();
    assert!(problems.is_empty(), "{}\n{}", problems.join("\n"), node.log());

    let page = page().await;
    let series = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert!(series < MOST_SERIES, "{series} series");
    let lint = promtool(&["check", "metrics"], &page);
    let said = [lint.stdout, lint.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(lint.status.success() && said.is_empty(), "promlint: {said}");
}
