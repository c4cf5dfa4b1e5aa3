//! Housekeeping that a client asks for in its user's place: it takes no answer and is never learnt from.

use super::*;

const REPLY: &str = "Take the tram to the harbour, then walk along the quay.";

/// In the manner of public agents: how each asks beside the conversation, or prods the model.
const SIDE_PROMPTS: [&str; 13] = [
    "Write a title of 3 to 7 words for this chat, without punctuation. Go straight to the title.",
    "Based on the messages so far, name this session in four words or fewer. Reply with the name alone.",
    "Provide a title for the conversation in the user's language, at most 5 words, title case, no quotes.",
    "You title threads. Output one line of at most 50 characters that says what the user wants.",
    "### Task:\nWrite 1-3 broad tags for the themes of the chat history, with more specific subtags.",
    "Suggest three follow-up questions that the user might ask next, as a JSON array of strings.",
    "Your task is to create a detailed summary of the conversation so far, with the user's explicit requests.",
    "Summarize what we did in this session, so that another agent can continue without the messages.",
    "Compress the conversation above into a short memory. Keep names, decisions and open questions.",
    "Generate a short subject for this conversation.",
    "What is this conversation about? Answer in a single sentence.",
    "[ERROR] You did not use a tool in your previous response! Please retry with a tool use.",
    "Please continue working on the task on whatever approach you think is suitable. Do not ask for help.",
];

/// What the journal is told, in short.
fn story(client: &mut Client) -> Vec<String> {
    let told = |record: Record| match record {
        Record::NextStateSeen { turn, next_state, provisional } => {
            format!("{turn} {}{}", next_state.text, if provisional { "?" } else { "." })
        }
        Record::NextStateSettled { turn } => format!("{turn} settled"),
        Record::NextStateUndone { turn } => format!("{turn} undone"),
        Record::TurnDropped { turn, reason } => format!("{turn} {reason}"),
        Record::SessionEnded { .. } => "ended".to_owned(),
        other => panic!("{other:?}"),
    };
    client.news().into_iter().map(told).collect()
}

fn question() -> Value {
    user("How do I get to the lighthouse?")
}

/// The history up to the reply, and what its client says next.
fn then(said: &str) -> Vec<Value> {
    vec![question(), assistant(REPLY), user(said)]
}

/// The person's answer, and the exchange after it.
fn then_more(said: &str) -> Vec<Value> {
    [then(said), vec![assistant("You are welcome."), user("One more thing.")]].concat()
}

fn all_marks() -> [RequestMarks; 3] {
    [named("s"), unnamed(), RequestMarks { person: Some("ada".to_owned()), ..unnamed() }]
}

fn asked(marks: &RequestMarks) -> Client {
    asked_with(SessionsConfig::default(), marks)
}

fn asked_with(config: SessionsConfig, marks: &RequestMarks) -> Client {
    let mut client = Client::with(config);
    client.exchange(marks, &[question()], REPLY);
    client
}

fn send(client: &mut Client, marks: &RequestMarks, messages: &[Value]) -> (Arrival, Vec<String>) {
    let arrival = client.ask_raw(marks, messages);
    (arrival, story(client))
}

#[test]
fn no_side_prompt_takes_the_persons_answer_or_is_learnt_from() {
    for prompt in SIDE_PROMPTS {
        for marks in all_marks() {
            let mut client = asked(&marks);
            let (side, told) = send(&mut client, &marks, &then(prompt));
            assert_eq!(told, [format!("turn-1 {prompt}?")], "{prompt}");
            client.answer(&side, json!({"content": "Lighthouse directions"}));
            let (real, told) = send(&mut client, &marks, &then("Thank you."));
            assert_eq!(told, ["turn-1 undone", "turn-2 side_request", "turn-1 Thank you.?"], "{prompt}");
            assert_eq!((&real.session, real.index), (&side.session, 2), "{prompt}");
            client.answer(&real, json!({"content": "You are welcome."}));
            let (_, told) = send(&mut client, &marks, &then_more("Thank you."));
            assert_eq!(told, ["turn-1 settled", "turn-3 One more thing.?"], "{prompt}");
        }
    }
}

