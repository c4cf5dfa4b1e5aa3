//! Pairing, retries, branches, limits: what a client does, and which turn is judged by what.

use openclaw_journal::{Completion, NextState, NextStateKind};
use openclaw_model::FinishReason;
use serde_json::json;

use super::*;

mod feedback;
mod patterns;
mod restoring;
mod side_requests;

const CARRIER: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nnone\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

struct Client {
    conversations: Conversations,
    now: Instant,
    turns: usize,
    /// As a journal keeps them, with when they were completed.
    recorded: Vec<(RecordedTurn, Instant)>,
}

impl Client {
    fn new() -> Self {
        Self::with(SessionsConfig::default())
    }

    fn with(config: SessionsConfig) -> Self {
        Self {
            conversations: Conversations::new(config),
            now: Instant::now(),
            turns: 0,
            recorded: Vec::new(),
        }
    }

    fn later(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn ask(&mut self, marks: &RequestMarks, messages: &[Value]) -> (Arrival, Vec<(String, String)>) {
        let request = ArrivedRequest::new(marks.clone(), Arc::new(messages.to_vec()), true);
        let arrival = self.conversations.arrive(&request, self.now);
        (arrival, self.next_states().into_iter().map(|(turn, state)| (turn, state.text)).collect())
    }

    /// Without a look at what became of it.
    fn ask_raw(&mut self, marks: &RequestMarks, messages: &[Value]) -> Arrival {
        let request = ArrivedRequest::new(marks.clone(), Arc::new(messages.to_vec()), true);
        self.conversations.arrive(&request, self.now)
    }

    fn next_states(&mut self) -> Vec<(String, NextState)> {
        let news = self.news().into_iter();
        news.filter_map(|record| match record {
            Record::NextStateSeen { turn, next_state, .. } => Some((turn.to_string(), next_state)),
            _ => None,
        })
        .collect()
    }

    /// What was dropped since the last look, and why.
    fn dropped(&mut self) -> Vec<(String, &'static str)> {
        let news = self.news().into_iter();
        news.filter_map(|record| match record {
            Record::TurnDropped { turn, reason } => Some((turn.to_string(), reason)),
            _ => None,
        })
        .collect()
    }

    fn news(&mut self) -> Vec<Record> {
        let news = self.conversations.news();
        for record in &news {
            if let Record::SessionEnded { session } = record {
                let of = self.recorded.iter_mut().filter(|(recorded, _)| recorded.session == *session);
                of.for_each(|(recorded, _)| recorded.mark.last = true);
                continue;
            }
            let (Record::NextStateSeen { turn, .. }
            | Record::NextStateSettled { turn }
            | Record::NextStateUndone { turn }
            | Record::TurnDropped { turn, .. }) = record
            else {
                panic!("sessions have nothing to say of {record:?}");
            };
            let recorded = self.recorded.iter_mut().find(|(recorded, _)| recorded.turn == *turn);
            let (recorded, _) = recorded.expect("it was recorded before");
            let waited = match record {
                Record::NextStateSettled { .. } => recorded.waiting,
                Record::NextStateUndone { .. } => std::mem::replace(&mut recorded.waiting, true),
                _ => !std::mem::take(&mut recorded.waiting),
            };
            assert!(!waited, "{record:?} comes too late");
        }
        news
    }

    /// Answers a request and returns the turn's id.
    fn answer(&mut self, arrival: &Arrival, reply: Value) -> String {
        self.turns += 1;
        let id = format!("turn-{}", self.turns);
        let turn = Turn {
            id: TurnId(id.as_str().into()),
            session: arrival.session.clone(),
            index: arrival.index,
            kind: arrival.kind,
            trainable: arrival.trainable,
            messages: Arc::default(),
            tools: Arc::default(),
            template_kwargs: Arc::default(),
            completion: Completion {
                prompt_ids: vec![1],
                response_ids: vec![2],
                rollout_logprobs: vec![-0.5],
                policy_logprobs: None,
                policy_version: 1,
                temperature: 1.0,
                finish_reason: FinishReason::Stop,
                text: "x".to_owned(),
                split: Default::default(),
            },
        };
        let mark = arrival.fingerprint.mark(&reply);
        let recorded = RecordedTurn {
            turn: turn.id.clone(),
            session: turn.session.clone(),
            index: turn.index,
            kind: turn.kind,
            trainable: turn.trainable,
            mark: mark.clone(),
            waiting: turn.trainable && turn.kind == TurnKind::Main,
            rated: None,
            completed: std::time::SystemTime::now(),
        };
        self.recorded.push((recorded, self.now));
        self.conversations.complete(TurnCompleted { turn: Arc::new(turn), mark }, self.now);
        id
    }

    /// One exchange; returns the session, the turn's id and what was told of earlier turns.
    fn exchange(
        &mut self,
        marks: &RequestMarks,
        messages: &[Value],
        reply: &str,
    ) -> (Arrival, String, Vec<(String, String)>) {
        let (arrival, told) = self.ask(marks, messages);
        let id = self.answer(&arrival, json!({"content": reply}));
        (arrival, id, told)
    }

    fn feedback(&mut self, turn: &str) -> FeedbackOutcome {
        self.rate(turn, 1, None)
    }

    fn rate(&mut self, turn: &str, rating: i8, text: Option<&str>) -> FeedbackOutcome {
        let (turn, text) = (TurnId(turn.into()), text.map(str::to_owned));
        self.conversations.feedback(Feedback { turn, rating: Some(rating), text }, self.now)
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn tool(text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": "c1", "content": text})
}

fn named(id: &str) -> RequestMarks {
    RequestMarks { session_header: Some(id.to_owned()), ..RequestMarks::default() }
}

fn unnamed() -> RequestMarks {
    RequestMarks::default()
}

fn told(id: &str, text: &str) -> Vec<(String, String)> {
    vec![(id.to_owned(), text.to_owned())]
}

#[test]
fn the_next_state_is_known_when_the_next_request_arrives() {
    let mut client = Client::new();
    let (first, turn, _) = client.exchange(&named("s"), &[user("2+2?")], "5");
    let (second, news) = client.ask(&named("s"), &[user("2+2?"), assistant("5"), user("wrong")]);
    assert_eq!(news, told(&turn, "wrong"));
    assert_eq!((first.index, second.index), (1, 2));
    assert_eq!(client.conversations.waiting_turns(), 0);
}

#[test]
fn tool_rounds_pair_each_reply_with_its_results() {
    let mut client = Client::new();
    let carrier = user(CARRIER);
    let call = json!({"content": null, "tool_calls": [
        {"id": "call_a1", "type": "function", "function": {"name": "exec", "arguments": "{\"command\": \"ls\"}"}}]});
    let (arrival, _) = client.ask(&named("s"), &[user("list"), carrier.clone()]);
    let first = client.answer(&arrival, call.clone());
    let replayed = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "calla1", "type": "function", "function": {"name": "exec", "arguments": "{\"command\":\"ls\"}"}}]});
    let history = [user("list"), replayed, tool("a.txt"), tool("b.txt")];
    let (arrival, news) = client.ask(&named("s"), &[&history[..], &[carrier]].concat());
    assert_eq!(news, told(&first, "a.txt\n\nb.txt"));
    let second = client.answer(&arrival, json!({"content": "two files"}));
    let rest = [&history[..], &[assistant("two files"), user("thanks")]].concat();
    assert_eq!(client.ask(&named("s"), &rest).1, told(&second, "thanks"));
}

