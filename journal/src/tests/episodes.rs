use super::*;

fn episode(name: &str, group: Option<(&str, u32)>, judged: bool) -> Episode {
    Episode {
        id: EpisodeId(name.into()),
        session: SessionId(format!("session of {name}").into()),
        environment: "tool_call".into(),
        task: "add".into(),
        seed: Some(u64::MAX - 7),
        group: group.map(|(name, of)| Group { name: name.into(), of }),
        judged,
    }
}

fn began(name: &str, group: Option<(&str, u32)>) -> Record {
    Record::EpisodeBegan { episode: episode(name, group, true) }
}

fn came_out(name: &str, reward: f32) -> Record {
    let numbers = [("tests".to_owned(), 3.0)].into();
    let outcome = Outcome { reward, success: Some(reward > 0.0), numbers };
    Record::EpisodeEnded { episode: EpisodeId(name.into()), outcome }
}

fn abandoned(name: &str) -> Record {
    Record::EpisodeAbandoned { episode: EpisodeId(name.into()), reason: "the sandbox broke".to_owned() }
}

/// A step of this episode, whose state before it has this name.
fn acted(episode: &str, name: &str, state: u64) -> Record {
    let turn = Turn { session: SessionId(format!("session of {episode}").into()), ..turn(name) };
    Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark { before: state, ..mark(9) } }
}

fn votes(name: &str, votes: &[i8]) -> Record {
    let Record::Judged { turn, undone, answers, hints, hint_answers, .. } = judged(name, false) else {
        unreachable!("it is made so")
    };
    let votes: Vec<Vote> = votes.iter().copied().map(Some).collect();
    let verdict = Verdict { reward: votes[0], votes, rule: None };
    Record::Judged { turn, undone, verdict, answers, hints, hint_answers, teach: false, wish: None }
}

async fn all(journal: &Journal, records: impl IntoIterator<Item = Record>) {
    for record in records {
        journal.done(record).await;
    }
}

#[tokio::test]
async fn steps_wait_for_their_outcome_and_for_the_rest_of_their_group() {
    let journal = Journal::in_memory();
    let group = Some(("g", 2));
    all(&journal, [began("a", group), began("b", group)]).await;
    all(&journal, [acted("a", "a0", 5), followed("a0"), acted("a", "a1", 6), acted("b", "b0", 5)]).await;
    journal.done(votes("a0", &[1, 1, -1, 1])).await;
    assert_eq!(journal.state("a0").await, Some(TurnState::Held));
    journal.done(came_out("a", 1.0)).await;
    // Nothing follows the last step.
    assert_eq!(journal.state("a1").await, Some(TurnState::Held));
    assert_eq!(journal.backlog().borrow().held, 2);
    assert!(journal.samples(0, 10).await.expect("read").is_empty(), "b goes on");
    journal.done(came_out("b", -1.0)).await;
    let samples = journal.samples(0, 10).await.expect("read");
    assert_eq!(journal.backlog().borrow().ready, 3);
    assert_eq!(journal.totals().borrow().samples, 3);
    let standing: Vec<_> =
        samples.iter().map(|(_, sample)| sample.standing.clone().expect("a step")).collect();
    let places: Vec<_> = standing.iter().map(|one| (&*one.episode.id.0, one.step)).collect();
    assert_eq!(places, [("a", 0), ("a", 1), ("b", 0)]);
    let own = standing[0].own().expect("it came out");
    assert_eq!((own.outcome.reward, own.outcome.success), (1.0, Some(true)));
    let step = |place: u32| own.steps[&place].clone();
    assert_eq!((step(0).score, step(0).state, step(1).score), (Some(0.5), 5, None));
    assert_eq!(standing[0].episode.seed, Some(u64::MAX - 7));
    let rewards: Vec<f32> = standing[0].group.iter().map(|one| one.outcome.reward).collect();
    assert_eq!(rewards, [1.0, -1.0]);
    assert_eq!(samples[1].1.verdict.reward, None, "nobody judged it");

    // What is trained on and leaves changes nothing of what the others of the group see.
    all(&journal, [leased(1, &["a0", "b0"]), step_of(1, &["a0", "b0"])]).await;
    let left = journal.samples(0, 10).await.expect("read");
    assert_eq!(left[0].1.standing.as_ref().map(|one| one.group.clone()), Some(standing[0].group.clone()));
    // Nor does what an optimizer gives up.
    journal.done(dropped("a1")).await;
    let (row, steps) = journal.episode(&EpisodeId("a".into())).await.expect("read").expect("known");
    assert_eq!((row.steps, steps.len(), &row.episode), (2, 2, &episode("a", group, true)));
    assert!(matches!(row.state, EpisodeState::Ended(Outcome { reward: 1.0, .. })));
}

fn step_of(number: u64, turns: &[&str]) -> Record {
    step(number, turns)
}

