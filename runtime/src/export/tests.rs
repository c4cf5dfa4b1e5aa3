use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_actors::{conversation, journal::JournalActor};
use openclaw_journal::{Journal, JournalConfig, Record, Recorded, Retention, StepCommit, TurnMark, *};
use openclaw_model::{FinishReason, StepReport, exact_json};
use ractor::Actor;
use serde_json::{Map, Value, json};

use super::{messages::Each, sessions::Kind, *};

/// A run with a journal that is being written.
struct Run {
    dir: tempfile::TempDir,
    journal: Journal,
}

fn said(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

/// A turn of session `s`: a request that ends in `asked`, behind `before`.
fn turn(id: &str, before: &[Value], asked: &[Value], text: &str) -> Turn {
    Turn {
        id: TurnId(id.into()),
        session: SessionId("s".into()),
        index: 1,
        kind: TurnKind::Main,
        trainable: true,
        messages: Arc::new([before, asked].concat()),
        tools: Arc::default(),
        template_kwargs: Arc::new(Map::new()),
        completion: Completion {
            prompt_ids: vec![1, 70_000],
            response_ids: vec![7, 2],
            rollout_logprobs: vec![-0.5, f32::NEG_INFINITY],
            policy_logprobs: None,
            policy_version: 3,
            temperature: 0.75,
            finish_reason: FinishReason::Stop,
            text: text.to_owned(),
            split: Default::default(),
        },
    }
}

/// The history behind a turn, as its client tells it.
fn answered(turn: &Turn) -> Vec<Value> {
    let mut history = turn.messages.to_vec();
    history.push(conversation::reply(turn));
    history
}

impl Run {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { dir: dir.path().join("run"), retention: Retention::default() };
        let journal = Journal::open(config).unwrap();
        Actor::spawn(None, JournalActor, journal.clone()).await.unwrap();
        Self { dir, journal }
    }

    async fn record(&self, record: Record) {
        assert_eq!(self.journal.record(record).await.unwrap(), Recorded::Done);
    }

    async fn complete(&self, turns: impl IntoIterator<Item = Turn>) {
        for turn in turns {
            self.record(Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark::default() }).await;
        }
    }

    async fn judge(&self, id: &str, reward: i8) {
        let turn = || TurnId(id.into());
        let next_state = NextState {
            kind: NextStateKind::User,
            text: "no bold, please".to_owned(),
            rating: None,
            is_error: false,
            by_rule: None,
            screen: None,
        };
        self.record(Record::NextStateSeen { turn: turn(), next_state, provisional: false }).await;
        self.record(Record::Judged {
            turn: turn(),
            undone: 0,
            verdict: Verdict { reward: Some(reward), votes: vec![Some(reward), None], rule: None },
            answers: vec![Some("it complains".to_owned()), None],
            hints: vec!["Use no bold text.".to_owned()],
            hint_answers: Vec::new(),
            teach: false,
            wish: None,
        })
        .await;
    }

    async fn learn(&self, step: u64, ids: &[&str], report: StepReport) {
        let turns: Vec<TurnId> = ids.iter().map(|id| TurnId((*id).into())).collect();
        self.record(Record::BatchLeased { step, turns: turns.clone() }).await;
        self.record(Record::StepCompleted(StepCommit {
            step,
            version: step + 4,
            base: step + 3,
            batch: turns.len() as u64,
            turns,
            report,
            fingerprint: "print".to_owned(),
            checkpoint: true,
        }))
        .await;
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reader(&self) -> JournalReader {
        open(&self.dir.path().join("run")).unwrap()
    }

    /// The trajectories, by their files; times are left out.
    fn atif(&self, name: &str, picks: &Picks) -> (Vec<(String, Value)>, Counts) {
        let mut progress = Progress::new();
        let (run, out) = (self.dir.path().join("run"), self.out(name));
        atif::export(&self.reader(), &run, picks, &out, false, &mut progress).unwrap();
        let mut files: Vec<_> = fs::read_dir(&out)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), read_json(&path)))
            .collect();
        files.sort_by(|one, other| one.0.cmp(&other.0));
        for step in files.iter_mut().flat_map(|(_, file)| file["steps"].as_array_mut().unwrap()) {
            if let Some(time) = step.get_mut("timestamp") {
                assert_eq!(time.as_str().unwrap().len(), "2026-11-23T08:30:00.250Z".len());
                *time = "2026-11-23T08:30:00.250Z".into();
            }
        }
        (files, progress.counts)
    }

    fn messages(&self, name: &str, each: Each, picks: &Picks) -> (Vec<Value>, Counts) {
        let mut progress = Progress::new();
        let args = MessagesArgs { out: self.out(name), each, metadata: true };
        messages::export(&self.reader(), &args, picks, false, &mut progress).unwrap();
        let text = fs::read_to_string(&args.out).unwrap();
        (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), progress.counts)
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn all() -> Picks {
    Picks {
        sessions: Vec::new(),
        since: None,
        until: None,
        kind: Kind::Main,
        min_reward: None,
        fates: Vec::new(),
    }
}

