//! What sessions tell the journal, and what they wait for before they answer.

use serde_json::json;

use super::*;
use crate::{sessions::RequestMarks, tiny};
use openclaw_journal::{JournalConfig, Retention, Turn, TurnKind, Verdict};

fn request() -> ArrivedRequest {
    let marks = RequestMarks { session_header: Some("s".to_owned()), ..RequestMarks::default() };
    ArrivedRequest::new(marks, Arc::new(vec![json!({"role": "user", "content": "hi"})]), false)
}

fn done() -> ArrivedRequest {
    let session_header = Some("s".to_owned());
    let turn_type = Some("side".to_owned());
    let marks = RequestMarks { session_header, turn_type, session_done: true, ..RequestMarks::default() };
    ArrivedRequest::new(marks, Arc::default(), false)
}

fn arguments(address: &SessionsAddress) -> SessionsArguments {
    let journal = Journal::in_memory();
    SessionsArguments { config: SessionsConfig::default(), journal, address: address.clone() }
}

#[tokio::test]
async fn a_request_finds_the_actor_that_took_the_place_of_a_stopped_one() {
    let address = SessionsAddress::default();
    let (first, ended) = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts");
    assert_eq!(address.arrive(request()).await.index, 1);
    first.stop(None);
    ended.await.expect("it ended");
    let waiting = tokio::spawn({
        let address = address.clone();
        async move { address.arrive(request()).await }
    });
    tokio::task::yield_now().await;
    let _second = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts again");
    assert_eq!(waiting.await.expect("no panic").kind, TurnKind::Main);
}

#[tokio::test]
async fn feedback_and_the_end_of_a_session_are_answered_after_their_commit() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let config = JournalConfig { dir: dir.path().to_owned(), retention: Retention::default() };
    let journal = Journal::open(config).expect("a journal");
    let mut writing = journal.start_writing().await.expect("it starts");
    let address = SessionsAddress::default();
    let sessions = SessionsConfig { teaches: true, ..SessionsConfig::default() };
    let arguments =
        SessionsArguments { config: sessions, journal: journal.clone(), address: address.clone() };
    Actor::spawn(None, Sessions, arguments).await.expect("it starts");
    let arrival = address.arrive(request()).await;
    let turn = Turn {
        session: arrival.session.clone(),
        ..tiny::turn(vec![json!({"role": "user", "content": "hi"})], "hello")
    };
    let mark = arrival.fingerprint.mark(&json!({"role": "assistant", "content": "hello"}));
    let turn = Arc::new(turn);
    let record = Record::TurnCompleted { turn: turn.clone(), mark: mark.clone() };
    journal.record(record).await.expect("written");
    address.complete(TurnCompleted { turn: turn.clone(), mark }).await;
    let is_told = async |waiting: usize, told: &tokio::task::JoinHandle<bool>| {
        let submitted = async {
            while journal.queue().waiting < waiting {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), submitted).await.expect("it is on its way");
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        told.is_finished()
    };

    // Nobody writes for a while: what is acknowledged now would be lost with the process.
    writing.stop().await;
    let feedback = Feedback { turn: turn.id.clone(), rating: Some(-1), text: Some("too stiff".into()) };
    let give = || {
        let (address, feedback) = (address.clone(), feedback.clone());
        tokio::spawn(async move { address.feedback(feedback).await == Some(FeedbackOutcome::Applied) })
    };
    let told = give();
    assert!(!is_told(2, &told).await, "before its commit");
    let repeated = give();
    assert!(!is_told(4, &repeated).await, "before its commit");
    let ended = tokio::spawn({
        let (address, request) = (address.clone(), done());
        async move { address.end(request).await.is_some() }
    });
    assert!(!is_told(5, &ended).await, "before its commit");
    let _writing = journal.start_writing().await.expect("it starts again");
    assert!(told.await.expect("no panic") && repeated.await.expect("no panic"));
    assert!(ended.await.expect("no panic"));
    let row = journal.turn(&turn.id).await.expect("read").expect("it is there");
    assert_eq!(row.next_state.and_then(|next| next.rating), Some(-1));
    let (totals, open) = (*journal.totals().borrow(), journal.open_turns(SystemTime::UNIX_EPOCH).await);
    assert_eq!((totals.next_states, totals.corrected), (1, 1), "said twice, it counts once");
    assert!(open.expect("read")[0].mark.last, "no later request answers it");
}

#[tokio::test(start_paused = true)]
async fn without_the_actor_a_request_becomes_a_side_turn() {
    let arrival = SessionsAddress::default().arrive(request()).await;
    assert_eq!((arrival.kind, arrival.session.to_string().as_str()), (TurnKind::Side, "s"));
}