#[tokio::test]
async fn a_group_waits_for_judges_and_for_nobody_who_gave_up() {
    let journal = Journal::in_memory();
    let group = Some(("g", 3));
    all(&journal, [began("a", group), began("b", group), began("c", group)]).await;
    all(&journal, [acted("a", "a0", 1), followed("a0"), acted("b", "b0", 1), acted("c", "c0", 1)]).await;
    all(&journal, [followed("c0"), came_out("a", 1.0), came_out("b", 0.0), abandoned("c")]).await;
    // An episode without an outcome teaches nothing, and is no zero.
    assert_eq!(journal.state("c0").await, Some(TurnState::Dropped));
    assert_eq!(journal.state("b0").await, Some(TurnState::Held), "a0 is at the judge");
    journal.done(votes("a0", &[1])).await;
    assert_eq!(journal.state("a0").await, Some(TurnState::Ready));
    let samples = journal.samples(0, 10).await.expect("read");
    assert_eq!(samples[0].1.standing.as_ref().expect("a step").group.len(), 2);
    for record in [came_out("a", 0.5), abandoned("b"), began("a", None), came_out("unknown", 1.0)] {
        journal.stale(record).await;
    }

    // A dead turn, one taken out and one that nobody could judge.
    for (name, last) in [
        ("dead", Record::TurnDied { turn: id("dead0"), inbox: "judge".into(), attempts: 3, reason: None }),
        ("out", withdrawn("out0")),
        ("lost", dropped("lost0")),
    ] {
        let (first, second) = (format!("{name}0"), format!("{name}1"));
        all(&journal, [began(name, None), acted(name, &first, 1), followed(&first)]).await;
        all(&journal, [acted(name, &second, 2), came_out(name, 1.0)]).await;
        assert_eq!(journal.state(&second).await, Some(TurnState::Held), "{name}");
        journal.done(last).await;
        assert_eq!(journal.state(&second).await, Some(TurnState::Ready), "{name}");
    }
    // A dead turn that is retried comes behind the others.
    all(&journal, [Record::TurnRetried { turn: id("dead0") }, votes("dead0", &[1])]).await;
    assert_eq!(journal.state("dead0").await, Some(TurnState::Ready));
}

#[tokio::test]
async fn a_conversation_that_ends_under_an_episode_leaves_its_last_step_to_the_outcome() {
    let journal = Journal::in_memory();
    for (name, reason) in [("a", "idle"), ("b", "session_done"), ("c", "size")] {
        let turn = format!("{name}0");
        all(&journal, [began(name, None), acted(name, &turn, 1)]).await;
        journal.done(Record::TurnDropped { turn: id(&turn), reason }).await;
        let kept = if reason == "size" { TurnState::Dropped } else { TurnState::Held };
        assert_eq!(journal.state(&turn).await, Some(kept), "{reason}");
        journal.done(came_out(name, 1.0)).await;
    }
    assert_eq!(journal.backlog().borrow().ready, 2);
    // Behind its end a session has no episode, and may have another.
    all(&journal, [acted("a", "after", 1), dropped("after"), began("d", None)]).await;
    let again = Episode { session: SessionId("session of a".into()), ..episode("again", None, true) };
    journal.done(Record::EpisodeBegan { episode: again.clone() }).await;
    let other = Episode { id: EpisodeId("other".into()), ..again };
    journal.stale(Record::EpisodeBegan { episode: other }).await;
    let row = journal.episode_in(&SessionId("session of a".into())).await.expect("read").expect("known");
    assert_eq!(&*row.episode.id.0, "again");
}

#[tokio::test]
async fn where_the_outcome_alone_counts_nobody_judges_and_what_follows_is_kept() {
    let journal = Journal::in_memory();
    journal.done(Record::EpisodeBegan { episode: episode("a", None, false) }).await;
    all(&journal, [acted("a", "a0", 1), seems_followed("a0"), acted("a", "a1", 2)]).await;
    assert!(journal.evaluations(0, 10).await.expect("read").is_empty());
    assert_eq!(journal.state("a0").await, Some(TurnState::Held));
    journal.done(came_out("a", 1.0)).await;
    // What followed is settled with the outcome, and no longer taken back.
    assert_eq!((journal.backlog().borrow().ready, journal.backlog().borrow().provisional), (2, 0));
    journal.stale(undone("a0")).await;
    let row = journal.turn(&id("a0")).await.expect("read").expect("known");
    assert_eq!(row.next_state, Some(next_state()));
}

