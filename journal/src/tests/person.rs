//! What a person says of a turn: it counts over what the judge says, and only until a batch has the turn.

use super::*;

/// What brings a fresh turn to each state.
fn ways() -> [(TurnState, Vec<Record>); 8] {
    let ready = || vec![followed("t"), judged("t", true), taught("t")];
    let leased = || [ready(), vec![leased(1, &["t"])]].concat();
    [
        (TurnState::Waiting, vec![]),
        (TurnState::Followed, vec![followed("t")]),
        (TurnState::Judged, vec![followed("t"), judged("t", true)]),
        (TurnState::Ready, ready()),
        (TurnState::Leased, leased()),
        (TurnState::Trained, [leased(), vec![step(1, &["t"])]].concat()),
        (TurnState::Dropped, vec![dropped("t")]),
        (TurnState::Quarantined, [leased(), vec![withheld(1, &["t"])]].concat()),
    ]
}

async fn after(way: Vec<Record>) -> Journal {
    let journal = Journal::in_memory();
    journal.done(completed("t")).await;
    for record in way {
        journal.done(record).await;
    }
    journal
}

#[tokio::test]
async fn a_persons_word_is_taken_until_a_batch_has_the_turn_and_moves_it_where_it_says() {
    use TurnState::*;
    let words: [(Record, &[(TurnState, TurnState)]); 3] = [
        (withdrawn("t"), &[(Waiting, Dropped), (Followed, Dropped), (Judged, Dropped), (Ready, Dropped)]),
        (rated("t", 1), &[(Followed, Followed), (Judged, Judged), (Ready, Ready)]),
        (
            corrected("t", "Be brief."),
            &[(Waiting, Waiting), (Followed, Followed), (Judged, Judged), (Ready, Judged)],
        ),
    ];
    for (state, way) in ways() {
        for (word, moves) in &words {
            let journal = after(way.clone()).await;
            let (totals, backlog) = (*journal.totals().borrow(), *journal.backlog().borrow());
            match moves.iter().find(|(from, _)| *from == state) {
                Some((_, to)) => {
                    journal.done(word.clone()).await;
                    assert_eq!(journal.state("t").await, Some(*to), "{word:?} in {state:?}");
                    assert!(
                        journal.backlog().borrow().last_seq > backlog.last_seq,
                        "who looks again sees it"
                    );
                }
                None => {
                    journal.stale(word.clone()).await;
                    assert_eq!(journal.state("t").await, Some(state), "{word:?} in {state:?}");
                    assert_eq!(*journal.totals().borrow(), totals);
                    assert_eq!(*journal.backlog().borrow(), backlog);
                }
            }
        }
    }
    let journal = Journal::in_memory();
    for (word, _) in words {
        journal.stale(word).await;
    }
}

#[tokio::test]
async fn a_rating_is_the_verdict_whenever_it_came_and_the_judges_votes_stay() {
    for (before, later) in [
        (vec![followed("t"), rated("t", 1), judged("t", false)], vec![]),
        (vec![followed("t"), judged("t", false), rated("t", -1), rated("t", 1)], vec![]),
        (vec![followed("t"), judged("t", true), rated("t", 1)], vec![taught("t")]),
    ] {
        let journal = after([before, later].concat()).await;
        let work = journal.samples(0, 10).await.expect("read");
        let verdict = &work[0].1.verdict;
        assert_eq!((verdict.reward, verdict.rule.as_deref()), (Some(1), Some("rating")));
        assert_eq!(verdict.votes, [Some(-1), None], "what the judge said is not lost");
        let row = journal.turn(&id("t")).await.expect("read").expect("it is known");
        assert_eq!((row.rated, row.verdict.as_ref()), (Some(1), Some(verdict)));
        assert_eq!(journal.overruled(&ids(&["t", "u"])).await.expect("read")[0].verdict, *verdict);
        let replies = journal.replies(10, BTreeMap::new()).await.expect("read");
        let reply = replies.values().next().expect("it was judged");
        assert_eq!((reply.reward, reply.rated, reply.judged), (Some(1), Some(1), Some(-1)));
    }
}

#[tokio::test]
async fn a_reply_that_was_rated_after_a_look_is_read_again() {
    let journal = after(vec![followed("t"), judged("t", false)]).await;
    let known = journal.replies(10, BTreeMap::new()).await.expect("read");
    assert_eq!(known.values().next().map(|reply| (reply.reward, reply.rated)), Some((Some(-1), None)));
    journal.done(rated("t", 1)).await;
    let again = journal.replies(10, known).await.expect("read");
    assert_eq!(again.values().next().map(|reply| (reply.reward, reply.rated)), Some((Some(1), Some(1))));
}

#[tokio::test]
async fn a_hint_is_shown_to_a_teacher_as_it_was_written_whenever_it_came() {
    let hint = "  Say it in one sentence, <b>please</b>.\n";
    for before in [
        vec![corrected("t", hint), followed("t"), judged("t", false)],
        vec![followed("t"), corrected("t", hint), judged("t", false)],
        vec![followed("t"), judged("t", true), corrected("t", hint)],
        vec![followed("t"), judged("t", true), taught("t"), corrected("t", "x"), corrected("t", hint)],
    ] {
        let shown = format!("{before:?}");
        let journal = after(before).await;
        let work = journal.judged(0, 10).await.expect("read");
        assert_eq!(work[0].1.hints, [hint], "{shown}");
        assert!(journal.samples(0, 10).await.expect("read").is_empty(), "{shown}");
        // A teacher that was at it already has scored another hint.
        journal.stale(taught("t")).await;
        let signal = TeacherSignal { hint: hint.to_owned(), ..signal() };
        journal.done(Record::Taught { turn: id("t"), undone: 0, signal: Some(signal.clone()) }).await;
        let row = journal.turn(&id("t")).await.expect("read").expect("it is known");
        assert_eq!((row.corrected.as_deref(), row.signal), (Some(hint), Some(signal)));
        assert_eq!(row.hints, [hint]);
    }
}