/// Sources and messages of a trajectory; what is copied in brackets.
fn spoken(file: &Value) -> Vec<String> {
    let step = |step: &Value| {
        let told = format!("{}: {}", step["source"].as_str().unwrap(), step["message"].as_str().unwrap());
        if step["is_copied_context"] == true { format!("[{told}]") } else { told }
    };
    file["steps"].as_array().unwrap().iter().map(step).collect()
}

/// A chat in which a tool is called; the client gives the call an id of its own.
fn tool_chat() -> [Turn; 3] {
    let tools = Arc::new(vec![json!({"type": "function", "function": {"name": "ls", "parameters": {}}})]);
    let asked = [said("system", "be brief"), said("user", "which files?")];
    let call = "<think>\nlook\n</think>\n\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"dir\": \".\"}}\n</tool_call>";
    let first = Turn { tools: tools.clone(), ..turn("t1", &[], &asked, call) };
    let mut history = answered(&first);
    history[2]["tool_calls"][0]["id"] = "theirs".into();
    history[2].as_object_mut().unwrap().remove("reasoning_content");
    let result = json!({"role": "tool", "tool_call_id": "theirs", "content": "a.txt"});
    let second = Turn { tools: tools.clone(), ..turn("t2", &history, &[result], "**a.txt**") };
    let third = turn("t3", &answered(&second), &[said("user", "no bold, please")], "a.txt");
    [first, second, Turn { tools, index: 2, ..third }]
}

