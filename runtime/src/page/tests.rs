use std::{collections::HashSet, net::SocketAddr, path::Path, sync::Arc};

use openclaw_actors::{loaded_model::LoadedModel, pictures::Pictures, publisher::Versions};
use openclaw_journal::{
    Candidates, Completion, NextState, NextStateKind, Record, Recorded, SessionId, StepCommit, TeacherSignal,
    Turn, TurnId, TurnKind, TurnMark, TurnState, Verdict,
};
use openclaw_kernels::Place;
use openclaw_model::{FinishReason, StepReport, WeightDtype};
use serde_json::{Value, json};

use super::*;
use crate::{
    admin::{AdminClient, AdminServer, Command, Port, TOKEN_FILE, Token, tests::Notebook},
    page::tokens::Tokens,
};

mod episodes;
mod replies;

/// Stands in every conversation, and nowhere else.
const SECRET: &str = "sesame <script>alert(1)</script> \u{1f642}";
const REPLY: &str = "**Sure!** caf\u{e9} \u{1f642}";
/// The template ends replies with it.
const END: &str = "<|im_end|>";

struct House {
    dir: tempfile::TempDir,
    server: AdminServer,
    journal: Journal,
    text: EngineText,
    http: reqwest::Client,
}

impl House {
    async fn open() -> Self {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
        let model = LoadedModel::open(&nano, Place::Cpu, 1).expect("it is in the tree");
        let dir = tempfile::tempdir().expect("a folder can be made");
        let journal = Journal::in_memory();
        let rollback = Rollback {
            versions: Versions::new(0, model.weights.clone()),
            folders: model.folders(dir.path().join("versions"), WeightDtype::F32),
            base: model.weights.clone(),
            transformer: model.transformer.clone(),
            journal: journal.clone(),
        };
        let build = model.serving(512, 1024, 1, "page");
        let films = Films {
            episodes: dir.path().join("episodes"),
            pictures: Pictures::new(dir.path().join("images"), 1 << 20),
        };
        let page = Page::new(Comparison::new(rollback, model.text.clone(), build), films, 8, true);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let port = Port { address: any, token: &Token::random() };
        let server =
            AdminServer::start(Arc::new(Notebook::default()), Some(page), dir.path(), Some(port)).await;
        let server = server.expect("a port is free");
        Self { dir, server, journal, text: model.text, http: reqwest::Client::new() }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address.expect("it has a port"))
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(TOKEN_FILE)).expect("it is written").trim().to_owned()
    }

    async fn look(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(self.url(path)).bearer_auth(self.token());
        let response = request.send().await.expect("it answers");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    async fn seen(&self, path: &str) -> Value {
        let (status, body) = self.look(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn compare(&self, question: Value) -> (u16, Value) {
        let request = self.http.post(self.url("/page/compare")).bearer_auth(self.token()).json(&question);
        let response = request.send().await.expect("it answers");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.text.tokenizer.encode(text).expect("it can be encoded")
    }

    fn turn(&self, session: &str, index: u32) -> Turn {
        let response_ids = self.ids(&format!("{REPLY}{END}"));
        Turn {
            id: TurnId(format!("{session}-{index}").into()),
            session: SessionId(session.into()),
            index,
            kind: TurnKind::Main,
            trainable: true,
            messages: Arc::new(vec![
                json!({"role": "system", "content": "old"}),
                json!({"role": "assistant", "content": "an earlier reply"}),
                json!({"role": "user", "content": SECRET}),
            ]),
            tools: Arc::default(),
            template_kwargs: Arc::default(),
            completion: Completion {
                prompt_ids: self.ids("2 + 2?"),
                rollout_logprobs: vec![-0.5; response_ids.len()],
                policy_logprobs: None,
                response_ids,
                policy_version: 0,
                temperature: 0.8,
                finish_reason: FinishReason::Stop,
                text: REPLY.to_owned(),
                split: Default::default(),
            },
        }
    }

    async fn record(&self, record: Record) {
        assert_eq!(self.journal.record(record).await.expect("it is written"), Recorded::Done);
    }

    async fn answered(&self, session: &str, index: u32) -> TurnId {
        let turn = Arc::new(self.turn(session, index));
        let id = turn.id.clone();
        self.record(Record::TurnCompleted { turn, mark: TurnMark::default() }).await;
        id
    }

    async fn judged(&self, session: &str, index: u32, reward: i8) -> TurnId {
        self.judge(self.turn(session, index), reward).await
    }

    async fn judge(&self, turn: Turn, reward: i8) -> TurnId {
        let completed = Arc::new(turn);
        let turn = completed.id.clone();
        self.record(Record::TurnCompleted { turn: completed, mark: TurnMark::default() }).await;
        let next_state = NextState {
            kind: NextStateKind::User,
            text: format!("no bold, {SECRET}"),
            rating: None,
            is_error: false,
            by_rule: None,
            screen: None,
        };
        self.record(Record::NextStateSeen { turn: turn.clone(), next_state, provisional: false }).await;
        self.record(Record::Judged {
            turn: turn.clone(),
            undone: 0,
            verdict: Verdict { reward: Some(reward), votes: vec![Some(reward), None], rule: None },
            answers: vec![Some("they dislike bold".to_owned()), None],
            hints: vec!["Use no bold text.".to_owned()],
            hint_answers: vec![Some("a thought".to_owned())],
            teach: true,
            wish: None,
        })
        .await;
        turn
    }

    /// A turn that version 1 learnt from.
    async fn trained(&self, session: &str) -> TurnId {
        let turn = self.judged(session, 1, -1).await;
        let tokens = self.turn(session, 1).completion.response_ids.len();
        let top = Candidates { ids: self.ids("Su"), old_logprobs: vec![-3.0], teacher_logprobs: vec![-0.25] };
        let signal = TeacherSignal {
            hint: "Use no bold text.".to_owned(),
            logprobs: vec![-1.5; tokens],
            old_logprobs: [vec![f32::NEG_INFINITY], vec![-0.5; tokens - 1]].concat(),
            student_top: vec![top; tokens],
            teacher_top: Vec::new(),
        };
        self.record(Record::Taught { turn: turn.clone(), undone: 0, signal: Some(signal) }).await;
        self.record(Record::BatchLeased { step: 1, turns: vec![turn.clone()] }).await;
        self.record(Record::StepCompleted(StepCommit {
            step: 1,
            version: 1,
            base: 0,
            turns: vec![turn.clone()],
            batch: 1,
            report: StepReport { step: 1, loss: f64::NAN, kl: 0.25, ..StepReport::default() },
            fingerprint: "print".to_owned(),
            checkpoint: true,
        }))
        .await;
        self.record(Record::VersionPublished { version: 1 }).await;
        turn
    }
}

/// Every path that a source file routes.
fn routed(source: &str) -> Vec<String> {
    let paths = source.split(".route(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    paths.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_private_is_answered_without_the_token() {
    let house = House::open().await;
    house.trained("s").await;
    let (page, verbs) = (include_str!("routes.rs"), include_str!("../admin/routes.rs"));
    let mut paths: Vec<String> = routed(page).into_iter().chain(routed(verbs)).collect();
    assert!(paths.len() >= 10 && paths.contains(&"/page/session".to_owned()), "{paths:?}");
    paths.extend(Command::VERBS.map(|verb| format!("/{verb}")));
    paths.extend(
        ["/page/session?id=s", "/page/turn?id=s-1", "/page/no-such", "/page/", "/x"].map(str::to_owned),
    );
    for path in paths {
        let path = path.replace("{turn}", "s-1").replace("{*verb}", "stop");
        let url = house.url(&path);
        let (get, post) = (|| house.http.get(&url), || house.http.post(&url).json(&json!({"version": 0})));
        let requests = [get(), get().bearer_auth("wrong"), post(), post().bearer_auth("wrong")];
        for request in requests {
            let response = request.send().await.expect("it answers");
            let status = response.status().as_u16();
            assert_eq!(response.headers()["cache-control"], "no-store");
            let said = response.text().await.expect("text");
            // A path that is an asset's knows no other method.
            assert_eq!(status, 401, "{path}: {said}");
            assert!(!said.contains("sesame"), "{path}: {said}");
        }
    }
    let shown = house.seen("/page/session?id=s").await;
    assert!(shown.to_string().contains("sesame"), "the token opens it");
}

#[tokio::test]
async fn the_page_itself_is_public_and_says_what_a_browser_may_do() {
    let house = House::open().await;
    for (path, kind, content) in assets::ASSETS {
        let response = house.http.get(house.url(path)).send().await.expect("it answers");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &kind.parse().unwrap())
        );
        let policy = response.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.text().await.expect("text"), content);
        // What only the policy would stop otherwise.
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", "https://"]
        {
            assert!(!content.contains(word), "{path} has {word}");
        }
        let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("url("), "{path}");
    }
    let loaded = include_str!("assets/page.html").matches("page/").count();
    assert_eq!(loaded, 3, "the icon, the style and the first module are all that the document names");
}