/// A turn of session `s` that was answered, known to the journal and to sessions; what it was asked, and its reply.
async fn answered(address: &SessionsAddress, journal: &Journal) -> (TurnId, [serde_json::Value; 2]) {
    let arrival = address.arrive(request()).await;
    let said = [json!({"role": "user", "content": "hi"}), json!({"role": "assistant", "content": "hello"})];
    let turn = Turn { session: arrival.session.clone(), ..tiny::turn(said[..1].to_vec(), "hello") };
    let (turn, mark) = (Arc::new(turn), arrival.fingerprint.mark(&said[1]));
    let record = Record::TurnCompleted { turn: turn.clone(), mark: mark.clone() };
    journal.record(record).await.expect("written");
    address.complete(TurnCompleted { turn: turn.clone(), mark }).await;
    (turn.id.clone(), said)
}

fn then(said: &[serde_json::Value], words: &str) -> ArrivedRequest {
    let next = json!({"role": "user", "content": words});
    let marks = RequestMarks { session_header: Some("s".to_owned()), ..RequestMarks::default() };
    ArrivedRequest::new(marks, Arc::new([said, &[next]].concat()), false)
}

fn judged(turn: &TurnId) -> Record {
    Record::Judged {
        turn: turn.clone(),
        undone: 0,
        verdict: Verdict { reward: Some(1), votes: Vec::new(), rule: None },
        answers: Vec::new(),
        hints: Vec::new(),
        hint_answers: Vec::new(),
        teach: false,
        wish: None,
    }
}

#[tokio::test]
async fn time_releases_a_turn_to_training_and_nothing_takes_it_back_from_a_batch() {
    let (journal, address) = (Journal::in_memory(), SessionsAddress::default());
    let config = SessionsConfig { settle_secs: 1, ..SessionsConfig::default() };
    let arguments = SessionsArguments { config, journal: journal.clone(), address: address.clone() };
    Actor::spawn(None, Sessions, arguments).await.expect("it starts");
    let (turn, said) = answered(&address, &journal).await;
    address.arrive(then(&said, "Name this chat.")).await;
    journal.record(judged(&turn)).await.expect("written");
    assert_eq!(journal.backlog().borrow().ready, 0);
    let in_time = Duration::from_secs(60);
    let mut backlog = journal.backlog();
    let settled = timeout(in_time, backlog.wait_for(|backlog| backlog.ready == 1)).await;
    settled.expect("time settles it").expect("the journal lives");
    let leased = Record::BatchLeased { step: 1, turns: vec![turn.clone()] };
    assert_eq!(journal.record(leased).await.expect("written"), Recorded::Done);
    // The person's words come too late.
    address.arrive(then(&said, "Thank you.")).await;
    journal.record(Record::TurnRetried { turn: TurnId("".into()) }).await.expect("written behind all that");
    let row = journal.turn(&turn).await.expect("read").expect("it is there");
    let next = row.next_state.map(|next| next.text);
    assert_eq!((row.state, next.as_deref()), (TurnState::Leased, Some("Name this chat.")));
}

#[tokio::test]
async fn a_next_state_that_was_learnt_from_is_told_from_one_that_is_taken_back_and_one_that_is_gone() {
    let (journal, address) = (Journal::in_memory(), SessionsAddress::default());
    let arguments = SessionsArguments {
        config: SessionsConfig { settle_secs: 0, ..SessionsConfig::default() },
        journal: journal.clone(),
        address: address.clone(),
    };
    Actor::spawn(None, Sessions, arguments).await.expect("it starts");
    let (turn, said) = answered(&address, &journal).await;
    address.arrive(then(&said, "Name this chat.")).await;
    journal.record(judged(&turn)).await.expect("written");
    let undo = async || journal.submit(Record::NextStateUndone { turn: turn.clone() }).await;
    let leased = Record::BatchLeased { step: 1, turns: vec![turn.clone()] };
    assert_eq!(journal.record(leased).await.expect("written"), Recorded::Done);
    assert!(is_too_late(&journal, &turn, undo().await).await);
    journal.record(Record::TurnDropped { turn: turn.clone(), reason: "test" }).await.expect("written");
    assert!(!is_too_late(&journal, &turn, undo().await).await, "nobody learns from it");
}

#[tokio::test]
async fn a_restart_settles_what_was_provisional() {
    let (journal, address) = (Journal::in_memory(), SessionsAddress::default());
    let arguments = || SessionsArguments {
        config: SessionsConfig::default(),
        journal: journal.clone(),
        address: address.clone(),
    };
    let (first, ended) = Actor::spawn(None, Sessions, arguments()).await.expect("it starts");
    let (turn, said) = answered(&address, &journal).await;
    address.arrive(then(&said, "Thank you.")).await;
    journal.record(judged(&turn)).await.expect("written");
    assert_eq!(journal.provisional_turns().await.expect("read"), [turn]);
    first.stop(None);
    ended.await.expect("it ended");
    Actor::spawn(None, Sessions, arguments()).await.expect("it starts again");
    let mut backlog = journal.backlog();
    backlog.wait_for(|backlog| backlog.ready == 1).await.expect("the journal lives");
    assert_eq!(journal.provisional_turns().await.expect("read"), []);
}