#[test]
fn a_side_request_that_is_answered_after_the_person_spoke_is_dropped_then() {
    for marks in all_marks() {
        let mut client = asked(&marks);
        let (side, _) = send(&mut client, &marks, &then(SIDE_PROMPTS[0]));
        let (real, told) = send(&mut client, &marks, &then("Thank you."));
        assert_eq!(told, ["turn-1 undone", "turn-1 Thank you.?"]);
        client.answer(&real, json!({"content": "You are welcome."}));
        let late = client.answer(&side, json!({"content": "Lighthouse directions"}));
        assert_eq!(story(&mut client), [format!("{late} side_request")]);
        // Asked once more it is one still, and the person's words stay.
        let (again, told) = send(&mut client, &marks, &then(SIDE_PROMPTS[0]));
        assert!(told.is_empty(), "{told:?}");
        let again = client.answer(&again, json!({"content": "The lighthouse"}));
        assert_eq!(story(&mut client), [format!("{again} side_request")]);
        let (_, told) = send(&mut client, &marks, &then_more("Thank you."));
        assert_eq!(told, ["turn-1 settled", "turn-2 One more thing.?"]);
    }
}

#[test]
fn several_side_requests_in_a_row_and_their_retries_take_nothing() {
    let mut client = asked(&unnamed());
    for _ in 0..2 {
        let (side, _) = send(&mut client, &unnamed(), &then(SIDE_PROMPTS[0]));
        client.answer(&side, json!({"content": "A title"}));
    }
    assert_eq!(story(&mut client), ["turn-2 retried"], "an unchanged request changes nothing");
    let (_, told) = send(&mut client, &unnamed(), &then(SIDE_PROMPTS[6]));
    let summary = format!("turn-1 {}?", SIDE_PROMPTS[6]);
    assert_eq!(told, ["turn-1 undone".to_owned(), "turn-3 side_request".to_owned(), summary]);
    let (_, told) = send(&mut client, &unnamed(), &then("Thank you."));
    assert_eq!(told, ["turn-1 undone", "turn-1 Thank you.?"]);
}

#[test]
fn a_nudge_that_stays_in_the_history_is_part_of_the_conversation() {
    let mut client = asked(&named("s"));
    let (nudged, _) = send(&mut client, &named("s"), &then(SIDE_PROMPTS[12]));
    client.answer(&nudged, json!({"content": "You are welcome."}));
    let (_, told) = send(&mut client, &named("s"), &then_more(SIDE_PROMPTS[12]));
    assert_eq!(told, ["turn-1 settled", "turn-2 One more thing.?"]);
}

#[test]
fn rewritten_histories_confirm_and_disprove_too() {
    let prompt = |time: &str, rest: Vec<Value>| {
        [vec![json!({"role": "system", "content": format!("It is {time}.")})], rest].concat()
    };
    for marks in all_marks() {
        let mut client = Client::new();
        client.exchange(&marks, &prompt("12:01", vec![question()]), REPLY);
        let (side, told) = send(&mut client, &marks, &prompt("12:02", then(SIDE_PROMPTS[0])));
        assert_eq!(told.len(), 1, "{told:?}");
        client.answer(&side, json!({"content": "Lighthouse directions"}));
        let (real, told) = send(&mut client, &marks, &prompt("12:03", then("Thank you.")));
        assert_eq!(told, ["turn-1 undone", "turn-2 side_request", "turn-1 Thank you.?"]);
        client.answer(&real, json!({"content": "You are welcome, have a good walk."}));
        let more = [
            then("Thank you."),
            vec![assistant("You are welcome, have a good walk."), user("One more thing.")],
        ];
        let (_, told) = send(&mut client, &marks, &prompt("12:04", more.concat()));
        assert_eq!(told, ["turn-1 settled", "turn-3 One more thing.?"]);
    }
}

