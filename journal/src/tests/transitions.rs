use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::{model::Memory, *};

#[tokio::test]
async fn each_record_moves_its_turn_once_and_is_stale_in_every_other_state() {
    // What brings a fresh turn to each state.
    let ways: [(TurnState, Vec<Record>); 8] = [
        (TurnState::Waiting, vec![]),
        (TurnState::Followed, vec![followed("t")]),
        (TurnState::Judged, vec![followed("t"), judged("t", true)]),
        (TurnState::Ready, vec![followed("t"), judged("t", false)]),
        (TurnState::Leased, vec![followed("t"), judged("t", false), leased(1, &["t"])]),
        (TurnState::Trained, vec![followed("t"), judged("t", false), leased(1, &["t"]), step(1, &["t"])]),
        (TurnState::Dropped, vec![dropped("t")]),
        (
            TurnState::Quarantined,
            vec![followed("t"), judged("t", false), leased(1, &["t"]), withheld(1, &["t"])],
        ),
    ];
    let moves: [(&str, Record, &[TurnState], TurnState); 6] = [
        ("followed", followed("t"), &[TurnState::Waiting], TurnState::Followed),
        ("judged", judged("t", true), &[TurnState::Followed], TurnState::Judged),
        ("judged", judged("t", false), &[TurnState::Followed], TurnState::Ready),
        ("taught", taught("t"), &[TurnState::Judged], TurnState::Ready),
        ("leased", leased(7, &["t"]), &[TurnState::Ready, TurnState::Leased], TurnState::Leased),
        ("withheld", withheld(7, &["t"]), &[TurnState::Leased], TurnState::Quarantined),
    ];
    for (state, way) in &ways {
        for (name, record, from, to) in &moves {
            let journal = Journal::in_memory();
            journal.done(completed("t")).await;
            for before in way {
                journal.done(before.clone()).await;
            }
            let (totals, backlog) = (*journal.totals().borrow(), *journal.backlog().borrow());
            if from.contains(state) {
                journal.done(record.clone()).await;
                assert_eq!(journal.state("t").await, Some(*to), "{name} in {state:?}");
                assert!(journal.backlog().borrow().last_seq > backlog.last_seq);
            } else {
                journal.stale(record.clone()).await;
                assert_eq!(journal.state("t").await, Some(*state), "{name} in {state:?}");
                assert_eq!(*journal.totals().borrow(), totals, "{name} in {state:?}");
                assert_eq!(*journal.backlog().borrow(), backlog, "{name} in {state:?}");
            }
        }
        let journal = Journal::in_memory();
        journal.done(completed("t")).await;
        for before in way {
            journal.done(before.clone()).await;
        }
        journal.stale(completed("t")).await;
        let died = Record::TurnDied { turn: id("t"), inbox: "judge".to_owned(), attempts: 3, reason: None };
        if state.is_open() {
            journal.done(died.clone()).await;
            journal.done(dropped("t")).await;
            assert_eq!(journal.state("t").await, Some(TurnState::Dropped));
        }
        journal.stale(died).await;
        journal.stale(dropped("t")).await;
    }
    let journal = Journal::in_memory();
    for (_, record, ..) in moves {
        journal.stale(record).await;
    }
}

#[tokio::test]
async fn what_a_role_recorded_is_what_the_next_one_reads() {
    let journal = Journal::in_memory();
    journal.done(completed("a")).await;
    journal.done(followed("a")).await;
    let work = journal.evaluations(0, 10).await.expect("read");
    assert_eq!((&work[0].1.turn.id, &work[0].1.next_state), (&id("a"), &next_state()));
    assert!(journal.evaluations(work[0].0, 10).await.expect("read").is_empty(), "seen before");
    journal.done(judged("a", true)).await;
    assert!(journal.evaluations(0, 10).await.expect("read").is_empty());
    let work = journal.judged(0, 10).await.expect("read");
    assert_eq!(work[0].1.hints, ["Use no bold text."]);
    journal.done(taught("a")).await;
    let work = journal.samples(0, 10).await.expect("read");
    assert_eq!((work[0].1.verdict.reward, &work[0].1.teacher), (Some(-1), &Some(signal())));
    let row = journal.turn(&id("a")).await.expect("read").expect("it is known");
    assert_eq!((row.state, row.dead, row.next_state), (TurnState::Ready, false, Some(next_state())));
    assert!(journal.turn(&id("b")).await.expect("read").is_none());
}

