//! Thumbs and words beside the conversation, and the words that follow a thumb.

use super::*;

/// What the journal is told, in short: a rating before the words, and what may be taken back.
fn story(client: &mut Client) -> Vec<String> {
    let told = |record: Record| match record {
        Record::NextStateSeen { turn, next_state: NextState { rating, text, .. }, provisional } => {
            let rating = rating.map(|rating| format!("({rating})")).unwrap_or_default();
            format!("{turn} {rating}{text}{}", if provisional { "?" } else { "." })
        }
        Record::NextStateSettled { turn } => format!("{turn} settled"),
        Record::NextStateUndone { turn } => format!("{turn} undone"),
        Record::TurnDropped { turn, reason } => format!("{turn} {reason}"),
        Record::HintCorrected { turn, hint } => format!("{turn} hint {hint}"),
        Record::Rated { turn, rating } => format!("{turn} rated {rating}"),
        Record::SessionEnded { .. } => "ended".to_owned(),
        other => panic!("{other:?}"),
    };
    client.conversations.news().into_iter().map(told).collect()
}

fn rated(teaches: bool, rating: i8) -> (Client, String) {
    let mut client = Client::with(SessionsConfig { teaches, ..Default::default() });
    let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
    assert_eq!(client.rate(&turn, rating, None), FeedbackOutcome::Applied);
    (client, turn)
}

/// What a client asks beside the conversation, and its reply.
fn ask_for_a_title(client: &mut Client) {
    let title = client.ask_raw(&named("s"), &then("Write a title."));
    client.answer(&title, json!({"content": "Sums"}));
}

fn then(said: &str) -> [Value; 3] {
    [user("2+2?"), assistant("4"), user(said)]
}

#[test]
fn words_of_feedback_are_the_hint_where_there_is_a_teacher() {
    for (teaches, text, hints) in [
        (true, Some("Say it in <b>one</b> sentence."), 1),
        (true, None, 0),
        (false, Some("Say it in <b>one</b> sentence."), 0),
    ] {
        let mut client = Client::with(SessionsConfig { teaches, ..Default::default() });
        let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
        assert_eq!(client.rate(&turn, -1, text), FeedbackOutcome::Applied);
        let news = client.conversations.news();
        assert_eq!(news.len(), hints + 1, "{news:?}");
        if hints == 1 {
            let Record::HintCorrected { turn: of, hint } = &news[0] else { panic!("{news:?}") };
            assert_eq!((&*of.0, Some(&**hint)), (&*turn, text));
        }
        assert!(matches!(&news[hints], Record::NextStateSeen { .. }), "a judge finds the hint: {news:?}");
    }
}

#[test]
fn feedback_is_an_explicit_next_state_once() {
    let mut client = Client::new();
    let (_, id, _) = client.exchange(&named("s"), &[user("hi")], "hello");
    let outcome = client.feedback(&id);
    let (turn, state) = client.next_states().remove(0);
    assert_eq!(turn, id);
    assert_eq!(
        (outcome, state.kind, state.rating),
        (FeedbackOutcome::Applied, NextStateKind::Feedback, Some(1))
    );
    assert_eq!(client.feedback(&id), FeedbackOutcome::Repeated);
    let repeated = client.conversations.news();
    assert!(matches!(&repeated[..], [Record::NextStateSeen { next_state, .. }] if *next_state == state));
    assert_eq!(client.rate(&id, -1, None), FeedbackOutcome::TooLate);
    assert_eq!(client.ask(&named("s"), &[user("hi"), assistant("hello"), user("thanks")]).1, []);
    assert_eq!(client.feedback("turn-unknown"), FeedbackOutcome::Unknown);
}

#[test]
fn what_a_person_says_behind_a_bare_thumb_down_is_why() {
    let (mut client, _) = rated(true, -1);
    assert_eq!(story(&mut client), ["turn-1 (-1)?"]);
    let arrival = client.ask_raw(&named("s"), &then("Please thank me."));
    assert_eq!(story(&mut client), ["turn-1 rated -1", "turn-1 undone", "turn-1 (-1)Please thank me.?"]);
    client.answer(&arrival, json!({"content": "Thank you."}));
    let more = [&then("Please thank me.")[..], &[assistant("Thank you."), user("3+3?")]].concat();
    client.ask_raw(&named("s"), &more);
    assert_eq!(story(&mut client), ["turn-1 settled", "turn-2 3+3??"]);
}

#[test]
fn a_thumb_that_no_words_follow_counts_after_a_while_or_with_the_session() {
    let (mut client, turn) = rated(true, -1);
    story(&mut client);
    assert_eq!(client.rate(&turn, -1, None), FeedbackOutcome::Repeated);
    story(&mut client);
    client.later(60);
    client.conversations.sweep(client.now);
    assert_eq!(story(&mut client), ["turn-1 settled"]);

    let (mut client, _) = rated(true, -1);
    story(&mut client);
    client.ask_raw(&RequestMarks { session_done: true, ..named("s") }, &[]);
    assert_eq!(story(&mut client), ["turn-1 settled", "ended"]);
}

#[test]
fn nothing_is_waited_for_where_words_would_teach_nothing() {
    for (teaches, rating) in [(false, -1), (true, 1)] {
        let (mut client, _) = rated(teaches, rating);
        assert_eq!(story(&mut client), [format!("turn-1 ({rating}).")]);
        client.ask_raw(&named("s"), &then("Please thank me."));
        assert!(story(&mut client).is_empty(), "the rating stays");
    }
    // Its session is over.
    let mut client = Client::with(SessionsConfig { teaches: true, ..Default::default() });
    let last = RequestMarks { session_done: true, ..named("s") };
    let (_, turn, _) = client.exchange(&last, &[user("2+2?")], "4");
    story(&mut client);
    client.rate(&turn, -1, None);
    assert_eq!(story(&mut client), ["turn-1 (-1)."]);
}