#[test]
fn a_retry_of_the_same_request_is_one_turn_and_no_feedback() {
    let mut client = Client::new();
    let messages = [user("2+2?")];
    let (first, gone, _) = client.exchange(&named("s"), &messages, "4");
    let (again, kept, news) = client.exchange(&named("s"), &messages, "4");
    assert_eq!((again.index, news.len()), (first.index, 0));
    assert_eq!(client.conversations.waiting_turns(), 1);
    let (_, news) = client.ask(&named("s"), &[user("2+2?"), assistant("4"), user("thanks")]);
    assert_eq!(news, told(&kept, "thanks"));
    assert_eq!(client.feedback(&gone), FeedbackOutcome::TooLate);
}

#[test]
fn a_rewritten_retry_is_no_feedback() {
    let mut client = Client::new();
    let (_, first, _) = client.exchange(&named("s"), &[user("hello")], "hi");
    let history = [user("hello"), assistant("hi")];
    let (_, second, news) = client.exchange(&named("s"), &[&history[..], &[user("2+2?")]].concat(), "4");
    assert_eq!(news, told(&first, "2+2?"));
    let rewritten = user("[Queued user message from a previous active turn] 2+2? Continue the current task.");
    let (_, _, news) = client.exchange(&named("s"), &[&history[..], &[rewritten]].concat(), "four");
    assert_eq!(news, []);
    let (_, news) =
        client.ask(&named("s"), &[&history[..], &[user("2+2?"), assistant("4"), user("ok")]].concat());
    assert_eq!(news, told(&second, "ok"));
}