#[tokio::test]
async fn a_turn_that_may_not_be_trained_on_is_answered_and_no_more() {
    let journal = Journal::in_memory();
    for (name, kind, trainable) in [("side", TurnKind::Side, true), ("private", TurnKind::Main, false)] {
        let turn = Arc::new(Turn { kind, trainable, ..turn(name) });
        journal.done(Record::TurnCompleted { turn, mark: mark(1) }).await;
        assert_eq!(journal.state(name).await, Some(TurnState::Answered));
        journal.stale(followed(name)).await;
        journal.stale(dropped(name)).await;
    }
    assert_eq!(*journal.backlog().borrow(), Backlog { last_seq: 2, ..Backlog::default() });
}

#[tokio::test]
async fn a_batch_is_leased_as_a_whole_or_not_at_all() {
    let journal = Journal::in_memory();
    journal.make_ready("a").await;
    journal.make_ready("b").await;
    journal.done(completed("c")).await;
    journal.stale(leased(1, &["a", "b", "c"])).await;
    assert_eq!(journal.backlog().borrow().ready, 2);
    assert_eq!(journal.trainable(&ids(&["a", "c", "b", "d"])).await.expect("read"), ids(&["a", "b"]));
    journal.done(leased(1, &["a", "b"])).await;
    // An optimizer that was restarted finds them leased by the one before it.
    journal.done(leased(2, &["b"])).await;
    journal.stale(leased(3, &[])).await;
    assert_eq!(journal.turn(&id("b")).await.expect("read").expect("known").step, Some(2));
}

#[tokio::test]
async fn a_step_without_a_checkpoint_leaves_its_turns_leased_for_the_next_one() {
    let journal = Journal::in_memory();
    journal.make_ready("a").await;
    journal.make_ready("b").await;
    journal.done(leased(1, &["a"])).await;
    journal.done(Record::StepCompleted(commit(1, &["a"], false))).await;
    assert_eq!(journal.state("a").await, Some(TurnState::Leased));
    assert!(journal.resumable_version().await.expect("read").is_none());
    journal.done(leased(2, &["b"])).await;
    journal.done(step(2, &["a", "b"])).await;
    journal.stale(step(2, &["a", "b"])).await;
    let totals = *journal.totals().borrow();
    assert_eq!((totals.steps, totals.trained), (2, 2));
    assert_eq!(journal.resumable_version().await.expect("read").expect("it has a folder").number, 2);
    let steps = journal.steps(10).await.expect("read");
    assert_eq!(steps.iter().map(|row| (row.step, row.turns)).collect::<Vec<_>>(), [(2, 2), (1, 1)]);
    assert!(steps[0].report.loss.is_nan());
}