#[test]
fn words_that_a_client_puts_otherwise_later_are_known_by_the_reply_behind_them() {
    for marks in [named("s"), unnamed()] {
        let mut client = asked(&marks);
        let (real, _) = send(&mut client, &marks, &then("Context: a map.\n\nThank you."));
        client.answer(&real, json!({"content": "You are welcome."}));
        let (_, told) = send(&mut client, &marks, &then_more("Thank you."));
        assert_eq!(told[0], "turn-1 settled");
        assert!(
            !told.iter().any(|line| line.contains("undone") || line.contains("side_request")),
            "{told:?}"
        );
    }
    // Stamps and context that come and go are not what was said; neither is what a person adds.
    let mut client = asked(&unnamed());
    send(&mut client, &unnamed(), &then("[Sun 2026-11-22 13:58 UTC] Thank  you."));
    assert_eq!(send(&mut client, &unnamed(), &then("Thank you.")).1, [""; 0]);
    let added = [then("Thank you."), vec![user("And back?")]].concat();
    assert_eq!(send(&mut client, &unnamed(), &added).1, ["turn-1 settled"]);
}

#[test]
fn time_settles_what_nothing_spoke_against_and_later_it_can_still_be_found_false() {
    let mut client = asked(&unnamed());
    let (side, _) = send(&mut client, &unnamed(), &then(SIDE_PROMPTS[0]));
    client.answer(&side, json!({"content": "Lighthouse directions"}));
    client.later(59);
    client.conversations.sweep(client.now);
    assert!(story(&mut client).is_empty());
    client.later(1);
    client.conversations.sweep(client.now);
    client.conversations.sweep(client.now);
    assert_eq!(story(&mut client), ["turn-1 settled"], "once");
    // The journal takes it back unless a batch has it.
    let (_, told) = send(&mut client, &unnamed(), &then("Thank you."));
    assert_eq!(told, ["turn-1 undone", "turn-2 side_request", "turn-1 Thank you.?"]);
}

#[test]
fn what_is_shown_settled_or_stated_at_once_is_never_provisional() {
    let main = RequestMarks { turn_type: Some(" Main".to_owned()), ..unnamed() };
    let done = RequestMarks { session_done: true, ..unnamed() };
    for (marks, told) in [
        (main, vec!["turn-1 Thank you.."]),
        (done, vec!["turn-1 Thank you..", "ended"]),
        (unnamed(), vec!["turn-1 Thank you.?"]),
    ] {
        assert_eq!(send(&mut asked(&unnamed()), &marks, &then("Thank you.")).1, told, "{marks:?}");
    }
    let at_once = SessionsConfig { settle_secs: 0, ..Default::default() };
    let mut client = asked_with(at_once, &unnamed());
    assert_eq!(send(&mut client, &unnamed(), &then("Thank you.")).1, ["turn-1 Thank you.."]);
    // An exchange that another server answered is history already.
    assert_eq!(send(&mut asked(&unnamed()), &unnamed(), &then_more("Thank you.")).1, ["turn-1 Thank you.."]);
    let result = vec![question(), assistant(REPLY), tool("12 trams")];
    assert_eq!(send(&mut asked(&unnamed()), &unnamed(), &result).1, ["turn-1 12 trams."]);
}

#[test]
fn a_sessions_end_settles_what_it_has() {
    let end = |marks: RequestMarks| RequestMarks {
        session_done: true,
        turn_type: Some("side".to_owned()),
        ..marks
    };
    let mut client = asked(&named("s"));
    send(&mut client, &named("s"), &then("Thank you."));
    let (_, told) = send(&mut client, &end(named("s")), &[]);
    assert_eq!(told, ["turn-1 settled", "ended"], "told without a request");

    let mut client = asked(&named("s"));
    let (last, _) = send(&mut client, &named("s"), &then("Thank you."));
    client.answer(&last, json!({"content": "You are welcome."}));
    let done = RequestMarks { session_done: true, ..named("s") };
    let (_, told) = send(&mut client, &done, &then_more("Thank you."));
    assert_eq!(told, ["turn-1 settled", "turn-2 One more thing..", "ended"]);

    let mut client = asked_with(SessionsConfig { settle_secs: 1 << 40, ..Default::default() }, &named("s"));
    send(&mut client, &named("s"), &then("Thank you."));
    client.later(1800);
    client.conversations.sweep(client.now);
    assert_eq!(story(&mut client), ["turn-1 settled"], "it went idle");
    assert_eq!(client.conversations.provisionals.len(), 0);
}