#[test]
fn a_regenerated_reply_is_judged_by_what_followed_it() {
    let mut client = Client::new();
    let question = [user("a poem")];
    let (_, first, _) = client.exchange(&named("s"), &question, "roses");
    let (_, second, _) = client.exchange(&named("s"), &question, "violets");
    let (_, news) = client.ask(&named("s"), &[user("a poem"), assistant("roses"), user("nice")]);
    assert_eq!(news, told(&first, "nice"));
    let (_, news) = client.ask(&named("s"), &[user("a poem"), assistant("violets"), user("bad")]);
    assert_eq!(news, told(&second, "bad"));
}

#[test]
fn a_branch_is_not_feedback_on_the_turn_it_replaces() {
    // Else the second branch shows that the person did not mean the first.
    let mut client = Client::with(SessionsConfig { settle_secs: 0, ..Default::default() });
    client.exchange(&named("s"), &[user("hello")], "ok");
    let history = [user("hello"), assistant("ok")];
    let (_, second, _) = client.exchange(&named("s"), &[&history[..], &[user("sum")]].concat(), "ok");
    // The person goes back and asks something else; both replies said the same.
    let (branch, news) = client.ask(&named("s"), &[&history[..], &[user("product")]].concat());
    assert_eq!((news, branch.index), (vec![], 3));
    let again = [&history[..], &[user("sum"), assistant("ok"), user("fine")]].concat();
    assert_eq!(client.ask(&named("s"), &again).1, told(&second, "fine"));
}

#[test]
fn side_requests_are_no_next_state() {
    let mut client = Client::new();
    let (_, turn, _) = client.exchange(&named("s"), &[user("hi")], "hello");
    let history = [user("hi"), assistant("hello")];
    let beat = user("Follow the heartbeat monitor scratch context.");
    let (side, id, news) = client.exchange(&named("s"), &[&history[..], &[beat]].concat(), "NO_REPLY");
    assert_eq!((side.kind, side.index, news.len()), (TurnKind::Side, 1, 0));
    assert_eq!(client.feedback(&id), FeedbackOutcome::NotTrained);
    let poll = [user("[OpenClaw heartbeat poll]"), assistant("NO_REPLY"), user("thanks")];
    assert_eq!(client.ask(&named("s"), &[&history[..], &poll].concat()).1, told(&turn, "thanks"));
}

#[test]
fn a_nudge_after_an_empty_answer_is_no_feedback() {
    let mut client = Client::new();
    client.exchange(&named("s"), &[user("hi")], "");
    let nudge =
        user("[Sun 2026-11-22 15:04 UTC] The previous attempt did not produce a user-visible answer.");
    assert_eq!(client.ask(&named("s"), &[user("hi"), nudge]).1, []);
}

#[test]
fn a_compacted_history_still_carries_the_last_reply() {
    let mut client = Client::new();
    let (_, turn, _) =
        client.exchange(&named("s"), &[user("long"), assistant("story"), user("and?")], "the end");
    let compacted = [
        user("The conversation history before this point was compacted."),
        assistant("**the end**."),
        user("more"),
    ];
    assert_eq!(client.ask(&named("s"), &compacted).1, told(&turn, "more"));
}

#[test]
fn a_named_session_accepts_a_reply_that_the_client_reworded() {
    let mut client = Client::new();
    let (_, turn, _) = client.exchange(&named("s"), &[user("hi")], "hello there");
    assert_eq!(client.ask(&named("s"), &[user("hi"), assistant("hello"), user("ok")]).1, told(&turn, "ok"));
    let mut client = Client::new();
    client.exchange(&unnamed(), &[user("hi")], "hello there");
    assert_eq!(client.ask(&unnamed(), &[user("hi"), assistant("hello"), user("ok")]).1, []);
}