#[tokio::test]
async fn version_numbers_only_grow_and_a_rollback_is_where_a_restart_goes_on() {
    let journal = Journal::in_memory();
    assert!(journal.current_version().await.expect("read").is_none());
    for version in [1, 2, 12] {
        journal.done(step(version, &[])).await;
        journal.done(Record::VersionPublished { version }).await;
        journal.stale(Record::VersionPublished { version }).await;
    }
    journal.stale(Record::VersionPublished { version: 9 }).await;
    journal.stale(Record::RolledBack { from: 12, to: 9 }).await;
    journal.done(Record::RolledBack { from: 12, to: 2 }).await;
    let number = |row: Option<VersionRow>| row.map(|row| row.number);
    assert_eq!(number(journal.current_version().await.expect("read")), Some(2));
    assert_eq!(number(journal.resumable_version().await.expect("read")), Some(2));
    assert_eq!(journal.last_version_number().await.expect("read"), 12);
    journal.done(step(13, &[])).await;
    assert_eq!(number(journal.current_version().await.expect("read")), Some(2), "not announced yet");
    assert_eq!(number(journal.resumable_version().await.expect("read")), Some(13));
    journal.done(Record::RolledBack { from: 2, to: 0 }).await;
    assert!(journal.current_version().await.expect("read").is_none(), "the base");
    let versions = journal.versions().await.expect("read");
    let shown: Vec<_> = versions.iter().map(|row| (row.number, row.published, row.checkpoint)).collect();
    assert_eq!(shown, [(1, true, true), (2, true, true), (12, true, true), (13, false, true)]);
    assert_eq!(versions[2].fingerprint, "print 12");
}

#[tokio::test]
async fn a_dead_turn_is_handed_out_again_when_it_is_retried() {
    let journal = Journal::in_memory();
    journal.done(completed("a")).await;
    journal.done(followed("a")).await;
    let seen = journal.evaluations(0, 10).await.expect("read")[0].0;
    let reason = Some("raise `a.key`".to_owned());
    journal.done(Record::TurnDied { turn: id("a"), inbox: "judge".to_owned(), attempts: 3, reason }).await;
    assert!(journal.evaluations(0, 10).await.expect("read").is_empty());
    let dead = journal.dead(10).await.expect("read");
    assert_eq!((&dead[0].turn, dead[0].state, dead[0].attempts), (&id("a"), TurnState::Followed, 3));
    assert_eq!(dead[0].reason.as_deref(), Some("raise `a.key`"));
    assert_eq!((journal.backlog().borrow().dead, journal.backlog().borrow().to_judge), (1, 0));
    journal.done(Record::TurnRetried { turn: id("a") }).await;
    journal.stale(Record::TurnRetried { turn: id("a") }).await;
    assert_eq!(journal.evaluations(seen, 10).await.expect("read").len(), 1, "it is new work");
    // A reader that was only slow has handled it after all.
    journal
        .done(Record::TurnDied { turn: id("a"), inbox: "judge".to_owned(), attempts: 3, reason: None })
        .await;
    journal.done(judged("a", false)).await;
    assert!(journal.dead(10).await.expect("read").is_empty());
}

#[tokio::test]
async fn sessions_find_the_turns_of_those_that_are_not_idle_and_all_that_wait() {
    let journal = Journal::in_memory();
    for (name, session) in [("a", "one"), ("b", "two"), ("c", "one")] {
        let turn = Arc::new(Turn { session: SessionId(session.into()), ..turn(name) });
        journal.done(Record::TurnCompleted { turn, mark: mark(3) }).await;
    }
    journal.done(followed("a")).await;
    let hour = Duration::from_secs(3600);
    let turns = journal.open_turns(SystemTime::now() - hour).await.expect("read");
    let shown = |turns: &[RecordedTurn]| -> Vec<_> {
        turns.iter().map(|found| (found.turn.to_string(), found.waiting)).collect()
    };
    let told = |turns: &[(&str, bool)]| -> Vec<_> {
        turns.iter().map(|(turn, waiting)| ((*turn).to_owned(), *waiting)).collect()
    };
    assert_eq!(shown(&turns), told(&[("a", false), ("b", true), ("c", true)]));
    assert_eq!(turns[1].mark, mark(3));
    assert_eq!(turns[0].mark.chain[..], mark(3).chain[mark(3).chain.len() - 1..]);
    let idle = journal.open_turns(SystemTime::now() + hour).await.expect("read");
    assert_eq!(shown(&idle), told(&[("b", true), ("c", true)]), "nothing settles what waits but its session");
}

