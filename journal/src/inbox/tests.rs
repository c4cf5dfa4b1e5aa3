//! Readers that ack, panic, are killed, or find that nothing can be done.

use std::future::Future;

use super::*;

fn inbox(capacity: usize, max_attempts: u32) -> Inbox<u32> {
    Inbox::new("test", InboxLimits { capacity, max_attempts })
}

#[tokio::test]
async fn a_dropped_lease_is_redelivered_first() {
    let inbox = inbox(4, 3);
    inbox.send(1).await;
    inbox.send(2).await;
    drop(inbox.lease().await);
    let again = inbox.lease().await;
    assert_eq!(*again, 1);
    again.ack();
    assert_eq!(*inbox.lease().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_keeps_failing_becomes_a_dead_letter_and_frees_its_place() {
    let inbox = inbox(1, 2);
    inbox.send(7).await;
    for _ in 0..2 {
        inbox.lease().await.fail();
    }
    let status = inbox.status();
    assert_eq!((status.waiting, status.leased, status.dead_letters, status.capacity), (0, 0, 1, 1));
    for _ in 0..2 {
        assert_eq!(inbox.dead_letter(|message, attempts, _| (*message, attempts)).await, (7, 2), "it stays");
    }
    inbox.bury();
    inbox.send(8).await;
    for _ in 0..2 {
        inbox.lease().await.fail();
    }
    assert_eq!(inbox.dead_letter(|message, _, _| *message).await, 8);
}

#[tokio::test(start_paused = true)]
async fn why_a_message_fails_is_told_until_it_is_done_or_dead_and_then_with_the_dead_letter() {
    let inbox = inbox(4, 2);
    inbox.send(1).await;
    inbox.send(2).await;
    inbox.lease().await.fail_for("slow");
    assert_eq!(inbox.failing().as_deref(), Some("slow"));
    inbox.lease().await.ack();
    inbox.lease().await.ack();
    assert_eq!(inbox.failing(), None);
    inbox.send(3).await;
    for reason in ["slow", "slower"] {
        inbox.lease().await.fail_for(reason);
    }
    let read = |message: &u32, tried: u32, reason: Option<&str>| (*message, tried, reason.map(str::to_owned));
    assert_eq!(inbox.dead_letter(read).await, (3, 2, Some("slower".to_owned())));
    assert_eq!(inbox.failing(), None);
}

#[tokio::test(start_paused = true)]
async fn work_for_somebody_who_is_away_rests_longer_each_time_and_never_dies() {
    let inbox = inbox(4, 2);
    inbox.send(1).await;
    let mut rests = Vec::new();
    for _ in 0..10 {
        let lease = inbox.lease().await;
        assert_eq!(lease.attempt(), 0);
        let given_back = Instant::now();
        lease.postpone();
        assert_eq!((inbox.status().resting, inbox.status().waiting, inbox.depth()), (1, 1, 1));
        assert!(inbox.try_lease().is_none(), "it rests");
        drop(inbox.lease().await);
        rests.push(given_back.elapsed().as_secs());
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    assert_eq!((inbox.status().redeliveries, inbox.status().dead_letters), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_others_rest_is_read_at_once() {
    let inbox = inbox(4, 2);
    inbox.send(1).await;
    inbox.lease().await.postpone();
    inbox.send(2).await;
    assert_eq!(*inbox.lease().await, 2);
}

#[tokio::test]
async fn a_reader_that_is_killed_uses_up_no_attempt_until_it_is_killed_with_it_again_and_again() {
    let inbox = inbox(4, 2);
    inbox.send(1).await;
    for killed in 0..MOST_INTERRUPTIONS {
        assert_eq!(inbox.status().dead_letters, 0, "after {killed}");
        let lease = inbox.lease().await;
        assert_eq!(lease.attempt(), 0);
        drop(lease);
    }
    assert_eq!((inbox.depth(), inbox.status().dead_letters), (0, 1));
}

#[tokio::test]
async fn a_place_is_free_after_the_ack_not_after_the_lease() {
    let inbox = inbox(1, 3);
    inbox.send(1).await;
    let lease = inbox.lease().await;
    assert_eq!(inbox.try_send(2), Err(Full(2)));
    let waiting_sender = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.send(3).await }
    });
    lease.ack();
    waiting_sender.await.expect("the sender does not panic");
    assert_eq!(*inbox.lease().await, 3);
}

#[tokio::test]
async fn a_paused_inbox_takes_and_keeps_messages() {
    let inbox = inbox(4, 3);
    inbox.pause();
    inbox.send(1).await;
    assert!(inbox.try_lease().is_none());
    let reader = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.lease().await.ack() }
    });
    inbox.resume();
    reader.await.expect("the reader gets the message after the pause");
    assert_eq!(inbox.depth(), 0);
}

#[tokio::test]
async fn every_reader_waiting_is_woken_even_when_one_gives_up() {
    let inbox = inbox(8, 3);
    {
        // A reader that is told of a message and goes away before it looks.
        let mut impatient = Box::pin(inbox.lease());
        let waker = futures::task::noop_waker();
        let mut context = std::task::Context::from_waker(&waker);
        assert!(impatient.as_mut().poll(&mut context).is_pending());
        inbox.send(1).await;
    }
    assert_eq!(*inbox.lease().await, 1);
}

#[tokio::test]
async fn a_panicking_reader_loses_nothing() {
    let inbox = inbox(16, 3);
    for n in 0..10 {
        inbox.send(n).await;
    }
    let reader = tokio::spawn({
        let inbox = inbox.clone();
        async move {
            loop {
                let lease = inbox.lease().await;
                assert!(*lease != 4 || lease.attempt() > 0, "four");
                lease.ack();
            }
        }
    });
    assert!(reader.await.expect_err("the reader ends by its panic").is_panic());
    let mut left = Vec::new();
    while let Some(lease) = inbox.try_lease() {
        left.push(*lease);
        lease.ack();
    }
    assert_eq!(left, [4, 5, 6, 7, 8, 9]);
}
