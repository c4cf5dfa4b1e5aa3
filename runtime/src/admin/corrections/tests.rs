use std::{path::Path, sync::Arc, time::Duration};

use openclaw_actors::{
    journal::JournalActor,
    sessions::{Sessions, SessionsArguments, SessionsConfig, TurnCompleted},
};
use openclaw_journal::{
    Completion, JournalConfig, JournalError, NextState, NextStateKind, Retention, SessionId, StepCommit,
    Turn, TurnKind, TurnMark, Verdict,
};
use openclaw_model::{FinishReason, StepReport};
use ractor::{Actor, ActorRef};
use serde_json::json;

use super::*;

const HINT: &str = "Say it in *one* sentence, <b>please</b>.";

struct Run {
    corrections: Corrections,
    writer: ActorRef<openclaw_actors::journal::JournalControl>,
    sessions: ActorRef<openclaw_actors::sessions::SessionsMessage>,
}

fn id(turn: &str) -> TurnId {
    TurnId(turn.into())
}

impl Run {
    async fn open(dir: &Path) -> Self {
        let config = JournalConfig { dir: dir.to_owned(), retention: Retention::default() };
        let journal = loop {
            match Journal::open(config.clone()) {
                Ok(journal) => break journal,
                // The thread of a writer that was stopped lets go of the folder when it ends.
                Err(JournalError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("{}", error.line()),
            }
        };
        let (writer, _) = Actor::spawn(None, JournalActor, journal.clone()).await.expect("it writes");
        let sessions = SessionsAddress::default();
        let arguments = SessionsArguments {
            config: SessionsConfig { teaches: true, ..SessionsConfig::default() },
            journal: journal.clone(),
            address: sessions.clone(),
        };
        let (actor, _) = Actor::spawn(None, Sessions, arguments).await.expect("it starts");
        let corrections = Corrections { journal, sessions, teaches: true, remembers: false };
        Self { corrections, writer, sessions: actor }
    }

    async fn close(self) {
        self.sessions.stop_and_wait(None, None).await.expect("it stops");
        self.writer.stop_and_wait(None, None).await.expect("it stops");
    }

    async fn record(&self, record: Record) {
        let outcome = self.corrections.journal.record(record).await.expect("it is written");
        assert_eq!(outcome, Recorded::Done);
    }

    /// A reply that nothing has followed.
    async fn answered(&self, name: &str) {
        let turn = Arc::new(Turn {
            id: id(name),
            session: SessionId(name.into()),
            index: 1,
            kind: TurnKind::Main,
            trainable: true,
            messages: Arc::new(vec![json!({"role": "user", "content": "2 + 2?"})]),
            tools: Arc::default(),
            template_kwargs: Arc::default(),
            completion: Completion {
                prompt_ids: vec![1],
                response_ids: vec![2],
                rollout_logprobs: vec![-0.5],
                policy_logprobs: None,
                policy_version: 0,
                temperature: 1.0,
                finish_reason: FinishReason::Stop,
                text: "**4**".to_owned(),
                split: Default::default(),
            },
        });
        let mark = TurnMark { chain: [0, 1].into(), says_anything: true, ..TurnMark::default() };
        self.record(Record::TurnCompleted { turn: turn.clone(), mark: mark.clone() }).await;
        self.corrections.sessions.complete(TurnCompleted { turn, mark }).await;
    }

    /// One that a judge has read, and that waits for its batch.
    async fn ready(&self, name: &str) {
        self.answered(name).await;
        let next_state = NextState {
            kind: NextStateKind::User,
            text: "thanks".into(),
            rating: None,
            is_error: false,
            by_rule: None,
            screen: None,
        };
        self.record(Record::NextStateSeen { turn: id(name), next_state, provisional: false }).await;
        self.record(Record::Judged {
            turn: id(name),
            undone: 0,
            verdict: Verdict { reward: Some(1), votes: vec![Some(1)], rule: None },
            answers: vec![None],
            hints: Vec::new(),
            hint_answers: Vec::new(),
            teach: false,
            wish: None,
        })
        .await;
    }

    async fn leased(&self, name: &str) {
        self.ready(name).await;
        self.record(Record::BatchLeased { step: 1, turns: vec![id(name)] }).await;
    }

    async fn story(&self, name: &str) -> Story {
        self.corrections.journal.story(&id(name)).await.expect("it can be read").expect("it is known")
    }
}

#[tokio::test]
async fn a_rating_is_what_followed_a_reply_or_counts_over_what_the_judge_said_and_is_kept() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = Run::open(dir.path()).await;
    run.answered("a").await;
    let told = run.corrections.rate("a", Rating::Down).await.expect("nothing has followed it").message;
    assert!(told.starts_with("rated bad: that is what followed"), "{told}");
    run.ready("b").await;
    let told = run.corrections.rate("b", Rating::Down).await.expect("no batch has it").message;
    assert!(told.starts_with("rated bad: that counts"), "{told}");
    let again = run.corrections.rate("b", Rating::Down).await.expect("it is done").message;
    assert_eq!(again, "rated bad already");
    run.close().await;

