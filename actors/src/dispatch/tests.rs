//! What is committed arrives, once and in order, whatever dies on the way.

use super::*;
use crate::tiny::{message, turn, user_says};
use openclaw_journal::{TurnMark, inbox::InboxLimits};

async fn followed(journal: &Journal, number: usize) -> TurnId {
    let mut turn = turn(vec![message("user", "2 + 2?")], "4");
    turn.id = TurnId(format!("turn-{number}").into());
    let id = turn.id.clone();
    let completed = Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark::default() };
    journal.submit(completed).await;
    let next_state = user_says(&format!("{number}"));
    journal
        .record(Record::NextStateSeen { turn: id.clone(), next_state, provisional: false })
        .await
        .expect("recorded");
    id
}

fn arguments(journal: &Journal, inbox: &Inbox<Evaluate>) -> DispatcherArguments {
    let evaluations = Some(Route::to(inbox.clone()));
    DispatcherArguments { journal: journal.clone(), evaluations, judged: None, samples: None }
}

#[tokio::test]
async fn a_full_inbox_is_a_backlog_in_the_journal_and_a_killed_dispatcher_repeats_nothing() {
    let journal = Journal::in_memory();
    let inbox = Inbox::new("judge", InboxLimits { capacity: 3, ..InboxLimits::default() });
    let arguments = arguments(&journal, &inbox);
    for number in 0..40 {
        followed(&journal, number).await;
    }
    let mut arrived = Vec::new();
    for _ in 0..10 {
        let (dispatcher, ended) = Actor::spawn(None, Dispatcher, arguments.clone()).await.expect("it starts");
        for _ in 0..4 {
            let lease = inbox.lease().await;
            assert!(inbox.depth() <= 3);
            arrived.push(lease.next_state.text.clone());
            lease.ack();
        }
        dispatcher.kill();
        ended.await.expect("it ends");
    }
    let expected: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn what_is_committed_later_is_carried_too_and_what_was_judged_is_not() {
    let journal = Journal::in_memory();
    let inbox = Inbox::new("judge", InboxLimits::default());
    let gone = followed(&journal, 1).await;
    journal.record(Record::TurnDropped { turn: gone, reason: "retried" }).await.expect("recorded");
    Actor::spawn(None, Dispatcher, arguments(&journal, &inbox)).await.expect("it starts");
    for number in 2..5 {
        let id = followed(&journal, number).await;
        let lease = inbox.lease().await;
        assert_eq!(lease.turn.id, id);
        lease.ack();
    }
    assert_eq!(inbox.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_its_inbox_gave_up_is_dead_in_the_journal_until_it_is_retried() {
    let journal = Journal::in_memory();
    let inbox = Inbox::new("judge", InboxLimits { max_attempts: 2, ..InboxLimits::default() });
    Actor::spawn(None, Dispatcher, arguments(&journal, &inbox)).await.expect("it starts");
    let id = followed(&journal, 1).await;
    for _ in 0..2 {
        inbox.lease().await.fail();
    }
    let mut backlog = journal.backlog();
    backlog.wait_for(|backlog| backlog.dead == 1).await.expect("the journal lives");
    let dead = journal.dead(10).await.expect("read").remove(0);
    assert_eq!((dead.turn, dead.inbox.as_str(), dead.attempts), (id.clone(), "judge", 2));
    journal.record(Record::TurnRetried { turn: id.clone() }).await.expect("recorded");
    assert_eq!(inbox.lease().await.turn.id, id);
}