#[test]
fn a_rating_comes_too_late_once_words_are_settled() {
    let mut client = asked(&unnamed());
    send(&mut client, &unnamed(), &then("Thank you."));
    client.later(60);
    client.conversations.sweep(client.now);
    assert_eq!(client.feedback("turn-1"), FeedbackOutcome::TooLate);
}

#[test]
fn words_with_no_train_show_what_was_asked_beside_them_and_are_no_evidence() {
    let private = RequestMarks { no_train: true, ..unnamed() };
    let mut client = asked(&unnamed());
    send(&mut client, &unnamed(), &then(SIDE_PROMPTS[0]));
    let (_, told) = send(&mut client, &private, &then("my code word is heron"));
    assert_eq!(told, ["turn-1 undone"]);
    assert_eq!(client.conversations.waiting_turns(), 1);
    let (_, told) = send(&mut client, &unnamed(), &then("Thank you."));
    assert_eq!(told, ["turn-1 Thank you.?"]);
}

#[test]
fn replies_to_one_question_keep_what_followed_each() {
    let mut client = Client::new();
    let told = |reply: &str, said: &str| [question(), assistant(reply), user(said)];
    client.exchange(&named("s"), &[question()], "roses");
    client.exchange(&named("s"), &[question()], "violets");
    assert_eq!(send(&mut client, &named("s"), &told("roses", "nice")).1, ["turn-1 nice?"]);
    for news in [&["turn-2 bad?"][..], &[], &[]] {
        assert_eq!(send(&mut client, &named("s"), &told("violets", "bad")).1, news);
    }
    // One that is not followed yet takes nothing from another, either.
    client.exchange(&named("s"), &[question()], "tulips");
    assert_eq!(send(&mut client, &named("s"), &told("violets", "bad")).1, [""; 0]);
    assert_eq!(send(&mut client, &named("s"), &told("tulips", "fine")).1, ["turn-3 fine?"]);
}

#[test]
fn a_client_that_puts_replies_otherwise_shows_its_side_requests_too() {
    let short = |said: &str| [question(), assistant("The tram."), user(said)];
    let mut client = asked(&named("s"));
    assert_eq!(send(&mut client, &named("s"), &short("Name this chat.")).1, ["turn-1 Name this chat.?"]);
    let (_, told) = send(&mut client, &named("s"), &short("Thank you."));
    assert_eq!(told, ["turn-1 undone", "turn-1 Thank you.?"]);
}

#[test]
fn an_edit_is_what_the_person_meant() {
    let mut client = asked(&unnamed());
    let (first, _) = send(&mut client, &unnamed(), &then("Too lnog."));
    client.answer(&first, json!({"content": "Shorter: tram, then quay."}));
    let (_, told) = send(&mut client, &unnamed(), &then("Too long."));
    assert_eq!(told, ["turn-1 undone", "turn-2 side_request", "turn-1 Too long.?"]);
}

#[test]
fn few_are_kept_of_a_session_and_what_has_no_place_is_settled() {
    let config = SessionsConfig { max_provisional: 2, ..Default::default() };
    let mut client = Client::with(config);
    for number in 0..5 {
        let opening = user(&format!("question {number}"));
        let arrival = client.ask_raw(&named("s"), std::slice::from_ref(&opening));
        client.answer(&arrival, json!({"content": REPLY}));
        client.ask_raw(&named("s"), &[opening, assistant(REPLY), user("go on")]);
    }
    let settled: Vec<String> =
        story(&mut client).into_iter().filter(|line| line.ends_with("settled")).collect();
    assert_eq!(settled, ["turn-1 settled", "turn-2 settled", "turn-3 settled"]);
    assert_eq!(client.conversations.provisionals.len(), 2);
}

#[test]
fn a_restart_settles_what_an_earlier_incarnation_left() {
    let mut client = asked(&named("s"));
    send(&mut client, &named("s"), &then("Thank you."));
    client.restart();
    client.conversations.settle_earlier(vec![TurnId("turn-1".into())]);
    assert_eq!(story(&mut client), ["turn-1 settled"]);
    assert_eq!(send(&mut client, &named("s"), &then("No.")).1, [""; 0]);
}
