use super::*;

const SOON: Duration = Duration::from_millis(1);

async fn gone(journal: &Journal, name: &str) {
    while journal.state(name).await.is_some() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn old_settled_turns_leave_and_open_ones_stay() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let retention = Retention { keep: Duration::ZERO, period: SOON, ..Retention::default() };
    let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
    let journal = &run.journal;
    for name in ["waiting", "followed", "judged", "dropped"] {
        journal.done(completed(name)).await;
    }
    for name in ["ready", "leased", "trained", "quarantined"] {
        journal.make_ready(name).await;
    }
    journal.done(followed("followed")).await;
    journal.done(followed("judged")).await;
    journal.done(judged("judged", true)).await;
    journal.done(dropped("dropped")).await;
    journal.done(leased(1, &["leased", "trained"])).await;
    journal.done(step(1, &["trained"])).await;
    journal.done(leased(2, &["quarantined"])).await;
    journal.done(withheld(2, &["quarantined"])).await;
    for name in ["dropped", "trained", "quarantined"] {
        gone(journal, name).await;
    }
    for name in ["waiting", "followed", "judged", "ready", "leased"] {
        assert_eq!(journal.state(name).await.map(TurnState::name), Some(name));
    }
    assert_eq!((journal.totals().borrow().turns, journal.totals().borrow().trained), (8, 1));
    run.stop().await;
    let run = Run::start(config(dir.path())).await;
    assert_eq!(run.journal.totals().borrow().trained, 1, "counted on over what left");
}

#[tokio::test]
async fn beyond_its_size_the_oldest_settled_turns_leave_and_the_file_shrinks() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let max_bytes = 2 << 20;
    let retention = Retention { max_bytes, period: SOON, ..Retention::default() };
    let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
    run.journal.done(completed("first")).await;
    for n in 0..200 {
        let name = format!("turn-{n}");
        let mut turn = turn(&name);
        turn.completion.prompt_ids = files::scattered(n, 12_500);
        turn.trainable = n % 100 != 0;
        run.journal.submit(Record::TurnCompleted { turn: Arc::new(turn), mark: mark(n) }).await;
        run.journal.submit(dropped(&name)).await;
    }
    run.journal.done(completed("last")).await;
    let size = || {
        let connection = run.journal.shared.parts.store.writing();
        super::super::retention::size_bytes(&connection).expect("read")
    };
    while size() > max_bytes {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(run.journal.state("turn-0").await.is_none(), "the oldest");
    assert!(run.journal.state("turn-199").await.is_some(), "the newest settled one");
    assert_eq!(run.journal.state("first").await, Some(TurnState::Waiting), "open, whatever its age");
    run.stop().await;
    let file = std::fs::metadata(dir.path().join("journal.db")).expect("a file").len();
    assert!(file < 2 * max_bytes, "{file} bytes");
}

#[tokio::test]
async fn beyond_its_backlog_the_oldest_turns_that_nobody_judged_are_dropped() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let retention = Retention { max_backlog_turns: 3, ..Retention::default() };
    let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
    run.journal.make_ready("ready").await;
    for name in ["a", "b", "c", "d"] {
        run.journal.done(completed(name)).await;
        if name == "b" {
            run.journal.done(followed(name)).await;
        }
    }
    let mut totals = run.journal.totals();
    totals.wait_for(|totals| totals.dropped == 2).await.expect("the journal lives");
    for (name, state) in [
        ("ready", TurnState::Ready),
        ("a", TurnState::Dropped),
        ("b", TurnState::Dropped),
        ("c", TurnState::Waiting),
        ("d", TurnState::Waiting),
    ] {
        assert_eq!(run.journal.state(name).await, Some(state), "{name}");
    }
    let row = run.journal.turn(&id("a")).await.expect("read").expect("it is kept");
    assert_eq!(row.reason.as_deref(), Some("backlog"));
}

/// A turn of its own session that holds so many bytes, in a file where that is much.
fn holding(name: &str, seed: u64, bytes: usize) -> Record {
    let mut turn = turn(name);
    turn.session = SessionId(name.into());
    turn.completion.prompt_ids = files::scattered(seed, bytes / 4);
    Record::TurnCompleted { turn: Arc::new(turn), mark: mark(1) }
}

#[tokio::test]
async fn its_size_bounds_open_turns_and_files_and_what_goes_is_dropped_for_a_reason() {
    for bytes in [40_000, 400_000] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let max_bytes = 2 << 20;
        // No look is due in the time of this test: what is written calls for it.
        let retention = Retention { max_bytes, period: Duration::from_secs(3600), ..Retention::default() };
        let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
        let journal = &run.journal;
        journal.done(holding("judged", 0, bytes)).await;
        journal.done(followed("judged")).await;
        journal.done(judged("judged", false)).await;
        let mut most = 0;
        for n in 1..=200 {
            journal.done(holding(&format!("turn-{n}"), n, bytes)).await;
            most = most.max(crate::inspect(dir.path()).expect("a look").expect("a journal").bytes);
        }
        assert_eq!(journal.state("judged").await, Some(TurnState::Ready), "it is owed to training");
        assert_eq!(journal.state("turn-200").await, Some(TurnState::Waiting), "the newest");
        let Totals { turns, dropped, .. } = *journal.totals().borrow();
        let waiting = journal.backlog().borrow().waiting;
        assert_eq!((turns, dropped + waiting), (201, 200), "each is counted");
        assert!(dropped > 100, "{dropped} of {bytes}");
        // The log beside the database, and what is written between two looks.
        assert!(most < max_bytes + (7 << 20), "{most}");
        let kept = crate::retention::size_bytes(&journal.shared.parts.store.writing()).expect("read");
        assert!(kept < max_bytes + max_bytes / 4, "{kept}");
        let held: Vec<_> = journal.dead(10).await.expect("read");
        assert!(held.is_empty(), "dropped is not dead");
        run.stop().await;
    }
}