#[tokio::test]
async fn what_operators_did_is_found_again() {
    let journal = Journal::in_memory();
    for verb in ["pause", "resume"] {
        let (target, outcome) = ("judge.0".to_owned(), "done".to_owned());
        journal.done(Record::Operated { verb: verb.to_owned(), target, outcome }).await;
    }
    let audit = journal.audit(1).await.expect("read");
    assert_eq!((audit.len(), &*audit[0].verb, &*audit[0].target), (1, "resume", "judge.0"));
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn any_record(dice: &mut SmallRng) -> Record {
    let name = *NAMES.choose(dice).expect("there are names");
    let some: Vec<&str> = (0..dice.random_range(0..3)).map(|_| *NAMES.choose(dice).expect("names")).collect();
    let number = dice.random_range(1..30);
    match dice.random_range(0..29) {
        0..4 => said(name),
        4..8 => followed(name),
        8..13 => {
            let record = maybe_about_another(judged(name, dice.random_bool(0.5)), dice);
            with_a_wish(record, dice)
        }
        13..15 => maybe_about_another(taught(name), dice),
        15 if dice.random_bool(0.3) => dropped(name),
        15 => Record::TurnDied { turn: id(name), inbox: "judge".to_owned(), attempts: 2, reason: None },
        16 => Record::TurnRetried { turn: id(name) },
        17 | 18 => leased(number, &some),
        19 if dice.random_bool(0.3) => withheld(number, &some),
        19 => Record::StepCompleted(commit(number, &some, dice.random_bool(0.5))),
        20 => Record::VersionPublished { version: number },
        21 if dice.random_bool(0.5) => {
            Record::VersionRestored { version: number, base: dice.random_range(0..5) }
        }
        21 => Record::VersionKept { version: number, turns: ids(&some) },
        22 => {
            // One at a time: two at once need not come back in the order of the collections.
            Record::VersionsUndone { versions: vec![number], to: number - 1 }
        }
        23 if dice.random_bool(0.3) => withdrawn(name),
        23 => rated(name, if dice.random_bool(0.5) { 1 } else { -1 }),
        24 if dice.random_bool(0.4) => undone(name),
        24 => settled(name),
        25 => seems_followed(name),
        26 if dice.random_bool(0.1) => Record::SessionEnded { session: SessionId("s".into()) },
        26 => corrected(name, if dice.random_bool(0.5) { "Use no bold text." } else { "Be brief." }),
        27 if dice.random_bool(0.2) => Record::WishWithdrawn { wish: number },
        27 => Record::WishVoiced { turn: id(name), wish: any_wish(dice) },
        _ => Record::RolledBack { from: 1, to: number },
    }
}

fn any_wish(dice: &mut SmallRng) -> String {
    let matters = [
        "bold text",
        "capitals",
        "commas",
        "lists",
        "thanks",
        "digits",
        "quotes",
        "jokes",
        "rhymes",
        "questions",
    ];
    let matter = matters.choose(dice).expect("ten");
    if dice.random_bool(0.5) { format!("Use {matter}.") } else { format!("no {matter}") }
}

fn with_a_wish(mut record: Record, dice: &mut SmallRng) -> Record {
    if let Record::Judged { wish, .. } = &mut record {
        *wish = dice.random_bool(0.2).then(|| any_wish(dice));
    }
    record
}

/// A turn of one of three sessions.
fn said(name: &str) -> Record {
    let session = ["s", "t", "u"][name.as_bytes()[0] as usize % 3];
    let turn = Turn { session: SessionId(session.into()), ..turn(name) };
    let before = u64::from(name.as_bytes()[0]);
    Record::TurnCompleted {
        turn: Arc::new(turn),
        mark: TurnMark { before, person: before % 5 / 4, ..mark(9) },
    }
}

const EPISODES: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];