/// A number that 64 bits do not hold, or that would be written otherwise, is exported as it came.
#[tokio::test]
async fn numbers_of_calls_and_schemas_are_exported_as_they_were_written() {
    let run = Run::start().await;
    let numbers = r#"{"wei":100000000000000000000,"id":12345678901234567890,"rate":1.10,"n":[-0,1e400]}"#;
    let tool = format!(r#"{{"type":"function","function":{{"name":"send","parameters":{numbers}}}}}"#);
    let call = format!(r#"{{"type":"function","function":{{"name":"send","arguments":{numbers}}}}}"#);
    let messages = format!(r#"[{{"role":"assistant","content":"","tool_calls":[{call}]}}]"#);
    let request =
        exact_json::read_request(&format!(r#"{{"tools":[{tool}],"messages":{messages}}}"#)).unwrap();
    let list = |key: &str| request[key].as_array().unwrap().clone();
    let text = format!("<tool_call>\n{{\"name\": \"send\", \"arguments\": {numbers}}}\n</tool_call>");
    let drawn = turn("t", &list("messages"), &[said("user", "again")], &text);
    run.complete([Turn { tools: Arc::new(list("tools")), ..drawn }]).await;

    let (dir, mut progress) = (run.dir.path().join("run"), Progress::new());
    atif::export(&run.reader(), &dir, &all(), &run.out("atif"), false, &mut progress).unwrap();
    let file = fs::read_dir(run.out("atif")).unwrap().next().unwrap().unwrap().path();
    let trajectory = fs::read_to_string(file).unwrap();
    assert_eq!(trajectory.matches(&format!(r#""arguments":{numbers}"#)).count(), 2, "{trajectory}");
    assert!(trajectory.contains(&format!(r#""parameters":{numbers}"#)), "{trajectory}");

    let mut progress = Progress::new();
    let args = MessagesArgs { out: run.out("chats.jsonl"), each: Each::Turn, metadata: false };
    messages::export(&run.reader(), &args, &all(), false, &mut progress).unwrap();
    let line = fs::read_to_string(&args.out).unwrap();
    let arguments = format!(r#""arguments":{}"#, Value::from(numbers));
    assert_eq!(line.matches(&arguments).count(), 2, "{line}");
    assert!(line.contains(&format!(r#""parameters":{numbers}"#)), "{line}");
}

#[tokio::test]
async fn a_trajectory_has_the_form_that_its_readers_know() {
    let run = Run::start().await;
    run.complete(tool_chat()).await;
    run.judge("t2", -1).await;
    run.learn(1, &["t2"], StepReport::default()).await;
    let (files, counts) = run.atif("out", &all());
    assert_eq!((files.len(), files[0].0.as_str()), (1, "s.json"));
    // Valid for `atif` 1.8 and Harbor 0.24, whose validators are in Python.
    let mut golden: Value = serde_json::from_str(include_str!("testdata/trajectory.json")).unwrap();
    golden["agent"]["version"] = env!("CARGO_PKG_VERSION").into();
    assert_eq!(files[0].1, golden, "{:#}", files[0].1);
    assert_eq!((counts.sessions, counts.turns), (1, 3));
}

#[tokio::test]
async fn a_conversation_is_one_line_and_context_has_no_weight() {
    let run = Run::start().await;
    run.complete(tool_chat()).await;
    run.judge("t2", -1).await;
    let (lines, _) = run.messages("all.jsonl", Each::Conversation, &all());
    let call = json!({"id": "theirs", "type": "function", "function": {"name": "ls", "arguments": "{\"dir\": \".\"}"}});
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "which files?"},
        {"role": "assistant", "content": null, "reasoning_content": "look", "tool_calls": [call]},
        {"role": "tool", "content": "a.txt", "tool_call_id": "theirs"},
        {"role": "assistant", "content": "**a.txt**"},
        {"role": "user", "content": "no bold, please"},
        {"role": "assistant", "content": "a.txt"},
    ]);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["messages"], messages);
    assert_eq!(lines[0]["tools"][0]["function"]["name"], "ls");
    assert_eq!(lines[0]["metadata"]["session_id"], "s");
    let reply = json!({"message": 4, "turn_id": "t2", "policy_version": 3, "reward": -1, "fate": "ready"});
    assert_eq!(lines[0]["metadata"]["replies"][1], reply);

    // Only the second reply was judged: the first is context, and behind it nothing is left.
    let judged = Picks { min_reward: Some(-1), ..all() };
    let (lines, counts) = run.messages("judged.jsonl", Each::Conversation, &judged);
    let weights: Vec<&Value> =
        lines[0]["messages"].as_array().unwrap().iter().map(|m| &m["weight"]).collect();
    assert_eq!(weights, [&Value::Null, &Value::Null, &json!(0), &Value::Null, &Value::Null]);
    assert_eq!((counts.turns, counts.not_asked), (2, 1));
    let (lines, _) = run.messages("turns.jsonl", Each::Turn, &all());
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["messages"][2]["weight"], 0);
    assert_eq!(lines[1]["messages"][2].get("reasoning_content"), None, "as the policy was shown it");
    assert_eq!(lines[1]["messages"].as_array().unwrap().len(), 5);
    let none = Picks { min_reward: Some(1), ..all() };
    let (lines, counts) = run.messages("none.jsonl", Each::Conversation, &none);
    assert_eq!((lines.len(), counts.sessions, counts.not_asked), (0, 0, 3));
}

#[tokio::test]
async fn a_rewritten_history_begins_another_file_and_another_line() {
    let run = Run::start().await;
    let first = turn("t1", &[], &[said("user", "a")], "1");
    let again = turn("t2", &[], &[said("user", "a")], "one");
    let on = turn("t3", &answered(&again), &[said("user", "b")], "2");
    let summary = [said("user", "so far: a, b"), said("assistant", "2")];
    let compacted = turn("t4", &summary, &[said("user", "c")], "3");
    run.complete([first, again, on, compacted]).await;
    let (files, counts) = run.atif("out", &all());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["s.json", "s~2.json", "s~3.json"]);
    assert_eq!(spoken(&files[0].1), ["user: a", "agent: 1"]);
    assert_eq!(spoken(&files[1].1), ["[user: a]", "agent: one", "user: b", "agent: 2"]);
    let copied = ["[user: so far: a, b]", "[agent: 2]", "user: c", "agent: 3"];
    assert_eq!(spoken(&files[2].1), copied);
    assert_eq!(files[0].1["continued_trajectory_ref"], "s~2.json");
    assert_eq!(files[1].1["trajectory_id"], "s~2");
    assert!(files.iter().all(|(_, file)| file["session_id"] == "s"));
    assert_eq!((counts.sessions, counts.turns), (1, 4));
    let (lines, _) = run.messages("out.jsonl", Each::Conversation, &all());
    let lengths: Vec<usize> = lines.iter().map(|line| line["messages"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [2, 4, 4]);
    assert_eq!(lines[2]["messages"][1]["weight"], 0, "nobody drew it here");
}

#[tokio::test]
async fn a_session_whose_beginning_is_gone_has_it_as_context() {
    let run = Run::start().await;
    let [_, _, third] = tool_chat();
    run.complete([third]).await;
    let (files, _) = run.atif("out", &all());
    assert_eq!(
        spoken(&files[0].1),
        [
            "[system: be brief]",
            "[user: which files?]",
            "[agent: ]",
            "[agent: **a.txt**]",
            "user: no bold, please",
            "agent: a.txt"
        ]
    );
    assert_eq!(files[0].1["steps"][2]["observation"]["results"][0]["source_call_id"], "theirs");
}

#[tokio::test]
async fn side_turns_and_what_may_not_be_trained_on_are_told_apart() {
    let run = Run::start().await;
    let first = Turn { trainable: false, ..turn("t1", &[], &[said("user", "a secret")], "1") };
    let second = turn("t2", &answered(&first), &[said("user", "b")], "2");
    let title = Turn { kind: TurnKind::Side, ..turn("t3", &[], &[said("user", "a title")], "talk") };
    let private = Turn {
        session: SessionId("p".into()),
        trainable: false,
        ..turn("t4", &[], &[said("user", "x")], "y")
    };
    run.complete([first, second, title, private]).await;
    let (lines, counts) = run.messages("main.jsonl", Each::Conversation, &all());
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0]["messages"][1]["weight"].clone(), lines[0]["messages"][3].get("weight")),
        (json!(0), None)
    );
    assert_eq!((counts.sessions, counts.turns, counts.other_kind, counts.untrainable), (1, 2, 1, 1));
    assert_eq!(
        counts.summary(Kind::Main),
        "wrote 1 session, 2 turns; left out 1 side turn, 1 not to be trained on"
    );
    let side = Picks { kind: Kind::Side, ..all() };
    let (lines, counts) = run.messages("side.jsonl", Each::Conversation, &side);
    assert_eq!((lines[0]["messages"][0]["content"].as_str(), lines.len()), (Some("a title"), 1));
    assert_eq!(counts.other_kind, 3);
    let (files, _) = run.atif("atif", &all());
    let extra = |file: usize, step: usize| files[file].1["steps"][step]["extra"].clone();
    assert_eq!((&files[0].0[..], &files[1].0[..]), ("p.json", "s.json"));
    assert_eq!((extra(0, 1)["trainable"].clone(), extra(0, 1)["weight"].clone()), (json!(false), json!(0)));
    assert_eq!((extra(1, 3)["trainable"].clone(), extra(1, 3)["weight"].clone()), (json!(true), json!(1)));
}

#[tokio::test]
async fn an_unreadable_turn_stands_in_nobodys_way() {
    let run = Run::start().await;
    let first = turn("t1", &[], &[said("user", "a")], "1");
    // Large enough for a file of its own, however it is packed, which is lost.
    let long: String = (0..100_000_u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    let second = turn("t2", &answered(&first), &[said("user", &long)], "2");
    let third = turn("t3", &answered(&second)[..2], &[said("user", "c")], "3");
    run.complete([first, second, third]).await;
    fs::remove_dir_all(run.dir.path().join("run/blobs")).unwrap();
    let (files, counts) = run.atif("out", &all());
    assert_eq!(spoken(&files[0].1), ["user: a", "agent: 1", "user: c", "agent: 3"]);
    assert_eq!((counts.turns, counts.unreadable), (2, 1));
}

#[tokio::test]
async fn ids_of_clients_name_files_inside_the_folder() {
    let run = Run::start().await;
    for (number, id) in ["../../x", "", "a/b", "a%2Fb", "ü", "\u{1b}[31m"].iter().enumerate() {
        let turn = turn(&format!("t{number}"), &[], &[said("user", "a")], "1");
        run.complete([Turn { session: SessionId((*id).into()), ..turn }]).await;
    }
    let (files, counts) = run.atif("out", &all());
    assert_eq!((files.len(), counts.sessions), (6, 6));
    let mut beside: Vec<_> =
        fs::read_dir(run.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["out", "run"]);
}

#[tokio::test]
async fn the_curves_hold_the_numbers_of_the_steps() {
    let run = Run::start().await;
    run.complete((1..=3).map(|n| turn(&format!("t{n}"), &[], &[said("user", &n.to_string())], "x"))).await;
    run.judge("t1", 1).await;
    run.judge("t2", -1).await;
    let report = StepReport { loss: 0.25, grad_norm: 1.5, policy_kl: -0.5, ..StepReport::default() };
    run.learn(1, &["t1", "t2"], report).await;
    run.record(Record::TurnDropped { turn: TurnId("t3".into()), reason: "idle" }).await;
    let steps = run.reader().steps(0, 9).unwrap();
    let span = tensorboard::Span { since: None, until: None };
    let told = tensorboard::export(&run.reader(), span, &run.out("tb"), false, &mut Progress::new()).unwrap();
    assert_eq!(told, "wrote 1 step");
    let file = fs::read_dir(run.out("tb")).unwrap().next().unwrap().unwrap().path();
    let events = event_file::read(&fs::read(file).unwrap());
    assert_eq!((events.len(), events[1].step), (2, 1));
    let when = steps[0].1.as_ref().unwrap().when.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(events[1].wall_time, when.as_secs_f64());
    let summary = events[1].summary.as_ref().unwrap();
    let value =
        |tag: &str| summary.value.iter().find(|value| value.tag == tag).and_then(|value| value.simple_value);
    for (tag, expected) in [
        ("train/loss", 0.25),
        ("train/grad_norm", 1.5),
        ("train/drift", 0.5),
        ("train/kl", 0.0),
        ("batch/turns", 2.0),
        ("batch/version", 5.0),
        ("reward/mean", 0.0),
        ("reward/approved", 1.0),
        ("staleness/mean", 1.0),
        ("staleness/max", 1.0),
    ] {
        assert_eq!(value(tag), Some(expected), "{tag}");
    }
}

#[tokio::test]
async fn an_export_that_cannot_be_says_why() {
    let run = Run::start().await;
    let missing = Picks { sessions: vec!["nobody".to_owned()], ..all() };
    let error =
        atif::export(&run.reader(), run.dir.path(), &missing, &run.out("out"), false, &mut Progress::new())
            .unwrap_err();
    assert_eq!(
        (exit_code(&error), error.to_string()),
        (Some(4), "the journal has no session \"nobody\"".to_owned())
    );
    assert!(!run.out("out").exists());
    let error = open(run.dir.path()).err().unwrap();
    assert_eq!(exit_code(&error), Some(2));
}

#[tokio::test]
async fn a_trajectory_of_an_episode_says_what_it_was_about_and_how_it_came_out() {
    let run = Run::start().await;
    let id = || EpisodeId("ep-1".into());
    let episode = Episode {
        id: id(),
        session: SessionId("s".into()),
        environment: "shell".into(),
        task: "count-lines".into(),
        seed: None,
        group: Some(Group { name: "g".into(), of: 1 }),
        judged: false,
    };
    run.record(Record::EpisodeBegan { episode }).await;
    run.complete(tool_chat()).await;
    let numbers = [("tests".to_owned(), 3.0)].into();
    let outcome = Outcome { reward: 0.5, success: Some(true), numbers };
    run.record(Record::EpisodeEnded { episode: id(), outcome }).await;
    run.complete([Turn {
        session: SessionId("other".into()),
        ..turn("o", &[], &[said("user", "hi")], "ho")
    }])
    .await;
    let (files, _) = run.atif("episodes", &all());
    let told = json!([{
        "id": "ep-1", "environment": "shell", "task": "count-lines", "seed": null, "group": {"name": "g", "of": 1},
        "state": "ended", "reward": 0.5, "success": true, "numbers": {"tests": 3.0},
    }]);
    let of = |name: &str| {
        let (_, file) = files.iter().find(|(file, _)| file == name).unwrap();
        file["final_metrics"]["extra"]["episodes"].clone()
    };
    assert_eq!((of("s.json"), of("other.json")), (told, Value::Null));
}