#[tokio::test]
async fn beyond_its_size_a_turn_is_dropped_for_that_and_what_is_settled_leaves_first() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let retention = Retention { max_bytes: 1 << 20, ..Retention::default() };
    let run = Run::start(JournalConfig { retention: Retention::default(), ..config(dir.path()) }).await;
    let journal = &run.journal;
    for n in 0..10 {
        journal.done(holding(&format!("turn-{n}"), n, 200_000)).await;
    }
    journal.done(dropped("turn-9")).await;
    let store = &journal.shared.parts.store;
    let mut tally = { crate::tally::Tally::load(&store.writing()).expect("read") };
    let mut shed = || crate::retention::shed(store, &retention, &mut tally, 0, true).expect("it sheds");
    assert_eq!(shed(), None, "what is settled leaves first");
    let pruned = crate::retention::prune(store, &retention, SystemTime::now()).expect("it prunes");
    assert_eq!((pruned.turns, pruned.more), (1, true));
    let (turns, reason) = shed().expect("the rest is open");
    assert!(reason == "size" && (4..=6).contains(&turns), "{turns} for {reason}");
    let row = journal.turn(&id("turn-0")).await.expect("read").expect("it is kept");
    assert_eq!((row.state, row.reason.as_deref()), (TurnState::Dropped, Some("size")));
    assert_eq!(journal.state("turn-8").await, Some(TurnState::Waiting));
}

#[tokio::test]
async fn small_rows_are_bounded_and_the_version_in_use_stays() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let retention = Retention { period: SOON, ..Retention::default() };
    let run = Run::start(JournalConfig { retention, ..config(dir.path()) }).await;
    run.journal.done(step(1, &[])).await;
    run.journal.done(step(2, &[])).await;
    run.journal.done(Record::RolledBack { from: 2, to: 1 }).await;
    run.journal.done(step(20_000, &[])).await;
    run.journal.done(Record::RolledBack { from: 20_000, to: 1 }).await;
    let versions = loop {
        let versions = run.journal.versions().await.expect("read");
        if versions.len() < 3 {
            break versions;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(versions.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 20_000]);
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is pruned by one look at `now`.
fn prune_at(journal: &Journal, keep_days: u32, now: SystemTime) -> usize {
    let retention = Retention { keep: keep_days * DAY, ..Retention::default() };
    crate::retention::prune(&journal.shared.parts.store, &retention, now).expect("it prunes").turns
}

#[tokio::test]
async fn a_clock_that_is_set_forward_costs_nothing_that_time_would_not() {
    let journal = Journal::in_memory();
    for name in ["a", "b"] {
        journal.make_ready(name).await;
    }
    journal.done(leased(1, &["a", "b"])).await;
    journal.done(step(1, &["a", "b"])).await;
    let now = SystemTime::now() + Duration::from_secs(1);
    for jump in [40, 400, 4000] {
        assert_eq!(prune_at(&journal, 30, now + jump * DAY), 0, "{jump} days ahead");
    }
    // Set right again, and lived through: then they are old.
    for day in 0..33 {
        assert_eq!(prune_at(&journal, 30, now + day * DAY), if day == 30 { 2 } else { 0 }, "day {day}");
    }
}

#[tokio::test]
async fn what_is_too_large_loses_no_more_than_it_takes() {
    let journal = Journal::in_memory();
    let size = || crate::retention::size_bytes(&journal.shared.parts.store.writing()).expect("read");
    for n in 0..60 {
        let name = format!("turn-{n}");
        let mut turn = turn(&name);
        turn.completion.prompt_ids = files::scattered(n, 25_000);
        journal.done(Record::TurnCompleted { turn: Arc::new(turn), mark: mark(n) }).await;
        journal.done(dropped(&name)).await;
    }
    let retention = Retention { max_bytes: size() - 250_000, ..Retention::default() };
    let store = &journal.shared.parts.store;
    let pruned = crate::retention::prune(store, &retention, SystemTime::now()).expect("it prunes");
    assert!((2..=4).contains(&pruned.turns), "{} of 60", pruned.turns);
    assert!(journal.state("turn-0").await.is_none() && journal.state("turn-59").await.is_some());
}

#[test]
fn a_clock_that_is_set_is_told_from_one_that_goes_on() {
    use std::time::Instant;
    let mut clock = crate::writer::Clock::default();
    let (start, wall) = (Instant::now(), SystemTime::now());
    let mut at = |secs: u64, shown: i64| {
        let shown = wall.checked_add(Duration::from_secs(100_000)).expect("a time")
            - Duration::from_secs((100_000 - shown) as u64);
        clock.jump(start + Duration::from_secs(secs), shown)
    };
    assert_eq!(at(0, 0), None, "nothing to compare with");
    assert_eq!(at(10, 10), None);
    assert_eq!(at(20, 90_020), Some(90_000));
    assert_eq!(at(30, 90_030), None);
    assert_eq!(at(40, 40), Some(-90_000));
}