/// As agents make them: episodes in the same three sessions, by themselves or in groups.
fn any_record_of_agents(dice: &mut SmallRng) -> Record {
    let id = EpisodeId((*EPISODES.choose(dice).expect("there are names")).into());
    match dice.random_range(0..12) {
        0 | 1 => {
            // A group may have the name of an episode.
            let groups = [None, Some(("g", 2)), Some(("g", 3)), Some(("p0", 2))];
            let group = *groups.choose(dice).expect("four");
            let session = *["s", "t", "u"].choose(dice).expect("three");
            Record::EpisodeBegan {
                episode: Episode {
                    id,
                    session: SessionId(session.into()),
                    environment: "sums".into(),
                    task: "add".into(),
                    seed: dice.random_bool(0.5).then_some(u64::MAX),
                    group: group.map(|(name, of)| Group { name: name.into(), of }),
                    judged: dice.random_bool(0.7),
                },
            }
        }
        2 if dice.random_bool(0.7) => {
            let reward = *[1.0, 0.5, -1.0].choose(dice).expect("three");
            let (success, numbers) = (dice.random_bool(0.5).then_some(reward > 0.0), BTreeMap::new());
            Record::EpisodeEnded { episode: id, outcome: Outcome { reward, success, numbers } }
        }
        2 => Record::EpisodeAbandoned { episode: id, reason: "the sandbox broke".to_owned() },
        3 if dice.random_bool(0.3) => {
            Record::GroupClosed { group: (*["g", "p0", "p1"].choose(dice).expect("three")).to_owned() }
        }
        3 => {
            let name = *NAMES.choose(dice).expect("there are names");
            Record::TurnDropped { turn: super::id(name), reason: "idle" }
        }
        _ => any_record(dice),
    }
}

/// Mostly of a turn whose next state was never taken back.
fn maybe_about_another(mut record: Record, dice: &mut SmallRng) -> Record {
    if let Record::Judged { undone, .. } | Record::Taught { undone, .. } = &mut record {
        *undone = *[0, 0, 0, 1, 2].choose(dice).expect("five");
    }
    record
}