#[tokio::test]
async fn a_turn_tells_its_whole_story() {
    let house = House::open().await;
    house.trained("s").await;
    house.answered("s", 2).await;
    let shown = house.seen("/page/session?id=s").await;
    let turn = &shown["turns"][0];
    assert_eq!(
        turn["asked"],
        json!([{"role": "user", "text": {"text": SECRET, "chars": SECRET.chars().count()}}])
    );
    assert_eq!(turn["reply"]["words"]["text"], REPLY);
    assert_eq!(turn["next_state"]["text"]["text"], format!("no bold, {SECRET}"));
    assert_eq!(turn["verdict"]["reward"], -1);
    assert_eq!(turn["verdict"]["votes"][0]["answer"]["text"], "they dislike bold");
    assert_eq!(turn["verdict"]["votes"][1], json!({"vote": null, "answer": null}));
    assert_eq!(turn["hints"][0]["text"], "Use no bold text.");
    assert_eq!(turn["hint_answers"][0]["text"], "a thought");
    let fate = json!({"state": "trained", "dead": false, "words": "trained in version 1 at step 1", "version": 1, "step": 1});
    assert_eq!(turn["fate"], fate);
    let (tokens, taught) = (&turn["tokens"], &turn["tokens"]["teacher"]);
    let text: String = tokens["text"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(text, format!("{REPLY}{END}"));
    let lengths =
        [&tokens["text"], &tokens["rollout"], &taught["student"], &taught["teacher"], &taught["wanted"]];
    assert!(lengths.iter().all(|list| list.as_array().unwrap().len() as u64 == tokens["total"]), "{tokens}");
    assert_eq!((&taught["student"][0], &taught["student"][1]), (&Value::Null, &json!(-0.5)));
    assert_eq!((&taught["teacher"][1], &taught["mean_gap"]), (&json!(-1.5), &json!(-1.0)));
    assert_eq!(taught["wanted"][0][1], json!(-0.25));
    assert_eq!(shown["turns"][1]["fate"]["words"], "waiting for what follows it");
    assert_eq!(shown["batch"], json!({"ready": 0, "of": 8}));
    let brief = house.seen("/page/session?id=s&tokens=0").await;
    let (brief, total) = (&brief["turns"][0]["tokens"], &turn["tokens"]["total"]);
    assert!(brief["text"] == json!([]) && brief["total"] == *total, "{brief}");
    let alone = house.seen("/page/turn?id=s-1").await;
    assert_eq!(&alone, turn);

    let versions = house.seen("/page/versions").await;
    let one = &versions["versions"][0];
    assert_eq!((&versions["total"], &one["version"], &one["taught"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(one["taught_by"], json!([{"turn": "s-1", "session": "s"}]));
    assert_eq!((&one["numbers"]["loss"], &one["numbers"]["kl"]), (&Value::Null, &json!(0.25)));
    assert_eq!(versions["versions"][1]["heard"]["rejected"], 1);
    let learning = house.seen("/page/learning").await;
    assert_eq!(learning["replies"], json!([{"version": 0, "first": true, "reward": -1}]));
    assert_eq!(learning["steps"][0]["version"], 1);
}

#[tokio::test]
async fn it_opens_on_whether_it_gets_better_with_what_people_rated_and_what_was_asked_last() {
    let house = House::open().await;
    let empty = house.seen("/page/overview").await;
    assert_eq!(empty["answer"]["trend"], "too_little");
    assert!(empty["pair"].is_null() && empty["question"].is_null(), "{empty}");
    assert_eq!(empty["ratings"], json!({"rated": 0, "good": 0, "judged": 0, "agreed": 0}));
    for number in 0..5 {
        house.judged(&format!("bad{number}"), 1, -1).await;
    }
    for number in 0..5 {
        let mut turn = house.turn(&format!("good{number}"), 1);
        turn.completion.policy_version = 3;
        house.judge(turn, 1).await;
    }
    for (turn, rating) in [("bad0-1", -1), ("good0-1", 1), ("good1-1", -1)] {
        house.record(Record::Rated { turn: TurnId(turn.into()), rating }).await;
    }
    let mut private = house.turn("private", 1);
    private.trainable = false;
    private.messages = Arc::new(vec![json!({"role": "user", "content": "not to be learnt from"})]);
    house.record(Record::TurnCompleted { turn: Arc::new(private), mark: TurnMark::default() }).await;

    let shown = house.seen("/page/overview").await;
    let (before, after) = (json!({"approved": 0, "of": 5}), json!({"approved": 4, "of": 5}));
    assert_eq!(shown["answer"], json!({"trend": "better", "judged": 10, "before": before, "after": after}));
    assert_eq!(shown["ratings"], json!({"rated": 3, "good": 1, "judged": 3, "agreed": 2}));
    assert_eq!(shown["replies"][9], json!({"version": 3, "approved": true}));
    let pair = &shown["pair"];
    assert_eq!((&pair["same_question"], &pair["before"]["version"]), (&json!(true), &json!(0)));
    assert_eq!((&pair["after"]["turn"], &pair["after"]["rated"]), (&json!("good4-1"), &json!(false)));
    assert_eq!(
        (&pair["after"]["asked"]["text"], &pair["after"]["reply"]["words"]["text"]),
        (&json!(SECRET), &json!(REPLY))
    );
    assert_eq!(shown["question"]["text"], SECRET);

    let rated = house.seen("/page/turn?id=good1-1").await;
    assert_eq!((&rated["rated"], &rated["verdict"]["reward"]), (&json!(-1), &json!(-1)));
    assert_eq!(rated["verdict"]["votes"][0]["vote"], 1, "what the judge said is shown beside it");
    assert_eq!((&rated["changeable"], &rated["corrected"]), (&json!(true), &json!(false)));
    let words = Record::HintCorrected { turn: TurnId("good1-1".into()), hint: SECRET.to_owned() };
    house.record(words).await;
    let corrected = house.seen("/page/turn?id=good1-1").await;
    assert_eq!((&corrected["corrected"], &corrected["hints"][0]["text"]), (&json!(true), &json!(SECRET)));
    assert_eq!(house.seen("/page/session?id=good1").await["teaches"], true);
}

#[test]
fn the_legend_knows_every_state_and_the_form_the_longest_hint() {
    let states = include_str!("assets/states.js");
    for state in TurnState::ALL {
        assert!(states.contains(&format!("['{}', '", state.name())), "{state:?}");
    }
    let limit = format!("const MOST_HINT_CHARS = {};", openclaw_actors::teacher::MOST_HINT_CHARS);
    assert!(include_str!("assets/actions.js").contains(&limit));
}

#[tokio::test]
async fn what_becomes_of_a_turn_is_told_in_words() {
    let house = House::open().await;
    let words = async |turn: &str| {
        let shown = house.seen(&format!("/page/turn?id={turn}")).await;
        shown["fate"]["words"].as_str().expect("text").to_owned()
    };
    let mut side = house.turn("a", 1);
    side.kind = TurnKind::Side;
    house.record(Record::TurnCompleted { turn: Arc::new(side), mark: TurnMark::default() }).await;
    assert_eq!(words("a-1").await, "not trained on: a side request");
    let dropped = house.answered("b", 1).await;
    house.record(Record::TurnDropped { turn: dropped, reason: "stale" }).await;
    assert_eq!(words("b-1").await, "dropped: its version was too old when its batch was made");
    let held = house.judged("c", 1, 1).await;
    assert_eq!(words("c-1").await, "waiting for a teacher");
    house.record(Record::Taught { turn: held.clone(), undone: 0, signal: None }).await;
    house.record(Record::BatchLeased { step: 7, turns: vec![held.clone()] }).await;
    assert_eq!(words("c-1").await, "in the batch of step 7");
    let (turns, report) = (vec![held], StepReport::default());
    let (reason, fingerprint) = ("kl 9".to_owned(), String::new());
    house.record(Record::StepWithheld { step: 7, turns, reason, report, fingerprint }).await;
    assert_eq!(words("c-1").await, "withheld with step 7: kl 9");
    let dead = house.judged("d", 1, 1).await;
    house
        .record(Record::TurnDied { turn: dead, inbox: "teacher".to_owned(), attempts: 3, reason: None })
        .await;
    assert!(words("d-1").await.starts_with("given up by teacher after 3 tries"));
    assert_eq!(house.look("/page/turn?id=e-1").await.0, 404);
}

#[tokio::test]
async fn lists_are_paged_and_limited_and_long_texts_are_cut() {
    let house = House::open().await;
    for number in 0..12 {
        house.answered(&format!("s{number}"), 1).await;
    }
    for index in 2..5 {
        house.answered("s3", index).await;
    }
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let page = house.seen(&format!("/page/sessions?limit=5{before}")).await;
        let sessions = page["sessions"].as_array().unwrap();
        seen.extend(sessions.iter().map(|session| session["session"].as_str().unwrap().to_owned()));
        assert!(sessions.len() <= 5);
        let Some(next) = page["next"].as_u64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (12, 12), "{seen:?}");
    assert_eq!(seen[..2], ["s3", "s11"], "the latest turn first");
    assert_eq!(house.seen("/page/sessions?limit=0").await["sessions"].as_array().unwrap().len(), 1);
    let first = house.seen("/page/session?id=s3&limit=3").await;
    assert_eq!(first["turns"].as_array().unwrap().len(), 3);
    let rest = house.seen(&format!("/page/session?id=s3&after={}", first["next"])).await;
    assert_eq!((&rest["turns"][0]["index"], &rest["next"]), (&json!(4), &Value::Null));
    assert_eq!(house.look("/page/session?id=nobody").await.0, 404);
    assert_eq!(house.look("/page/session").await.0, 400);
    assert_eq!(Text::cut("\u{e9}\u{e9}\u{e9}", 2), Text { text: "\u{e9}\u{e9}".to_owned(), chars: 3 });

    let turn = house.turn("x", 1);
    let cut = Tokens::of(&turn.completion, None, &house.text.tokenizer, 2);
    assert_eq!((cut.text.len(), cut.total), (2, turn.completion.response_ids.len()));
}

#[tokio::test]
async fn a_look_is_unchanged_until_the_journal_moves() {
    let house = House::open().await;
    house.answered("s", 1).await;
    let look = async |mark: Option<&str>| {
        let request = house.http.get(house.url("/page/sessions")).bearer_auth(house.token());
        let request = mark.into_iter().fold(request, |request, mark| request.header("if-none-match", mark));
        let response = request.send().await.expect("it answers");
        let mark = response.headers().get("etag").map(|mark| mark.to_str().unwrap().to_owned());
        (response.status().as_u16(), mark.unwrap_or_default())
    };
    let (status, mark) = look(None).await;
    assert_eq!(status, 200);
    assert_eq!(look(Some(&mark)).await.0, 304);
    house.answered("s", 2).await;
    let (status, later) = look(Some(&mark)).await;
    assert!(status == 200 && later != mark, "{status} {later}");
}

#[tokio::test]
async fn the_runs_owner_needs_no_token_on_the_socket() {
    let house = House::open().await;
    let client = AdminClient::connect(house.dir.path()).expect("it serves");
    let mut moment = None;
    let unknown = client.page::<Value>("session?id=s", &mut moment).await.expect_err("nothing is said yet");
    assert!(unknown.to_string().contains("no session `s`") && moment.is_none(), "{unknown} {moment:?}");
    house.trained("s").await;
    let mut look =
        async || client.page::<Value>("session?id=s&tokens=0", &mut moment).await.expect("it answers");
    assert_eq!(look().await.expect("it is new")["turns"][0]["fate"]["state"], "trained");
    assert_eq!(look().await, None);
    house.answered("s", 2).await;
    assert_eq!(look().await.expect("it is new")["turns"][1]["fate"]["state"], "waiting");
}

#[tokio::test]
async fn two_versions_answer_the_same_prompt_and_what_cannot_be_asked_is_refused() {
    let house = House::open().await;
    house.trained("s").await;
    let (status, compared) = house.compare(json!({"prompt": "What is 2 + 3?", "old": 0, "new": 0})).await;
    assert_eq!(status, 200, "{compared}");
    assert_eq!(compared["old"]["reply"], compared["new"]["reply"], "the same weights say the same");
    assert!(compared["old"]["tokens"].as_u64() > Some(0), "{compared}");
    let (status, compared) = house.compare(json!({"turn": "s-1", "old": 0, "new": 0})).await;
    assert_eq!((status, &compared["recorded"]["reply"]["words"]["text"]), (200, &json!(REPLY)));
    assert_eq!(compared["asked"]["text"], SECRET);

    let refused = [
        (json!({"prompt": "x", "turn": "s-1", "old": 0, "new": 0}), 400),
        (json!({"prompt": " ", "old": 0, "new": 0}), 400),
        (json!({"prompt": "x", "old": 0}), 400),
        (json!({"turn": "nobody", "old": 0, "new": 0}), 404),
        (json!({"prompt": "x", "old": 9, "new": 0}), 404),
        (json!({"prompt": "x", "old": 1, "new": 0}), 409),
    ];
    for (question, status) in refused {
        let (found, told) = house.compare(question.clone()).await;
        assert_eq!(found, status, "{question}: {told}");
        assert!(told["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
    }
}