#[tokio::test]
async fn episodes_and_groups_that_nobody_goes_on_with_are_found_and_closed() {
    let journal = Journal::in_memory();
    let group = Some(("g", 4));
    all(&journal, [began("a", group), acted("a", "a0", 1), began("b", group), began("c", None)]).await;
    all(&journal, [came_out("a", 1.0), abandoned("b")]).await;
    let later = SystemTime::now() + Duration::from_secs(3600);
    let (episodes, groups) = journal.idle_episodes(later).await.expect("read");
    assert_eq!((episodes, groups), (vec![EpisodeId("c".into())], vec!["g".to_owned()]));
    let earlier = SystemTime::now() - Duration::from_secs(3600);
    assert_eq!(journal.idle_episodes(earlier).await.expect("read"), (vec![], vec![]));
    journal.done(Record::GroupClosed { group: "g".into() }).await;
    journal.stale(Record::GroupClosed { group: "g".into() }).await;
    assert_eq!(journal.state("a0").await, Some(TurnState::Ready));
    let rows = journal.episodes(u64::MAX, 2).await.expect("read");
    assert_eq!(rows.iter().map(|row| &*row.episode.id.0).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!(rows[1].state, EpisodeState::Abandoned("the sandbox broke".to_owned()));
    assert_eq!(journal.episodes(rows[1].no, 9).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_persons_rating_of_a_step_stays_its_score() {
    let journal = Journal::in_memory();
    all(&journal, [began("a", None), acted("a", "a0", 1), followed("a0"), rated("a0", -1)]).await;
    all(&journal, [votes("a0", &[1, 1]), acted("a", "a1", 1), followed("a1")]).await;
    all(&journal, [votes("a1", &[1]), rated("a1", -1), came_out("a", 1.0)]).await;
    let (_, steps) = journal.episode(&EpisodeId("a".into())).await.expect("read").expect("known");
    let scores: Vec<_> = steps.iter().map(|(_, step)| step.score).collect();
    assert_eq!(scores, [Some(-1.0), Some(-1.0)]);
}

#[tokio::test]
async fn an_episode_is_found_by_its_session_and_known_by_the_version_of_its_first_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = Run::start(config(dir.path())).await;
    let journal = &run.journal;
    let seq = journal.backlog().borrow().last_seq;
    journal.done(began("a", None)).await;
    assert!(journal.backlog().borrow().last_seq > seq, "whoever looks again finds it");
    let of = |index: u64| {
        let Record::TurnCompleted { turn, mark } = acted("a", &format!("a{index}"), index) else {
            unreachable!("it is made so")
        };
        let mut turn = Arc::unwrap_or_clone(turn);
        turn.completion.policy_version = 7 + index;
        Record::TurnCompleted { turn: Arc::new(turn), mark }
    };
    all(journal, [of(0), of(1), began("b", None), came_out("a", 1.0)]).await;
    let rows = journal.episodes(u64::MAX, 9).await.expect("read");
    let places = rows.iter().map(|row| row.no).collect();
    assert_eq!(journal.first_versions(places).await.expect("read"), [None, Some(7)]);
    let reader = JournalReader::open(dir.path()).expect("it opens").expect("there is one");
    assert_eq!(reader.first_version(rows[1].no).expect("read"), Some(7));
    let found = reader.episodes_in(&rows[1].episode.session).expect("read");
    assert_eq!((found.len(), &found[0].0, found[0].1.len()), (1, &rows[1], 2));
    assert!(reader.episodes_in(&SessionId("another".into())).expect("read").is_empty());
}

#[tokio::test]
async fn nothing_of_an_episode_without_an_outcome_is_let_go() {
    let journal = Journal::in_memory();
    let group = Some(("g", 2));
    all(&journal, [began("a", group), acted("a", "a0", 1), followed("a0"), votes("a0", &[1])]).await;
    all(&journal, [acted("a", "a1", 2), began("b", group), acted("b", "b0", 1), came_out("b", 1.0)]).await;
    // Its last step leaves first, and then nobody is at any of the group's.
    journal.done(abandoned("a")).await;
    for (turn, state) in [("a0", TurnState::Dropped), ("a1", TurnState::Dropped), ("b0", TurnState::Ready)] {
        assert_eq!(journal.state(turn).await, Some(state), "{turn}");
    }
    assert_eq!((journal.totals().borrow().dropped, journal.totals().borrow().samples), (2, 1));
}

#[tokio::test]
async fn a_persons_word_on_a_step_that_nobody_judged_counts() {
    let journal = Journal::in_memory();
    all(&journal, [began("a", None), acted("a", "a0", 1), came_out("a", 1.0)]).await;
    all(&journal, [rated("a0", -1), corrected("a0", "Be brief.")]).await;
    let work = journal.judged(0, 10).await.expect("read");
    assert_eq!((work[0].1.verdict.reward, &work[0].1.hints), (Some(-1), &vec!["Be brief.".to_owned()]));
    assert!(journal.dead(10).await.expect("read").is_empty());
    journal.done(Record::Taught { turn: id("a0"), undone: 0, signal: None }).await;
    assert_eq!(journal.samples(0, 10).await.expect("read")[0].1.verdict.reward, Some(-1));
}