#[test]
fn sessions_of_clients_without_ids_are_found_by_their_longest_history() {
    let mut client = Client::new();
    let (ada, ada_turn, _) = client.exchange(&unnamed(), &[user("hi")], "hello Ada");
    let (_, second, news) =
        client.exchange(&unnamed(), &[user("hi"), assistant("hello Ada"), user("sum")], "4");
    assert_eq!(news, told(&ada_turn, "sum"));
    // Someone else opens with the same words after Ada went on.
    let (bob, bob_turn, _) = client.exchange(&unnamed(), &[user("hi")], "hello Bob");
    assert_ne!(ada.session, bob.session);
    let (arrival, news) = client.ask(&unnamed(), &[user("hi"), assistant("hello Bob"), user("go")]);
    assert_eq!((arrival.session, news), (bob.session, told(&bob_turn, "go")));
    let longer = [user("hi"), assistant("hello Ada"), user("sum"), assistant("4"), user("right")];
    let (arrival, news) = client.ask(&unnamed(), &longer);
    assert_eq!((arrival.session, news), (ada.session, told(&second, "right")));
    assert_eq!(arrival.index, 3);
}

#[test]
fn interleaved_conversations_under_one_name_do_not_mix() {
    let mut client = Client::new();
    let marks = RequestMarks { person: Some("alice".to_owned()), ..RequestMarks::default() };
    let (_, one, _) = client.exchange(&marks, &[user("cats")], "meow");
    let (_, two, _) = client.exchange(&marks, &[user("dogs")], "woof");
    assert_eq!(client.ask(&marks, &[user("cats"), assistant("meow"), user("soft")]).1, told(&one, "soft"));
    assert_eq!(client.ask(&marks, &[user("dogs"), assistant("woof"), user("loud")]).1, told(&two, "loud"));
}

#[test]
fn a_turn_marked_no_train_is_answered_and_never_judged() {
    let mut client = Client::new();
    let marks = RequestMarks { no_train: true, ..named("s") };
    let (_, id, _) = client.exchange(&marks, &[user("secret")], "ok");
    assert_eq!(client.ask(&named("s"), &[user("secret"), assistant("ok"), user("thanks")]).1, []);
    assert_eq!(client.feedback(&id), FeedbackOutcome::NotTrained);
}

#[test]
fn words_that_came_with_no_train_are_no_evidence_and_in_no_later_prompt_that_is_trained_on() {
    let mut client = Client::new();
    let private = RequestMarks { no_train: true, ..named("s") };
    let (_, first, _) = client.exchange(&named("s"), &[user("4+5?")], "9");
    let mut history = vec![user("4+5?"), assistant("9"), user("my code word is heron")];
    let (arrival, _, news) = client.exchange(&private, &history, "noted");
    assert_eq!((arrival.trainable, news), (false, vec![]), "they judge nothing");
    history.extend([assistant("noted"), user("thanks")]);
    let (arrival, _, news) = client.exchange(&named("s"), &history, "welcome");
    assert_eq!((arrival.trainable, news), (false, vec![]), "they come again, as history");
    assert_eq!(client.feedback(&first), FeedbackOutcome::TooLate);
    let (arrival, _) = client.ask(&named("s"), &[user("4+5?"), assistant("9"), user("and 6+7?")]);
    assert!(arrival.trainable, "another branch does not hold them");
}

#[test]
fn a_turn_before_words_with_no_train_waits_for_others_and_is_dropped_when_they_alone_follow_it() {
    let mut client = Client::new();
    let private = RequestMarks { no_train: true, ..named("s") };
    let (_, first, _) = client.exchange(&named("s"), &[user("4+5?")], "9");
    let mut history = vec![user("4+5?"), assistant("9"), user("heron")];
    client.exchange(&private, &history, "noted");
    assert_eq!(client.conversations.waiting_turns(), 1);
    history.extend([assistant("noted"), user("thanks")]);
    client.ask_raw(&named("s"), &history);
    assert_eq!(client.dropped(), [(first, "no_train")]);
}