    let run = Run::open(dir.path()).await;
    let (a, b) = (run.story("a").await, run.story("b").await);
    let next = a.row.next_state.expect("the rating");
    assert_eq!(
        (a.row.state, next.kind, next.rating),
        (TurnState::Followed, NextStateKind::Feedback, Some(-1))
    );
    assert_eq!((b.row.rated, b.row.verdict.expect("a verdict").reward), (Some(-1), Some(-1)));
    assert_eq!(
        run.corrections.rate("a", Rating::Down).await.expect("it is done").message,
        "rated bad already"
    );
    // A second thought.
    run.corrections.rate("a", Rating::Up).await.expect("no batch has it");
    assert_eq!(run.story("a").await.row.rated, Some(1));
    run.close().await;
}

#[tokio::test]
async fn a_hint_is_kept_word_for_word_and_follows_a_reply_that_nothing_has_followed() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = Run::open(dir.path()).await;
    run.answered("a").await;
    run.corrections.correct_hint("a", HINT.to_owned()).await.expect("nothing has followed it");
    run.ready("b").await;
    run.corrections.correct_hint("b", HINT.to_owned()).await.expect("no batch has it");
    let again = run.corrections.correct_hint("b", HINT.to_owned()).await.expect("it is done").message;
    assert_eq!(again, "the hint says that already");
    run.close().await;

    let run = Run::open(dir.path()).await;
    let (a, b) = (run.story("a").await, run.story("b").await);
    assert_eq!(
        (a.row.state, a.row.next_state.expect("the words").text.as_str()),
        (TurnState::Followed, HINT)
    );
    assert_eq!(a.row.corrected.as_deref(), Some(HINT));
    assert_eq!((b.row.state, b.row.hints), (TurnState::Judged, vec![HINT.to_owned()]));
    run.close().await;
}

#[tokio::test]
async fn a_dropped_turn_stays_dropped_and_takes_no_feedback() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = Run::open(dir.path()).await;
    run.answered("a").await;
    run.ready("b").await;
    for turn in ["a", "b"] {
        let told = run.corrections.drop_turn(turn).await.expect("no batch has it").message;
        assert_eq!(told, "dropped: nothing is learnt from it");
        let again = run.corrections.drop_turn(turn).await.expect("it is done").message;
        assert!(again.starts_with("dropped already"), "{again}");
    }
    let feedback = Feedback { turn: id("a"), rating: Some(1), text: None };
    assert_eq!(run.corrections.sessions.feedback(feedback).await, Some(FeedbackOutcome::TooLate));
    run.close().await;
    let run = Run::open(dir.path()).await;
    let row = run.story("a").await.row;
    assert_eq!((row.state, row.reason.as_deref()), (TurnState::Dropped, Some("operator")));
    let refused = run.corrections.rate("a", Rating::Up).await.expect_err("it is dropped");
    assert_eq!(refused.message, "too late: dropped: an operator dropped it");
    run.close().await;
}

#[tokio::test]
async fn what_a_batch_has_or_nobody_may_learn_from_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut run = Run::open(dir.path()).await;
    run.leased("leased").await;
    run.leased("trained").await;
    let commit = StepCommit {
        step: 1,
        version: 1,
        base: 0,
        turns: vec![id("trained")],
        batch: 1,
        report: StepReport::default(),
        fingerprint: String::new(),
        checkpoint: true,
    };
    run.record(Record::StepCompleted(commit)).await;
    run.ready("dead").await;
    run.record(Record::TurnDied { turn: id("dead"), inbox: "optimizer".into(), attempts: 3, reason: None })
        .await;
    let refused = async |run: &Run, turn: &str| {
        let rate = run.corrections.rate(turn, Rating::Up).await.expect_err("it cannot be rated");
        let hint = run.corrections.correct_hint(turn, HINT.to_owned()).await.expect_err("it has its hint");
        assert_eq!(rate, hint, "{turn}");
        rate
    };
    for (turn, words) in [
        ("leased", "too late: the turn is trained in version 1 at step 1, which is not on the disk yet"),
        ("trained", "too late: the turn is trained in version 1 at step 1"),
    ] {
        let told = refused(&run, turn).await;
        assert_eq!((told.kind, told.message.as_str()), (RefusalKind::NotNow, words));
        let dropped = run.corrections.drop_turn(turn).await.expect_err("it is learnt from");
        assert_eq!(dropped, told);
    }
    let dead = refused(&run, "dead").await.message;
    assert!(dead.contains("given up by optimizer") && dead.contains("dead retry"), "{dead}");
    assert_eq!(refused(&run, "nobody").await.kind, RefusalKind::Unknown);

    run.ready("r").await;
    for hint in [" \n".to_owned(), "x".repeat(1001)] {
        let told = run.corrections.correct_hint("r", hint).await.expect_err("no teacher is shown that");
        assert_eq!(told.kind, RefusalKind::Usage);
    }
    run.corrections.teaches = false;
    let told = run.corrections.correct_hint("r", HINT.to_owned()).await.expect_err("there is no teacher");
    assert!(told.kind == RefusalKind::NeverHere && told.message.contains("verdicts alone"), "{told}");
    run.close().await;
}