#[tokio::test]
async fn a_dead_turn_takes_no_rating_and_no_hint_and_can_be_taken_out() {
    let journal = after(vec![followed("t"), judged("t", true)]).await;
    journal
        .done(Record::TurnDied { turn: id("t"), inbox: "teacher".to_owned(), attempts: 3, reason: None })
        .await;
    journal.stale(rated("t", 1)).await;
    journal.stale(corrected("t", "Be brief.")).await;
    journal.done(withdrawn("t")).await;
    let row = journal.turn(&id("t")).await.expect("read").expect("it is known");
    assert_eq!((row.state, row.reason.as_deref()), (TurnState::Dropped, Some("operator")));
    assert_eq!(journal.totals().borrow().dropped, 1);
}

#[tokio::test]
async fn a_persons_words_are_there_when_the_journal_is_opened_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    for name in ["a", "b"] {
        run.journal.make_ready(name).await;
    }
    for word in [rated("a", 1), corrected("a", "Be brief."), withdrawn("b")] {
        run.journal.done(word).await;
    }
    run.kill();
    let run = Run::start(config(dir.path())).await;
    let row = run.journal.turn(&id("a")).await.expect("read").expect("it is known");
    assert_eq!((row.rated, row.corrected.as_deref()), (Some(1), Some("Be brief.")));
    assert_eq!(run.journal.state("b").await, Some(TurnState::Dropped));
    let totals = *run.journal.totals().borrow();
    assert_eq!((totals.rated, totals.corrected, totals.dropped), (1, 1, 1));
    run.stop().await;
}

#[tokio::test]
async fn the_conversation_that_began_last_is_found_by_its_first_turn() {
    let journal = Journal::in_memory();
    assert!(journal.last_opening().await.expect("read").is_none());
    for (name, session, trainable) in
        [("a", "one", true), ("b", "two", true), ("c", "one", true), ("d", "three", false)]
    {
        let turn = Arc::new(Turn { session: SessionId(session.into()), trainable, ..turn(name) });
        journal.done(Record::TurnCompleted { turn, mark: mark(3) }).await;
    }
    let opening = journal.last_opening().await.expect("read").expect("there are two");
    assert_eq!(opening.id, id("b"), "neither a later turn nor what is kept out of training");
}

#[tokio::test]
async fn a_wish_stands_until_it_is_withdrawn_said_otherwise_or_one_too_many() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    let voiced = |turn: &str, wish: &str| Record::WishVoiced { turn: id(turn), wish: wish.to_owned() };
    let turns: Vec<String> = (0..12).map(|n| format!("a{n}")).collect();
    for (name, person) in turns.iter().map(|name| (&**name, 7)).chain([("b", 8)]) {
        let mark = TurnMark { person, ..mark(9) };
        run.journal.done(Record::TurnCompleted { turn: Arc::new(turn(name)), mark }).await;
    }
    let texts = async |journal: &Journal, of: Option<&str>| -> Vec<String> {
        let rows = journal.wishes(of.map(id).as_ref()).await.expect("read");
        rows.into_iter().map(|row| row.text).collect()
    };
    run.journal.done(voiced("a0", "No capitals.")).await;
    run.journal.stale(voiced("a0", "No capitals.")).await;
    run.journal.stale(voiced("nobody", "No capitals.")).await;
    run.journal.done(voiced("b", "Use capitals.")).await;
    run.journal.done(voiced("a1", "End with thanks.")).await;
    run.journal.done(voiced("a3", "Capitals, please!")).await;
    // Judged later, said earlier.
    run.journal.stale(voiced("a2", "no capitals")).await;
    assert_eq!(texts(&run.journal, Some("a5")).await, ["End with thanks.", "Capitals, please!"]);
    assert_eq!(texts(&run.journal, Some("b")).await, ["Use capitals."]);
    assert_eq!(texts(&run.journal, None).await.len(), 3);
    assert_eq!(texts(&run.journal, Some("nobody")).await, [""; 0]);
    // Of one turn the last word counts.
    run.journal.done(voiced("a1", "End with cheers.")).await;
    let cheers = run.journal.wishes(Some(&id("a1"))).await.expect("read")[1].wish;
    run.journal.done(Record::WishWithdrawn { wish: cheers }).await;
    run.journal.stale(Record::WishWithdrawn { wish: cheers }).await;
    // What stands stands in the next process, too.
    run.stop().await;
    let run = Run::start(config(dir.path())).await;
    assert_eq!(texts(&run.journal, Some("a1")).await, ["Capitals, please!"]);
    for (name, matter) in
        turns[4..].iter().zip(["bold", "commas", "lists", "digits", "quotes", "jokes", "rhymes", "dashes"])
    {
        run.journal.done(voiced(name, &format!("no {matter}"))).await;
    }
    let standing = texts(&run.journal, Some("a1")).await;
    assert_eq!((standing.len(), &*standing[0]), (crate::MOST_WISHES, "no bold"));
    // It goes with its turn.
    run.journal.done(Record::TurnWithdrawn { turn: id("a4") }).await;
    assert_eq!(texts(&run.journal, Some("a1")).await[0], "no commas");
    run.stop().await;
}