#[test]
fn two_people_who_begin_alike_are_each_judged_by_their_own_words() {
    for b_comes_first in [false, true] {
        let mut client = Client::new();
        let private = RequestMarks { no_train: true, ..unnamed() };
        let opening = [user("what is 4+5?")];
        if !b_comes_first {
            client.exchange(&private, &opening, "9");
        }
        let (_, theirs, _) = client.exchange(&unnamed(), &opening, "9");
        if b_comes_first {
            client.exchange(&private, &opening, "9");
        }
        let with = |words: &str| [&opening[..], &[assistant("9"), user(words)]].concat();
        assert_eq!(client.exchange(&private, &with("wrong, my heron"), "sorry").2, []);
        let (arrival, _, news) = client.exchange(&unnamed(), &with("perfect"), "welcome");
        assert_eq!((arrival.trainable, news), (true, told(&theirs, "perfect")), "{b_comes_first}");
    }
}

#[test]
fn a_session_that_is_done_gives_its_last_next_state_and_starts_anew() {
    let mut client = Client::new();
    let (_, first, _) = client.exchange(&named("s"), &[user("hi")], "hello");
    let done = RequestMarks { session_done: true, ..named("s") };
    let last = [user("hi"), assistant("hello"), user("bye")];
    let (arrival, id, news) = client.exchange(&done, &last, "bye");
    assert_eq!((arrival.index, news), (2, told(&first, "bye")));
    assert_eq!(client.conversations.open_sessions(), 0);
    assert_eq!(client.ask(&named("s"), &[user("new")]).0.index, 1);
    assert_eq!(client.feedback(&id), FeedbackOutcome::Applied);
}

#[test]
fn idle_sessions_end_and_drop_their_turns() {
    let mut client = Client::new();
    let (_, id, _) = client.exchange(&named("s"), &[user("hi")], "hello");
    client.later(1799);
    client.conversations.sweep(client.now);
    assert_eq!(client.conversations.open_sessions(), 1);
    client.later(1);
    client.conversations.sweep(client.now);
    assert_eq!((client.conversations.open_sessions(), client.conversations.waiting_turns()), (0, 0));
    assert_eq!(client.dropped(), [(id.clone(), "idle")]);
    assert_eq!(client.feedback(&id), FeedbackOutcome::TooLate);
    assert_eq!(client.ask(&named("s"), &[user("hi"), assistant("hello"), user("late")]).1, []);
}

#[test]
fn limits_hold_and_the_oldest_go_first() {
    let config =
        SessionsConfig { max_sessions: 2, max_pending_turns: 3, max_histories: 2, ..Default::default() };
    let mut client = Client::with(config);
    for i in 0..10 {
        client.exchange(&unnamed(), &[user(&format!("question {i}"))], &format!("answer {i}"));
    }
    assert_eq!(client.conversations.open_sessions(), 2);
    assert!(client.conversations.waiting_turns() <= 3);
    assert!(client.conversations.by_history.len() <= 2 * KEYS_OF_A_TURN);
    let newest = [user("question 9"), assistant("answer 9"), user("ok")];
    assert_eq!(client.ask(&unnamed(), &newest).1, told("turn-10", "ok"));
    let oldest = [user("question 0"), assistant("answer 0"), user("ok")];
    assert_eq!(client.ask(&unnamed(), &oldest).1, []);

    let mut history = vec![user("start")];
    for i in 0..20 {
        let reply = format!("reply {i}");
        client.exchange(&unnamed(), &history, &reply);
        history.extend([assistant(&reply), user("more")]);
    }
    assert!(client.conversations.by_history.len() <= 8);
    for i in 0..100 {
        client.exchange(&named("s"), &[user(&format!("q {i}"))], "a");
    }
    assert_eq!(client.conversations.waiting_turns(), 3);
    assert!(client.conversations.settled.len() <= 24);
}

#[test]
fn a_turn_that_a_person_took_out_takes_no_feedback() {
    let mut client = Client::new();
    let (_, id, _) = client.exchange(&named("s"), &[user("2 + 2?")], "four");
    assert!(client.conversations.forget_turn(&TurnId(id.as_str().into())));
    assert_eq!(client.feedback(&id), FeedbackOutcome::TooLate);
    assert!(client.conversations.news().is_empty(), "the journal was told before");
}
