//! After a restart, everything goes on as if there had been none.

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::*;

impl Client {
    /// A successor that has what the journal has.
    pub(super) fn restart(&mut self) {
        self.news();
        self.conversations = Conversations::new(self.conversations.config.clone());
        for (recorded, completed) in &self.recorded {
            let mut recorded = recorded.clone();
            if !recorded.waiting {
                recorded.mark.chain = [recorded.mark.request()].into();
            }
            self.conversations.restore(recorded, *completed);
        }
    }
}

#[test]
fn a_client_that_goes_on_after_a_restart_finds_its_session_and_its_turn() {
    for marks in [named("s"), unnamed()] {
        let mut client = Client::new();
        let (before, turn, _) = client.exchange(&marks, &[user("hi")], "hello there");
        client.restart();
        let (after, news) = client.ask(&marks, &[user("hi"), assistant("hello there"), user("thanks")]);
        assert_eq!((after.session, after.index), (before.session, 2));
        assert_eq!(news, told(&turn, "thanks"));
    }
}

#[test]
fn a_session_that_was_idle_at_a_restart_ends_and_its_turn_is_dropped() {
    let mut client = Client::new();
    let (_, turn, _) = client.exchange(&named("s"), &[user("hi")], "hello");
    client.later(1800);
    client.restart();
    client.conversations.sweep(client.now);
    assert_eq!(client.conversations.open_sessions(), 0);
    assert_eq!(client.dropped(), [(turn, "idle")]);
}

#[test]
fn a_turn_that_is_told_of_again_after_a_restart_is_one_turn() {
    let mut client = Client::new();
    let (arrival, _) = client.ask(&named("s"), &[user("hi")]);
    let id = client.answer(&arrival, json!({"content": "hello"}));
    client.restart();
    // Whoever completed it did not hear that it was taken in.
    let (recorded, _) = client.recorded.pop().expect("one turn");
    client.turns = 0;
    assert_eq!(client.answer(&arrival, json!({"content": "hello"})), id);
    assert_eq!(recorded.turn.to_string(), id);
    assert_eq!((client.dropped(), client.conversations.waiting_turns()), (vec![], 1));
}

/// A conversation as its client has it.
struct Chat {
    marks: RequestMarks,
    history: Vec<Value>,
}

#[test]
fn no_restart_makes_a_difference_to_any_client() {
    for seed in 0..40 {
        let mut dice = SmallRng::seed_from_u64(seed);
        // A restart settles what may be taken back; all else is the same.
        let config = || SessionsConfig { settle_secs: 0, ..SessionsConfig::default() };
        let (mut steady, mut restarted) = (Client::with(config()), Client::with(config()));
        let mut sessions: std::collections::HashMap<SessionId, SessionId> = std::collections::HashMap::new();
        let mut chats: Vec<Chat> = (0..5)
            .map(|number| Chat {
                marks: if number % 2 == 0 { named(&format!("s{}", number / 4)) } else { unnamed() },
                history: vec![user(&format!("I am {}", number / 2))],
            })
            .collect();
        for step in 0..150 {
            let shown = format!("seed {seed}, step {step}");
            if dice.random_bool(0.1) {
                restarted.restart();
            }
            let secs = if dice.random_bool(0.02) { 1700 } else { dice.random_range(0..60) };
            for client in [&mut steady, &mut restarted] {
                client.later(secs);
                client.conversations.sweep(client.now);
            }
            assert_eq!(steady.dropped(), restarted.dropped(), "{shown}");
            if dice.random_bool(0.1) {
                let turn = format!("turn-{}", dice.random_range(1..=steady.turns.max(1)));
                let rate = |client: &mut Client| match client.feedback(&turn) {
                    // Said twice it counts once, whether that is remembered or not.
                    FeedbackOutcome::Repeated => {
                        client.conversations.news();
                        FeedbackOutcome::TooLate
                    }
                    outcome => outcome,
                };
                assert_eq!(rate(&mut steady), rate(&mut restarted), "{shown}");
                continue;
            }
            let chat = dice.random_range(0..chats.len());
            let chat = &mut chats[chat];
            let marks = RequestMarks {
                no_train: dice.random_bool(0.1),
                session_done: dice.random_bool(0.05),
                turn_type: dice.random_bool(0.1).then(|| "side".to_owned()),
                ..chat.marks.clone()
            };
            let said = *["yes", "no", "perhaps", ""].choose(&mut dice).expect("four");
            let reply = format!("{said} {}", if dice.random_bool(0.7) { step } else { 0 });
            let (expected, id, next_states) = steady.exchange(&marks, &chat.history, &reply);
            let (found, same_id, same_states) = restarted.exchange(&marks, &chat.history, &reply);
            assert_eq!((found.kind, found.index), (expected.kind, expected.index), "{shown}");
            assert_eq!((same_id, same_states), (id, next_states), "{shown}");
            let session = sessions.entry(expected.session).or_insert_with(|| found.session.clone());
            assert_eq!(*session, found.session, "{shown}");
            assert_eq!(steady.dropped(), restarted.dropped(), "{shown}");
            // Else the client asks the same again.
            if dice.random_bool(0.8) {
                chat.history.extend([assistant(&reply), user(&format!("remark {step}"))]);
            }
        }
        assert_eq!(steady.conversations.open_sessions(), restarted.conversations.open_sessions());
        assert_eq!(steady.conversations.waiting_turns(), restarted.conversations.waiting_turns());
    }
}