#[test]
fn words_beside_the_conversation_replace_a_bare_thumb() {
    let (mut client, turn) = rated(true, -1);
    story(&mut client);
    assert_eq!(client.rate(&turn, -1, Some("Thank me.")), FeedbackOutcome::Applied);
    let told = ["turn-1 rated -1", "turn-1 undone", "turn-1 hint Thank me.", "turn-1 (-1)Thank me.."];
    assert_eq!(story(&mut client), told);
}

#[test]
fn a_thumb_on_words_that_are_there_goes_beside_them() {
    let mut client = Client::with(SessionsConfig { teaches: true, ..Default::default() });
    let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
    client.ask_raw(&named("s"), &then("Please thank me."));
    assert_eq!(client.rate(&turn, -1, None), FeedbackOutcome::Applied);
    assert_eq!(story(&mut client), ["turn-1 Please thank me.?", "turn-1 rated -1"]);

    // They were a side request, and the rating stays.
    let mut client = Client::new();
    let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
    ask_for_a_title(&mut client);
    client.feedback(&turn);
    assert_eq!(story(&mut client), ["turn-1 Write a title.?", "turn-1 rated 1"]);
    client.ask_raw(&named("s"), &then("Thank you."));
    assert_eq!(
        story(&mut client),
        ["turn-1 rated 1", "turn-1 undone", "turn-2 side_request", "turn-1 (1)Thank you.?"]
    );
}

#[test]
fn a_thumb_outlives_words_that_were_none_and_words_that_are_private() {
    let (mut client, _) = rated(true, -1);
    ask_for_a_title(&mut client);
    story(&mut client);
    client.ask_raw(&named("s"), &then("Please thank me."));
    let told = ["turn-1 rated -1", "turn-1 undone", "turn-2 side_request", "turn-1 (-1)Please thank me.?"];
    assert_eq!(story(&mut client), told);

    let (mut client, _) = rated(true, -1);
    story(&mut client);
    client.ask_raw(&RequestMarks { no_train: true, ..named("s") }, &then("Please thank me."));
    assert!(story(&mut client).is_empty());
    client.later(1800);
    client.conversations.sweep(client.now);
    assert_eq!(story(&mut client), ["turn-1 settled"]);

    // Words that were a side request, and then nothing.
    let (mut client, _) = rated(true, -1);
    ask_for_a_title(&mut client);
    client.ask_raw(&RequestMarks { no_train: true, ..named("s") }, &then("Please thank me."));
    story(&mut client);
    client.later(1800);
    client.conversations.sweep(client.now);
    assert_eq!(story(&mut client), ["turn-1 (-1)."]);
}

#[test]
fn another_rating_takes_the_place_of_the_one_before_and_words_keep_it() {
    // Of a bare thumb.
    let (mut client, turn) = rated(true, -1);
    story(&mut client);
    client.rate(&turn, 1, None);
    assert_eq!(story(&mut client), ["turn-1 rated 1", "turn-1 undone", "turn-1 (1)."]);
    let (mut client, turn) = rated(true, -1);
    story(&mut client);
    let words =
        Feedback { turn: TurnId(turn.as_str().into()), rating: None, text: Some("Thank me.".to_owned()) };
    assert_eq!(client.conversations.feedback(words, client.now), FeedbackOutcome::Applied);
    let told = ["turn-1 rated -1", "turn-1 undone", "turn-1 hint Thank me.", "turn-1 (-1)Thank me.."];
    assert_eq!(story(&mut client), told);
    // Of one beside words.
    let mut client = Client::with(SessionsConfig { teaches: true, ..Default::default() });
    let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
    client.ask_raw(&named("s"), &then("Please thank me."));
    client.rate(&turn, 1, None);
    client.rate(&turn, 1, None);
    story(&mut client);
    client.rate(&turn, -1, Some("wrong"));
    assert_eq!(
        story(&mut client),
        ["turn-1 rated -1", "turn-1 undone", "turn-1 hint wrong", "turn-1 (-1)wrong."]
    );
}

#[test]
fn a_rating_is_not_lost_with_private_words_or_for_want_of_room() {
    let (mut client, _) = rated(true, -1);
    client.ask_raw(&named("s"), &then("Please thank me."));
    client.ask_raw(&RequestMarks { no_train: true, ..named("s") }, &then("My secret."));
    story(&mut client);
    let more = [&then("My secret.")[..], &[assistant("So."), user("3+3?")]].concat();
    client.ask_raw(&named("s"), &more);
    assert_eq!(story(&mut client), ["turn-1 (-1)."]);

    let config = SessionsConfig { teaches: true, max_pending_turns: 1, ..Default::default() };
    let mut client = Client::with(config);
    let (_, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "4");
    client.rate(&turn, -1, None);
    let title = client.ask_raw(&named("s"), &then("Write a title."));
    client.ask_raw(&RequestMarks { no_train: true, ..named("s") }, &then("Please thank me."));
    client.answer(&title, json!({"content": "Sums"}));
    story(&mut client);
    client.exchange(&named("other"), &[user("5+5?")], "10");
    assert_eq!(story(&mut client), ["turn-1 (-1)."]);
}