async fn agrees(journal: &Journal, model: &Memory) {
    assert_eq!(*journal.totals().borrow(), model.totals);
    assert_eq!(*journal.backlog().borrow(), model.backlog());
    let standing = model.wishes.iter().filter(|wish| wish.stands);
    let standing: Vec<(u64, u64, &str)> = standing.map(|wish| (wish.no, wish.person, &*wish.text)).collect();
    let wishes = journal.wishes(None).await.expect("read");
    let found: Vec<(u64, u64, &str)> = wishes.iter().map(|row| (row.wish, row.person, &*row.text)).collect();
    assert_eq!(found, standing);
    fn seen<T, S>(work: Vec<(u64, T)>, show: impl Fn(&T) -> S) -> BTreeMap<u64, S> {
        work.iter().map(|(seq, work)| (*seq, show(work))).collect()
    }
    let turn = |work: &Evaluate| work.turn.id.clone();
    assert_eq!(
        seen(journal.evaluations(0, 100).await.expect("read"), turn),
        seen(model.evaluations(0, 100), turn)
    );
    let judged = |work: &Judged| (work.turn.id.clone(), work.verdict.clone(), work.hints.clone());
    assert_eq!(seen(journal.judged(0, 100).await.expect("read"), judged), seen(model.judged(0, 100), judged));
    let sample = |work: &Sample| {
        (work.turn.id.clone(), work.verdict.clone(), work.teacher.clone(), work.standing.clone())
    };
    assert_eq!(
        seen(journal.samples(0, 100).await.expect("read"), sample),
        seen(model.samples(0, 100), sample)
    );
    let all = ids(&NAMES);
    assert_eq!(journal.trainable(&all).await.expect("read"), model.trainable(&all));
    assert_eq!(journal.provisional_turns().await.expect("read"), model.provisional_turns());
    let open = |turns: Vec<RecordedTurn>| -> Vec<_> {
        turns.into_iter().map(|found| (found.turn, found.waiting, found.mark.last)).collect()
    };
    let since = SystemTime::UNIX_EPOCH;
    assert_eq!(open(journal.open_turns(since).await.expect("read")), open(model.open_turns(since)));
    let version = |row: &VersionRow| (row.number, row.step, row.base, row.published, row.checkpoint);
    let versions: Vec<_> = journal.versions().await.expect("read").iter().map(version).collect();
    assert_eq!(versions, model.versions.values().map(version).collect::<Vec<_>>());
    let number = |row: Option<VersionRow>| row.map(|row| row.number);
    let known = |number| model.versions.get(&number).map(|row| row.number);
    assert_eq!(number(journal.current_version().await.expect("read")), known(model.current));
    assert_eq!(number(journal.resumable_version().await.expect("read")), known(model.resumable));
    let step = |row: &StepRow| (row.step, row.version, row.withheld.clone(), row.turns);
    let steps: Vec<_> = journal.steps(1000).await.expect("read").iter().map(step).collect();
    assert_eq!(steps, model.steps.iter().rev().map(step).collect::<Vec<_>>());
    let dead: std::collections::BTreeSet<_> =
        journal.dead(100).await.expect("read").into_iter().map(|row| (row.turn, row.state.name())).collect();
    assert_eq!(dead, model.dead().into_iter().map(|row| (row.turn, row.state.name())).collect());
    for (id, played) in &model.episodes {
        let (row, steps) = journal.episode(id).await.expect("read").expect("it is known");
        assert_eq!((&row.episode, &row.state), (&played.episode, &played.state), "{id}");
        assert_eq!(steps, played.steps.clone().into_iter().collect::<Vec<_>>(), "{id}");
    }
    assert_eq!(journal.episodes(u64::MAX, 100).await.expect("read").len(), model.episodes.len());
    // Nothing is learnt from an episode without an outcome.
    for (turn, state) in model.of_abandoned() {
        let row = journal.turn(&turn).await.expect("read").expect("it is known");
        assert_eq!((row.state, state), (TurnState::Dropped, TurnState::Dropped), "{turn}");
    }
}

#[tokio::test]
async fn any_sequence_of_records_ends_where_plain_collections_end() {
    for (any, seeds) in [(any_record as fn(&mut SmallRng) -> Record, 0..12), (any_record_of_agents, 12..60)] {
        for seed in seeds {
            let mut dice = SmallRng::seed_from_u64(seed);
            let (journal, mut model) = (Journal::in_memory(), Memory::default());
            for _ in 0..300 {
                let record = any(&mut dice);
                let expected = model.apply(&record);
                let shown = format!("seed {seed}: {record:?}");
                assert_eq!(journal.record(record).await.expect("it is written"), expected, "{shown}");
                if dice.random_bool(0.05) {
                    agrees(&journal, &model).await;
                }
            }
            agrees(&journal, &model).await;
        }
    }
}

#[tokio::test]
async fn a_journal_opened_again_goes_on_where_it_ended() {
    for (any, seeds) in
        [(any_record as fn(&mut SmallRng) -> Record, 100..103), (any_record_of_agents, 103..109)]
    {
        for seed in seeds {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let mut dice = SmallRng::seed_from_u64(seed);
            let mut model = Memory::default();
            for name in &NAMES[..5] {
                let run = Run::start(config(dir.path())).await;
                agrees(&run.journal, &model).await;
                for _ in 0..dice.random_range(1..40) {
                    let record = any(&mut dice);
                    model.apply(&record);
                    run.journal.submit(record).await;
                }
                // What was submitted has no answer; what follows it does.
                let last = said(name);
                let expected = model.apply(&last);
                assert_eq!(run.journal.record(last).await.expect("it is written"), expected);
                agrees(&run.journal, &model).await;
                if dice.random_bool(0.5) {
                    run.stop().await;
                } else {
                    run.kill();
                }
                model.reopen();
            }
        }
    }
}
