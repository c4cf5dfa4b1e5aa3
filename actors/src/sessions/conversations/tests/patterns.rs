//! What agent frameworks do to a history between two requests: prompts with the time in them, windows, summaries, cleared
//! results, replies that are cut, extended or written as text. Each as it was seen on real clients.

use super::*;

const REPLY: &str = "Seven and five make twelve, as far as I can tell.";

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

fn call(arguments: &str) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": arguments}}]})
}

/// A pattern: its name, the request that is answered with [`REPLY`], and the one that follows.
fn patterns() -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let (q, r, next) = (|| user("What is 7 plus 5?"), || assistant(REPLY), || user("Too long."));
    let old = || [user("What is 1 plus 1?"), assistant("old answer")];
    let with_old = |rest: Vec<Value>| [old().to_vec(), rest].concat();
    let cut: String = REPLY.chars().take(20).collect();
    vec![
        ("plain", vec![system("sys"), q()], vec![system("sys"), q(), r(), next()]),
        ("time in the system prompt", vec![system("12:01"), q()], vec![system("12:09"), q(), r(), next()]),
        ("system prompt dropped", vec![system("sys"), q()], vec![q(), r(), next()]),
        ("system prompt added", vec![q()], vec![system("sys"), q(), r(), next()]),
        ("a note moves", vec![q(), system("time 1")], vec![q(), r(), next(), system("time 2")]),
        ("environment stripped", vec![user("What is 7 plus 5?\n<env>1</env>")], vec![q(), r(), next()]),
        ("context in the newest", vec![user("Context: x\n\nWhat is 7 plus 5?")], vec![q(), r(), next()]),
        ("sliding window", with_old(vec![q()]), vec![q(), r(), next()]),
        ("window of the last reply", with_old(vec![q()]), vec![system("sys"), r(), next()]),
        ("summary", with_old(vec![q()]), vec![user("Summary: adds numbers."), r(), next()]),
        (
            "old result cleared",
            vec![user("old"), call("{}"), tool("a b c"), assistant("listed"), q()],
            vec![user("old"), call("{}"), tool("[cleared]"), assistant("listed"), q(), r(), next()],
        ),
        ("footer", vec![q()], vec![q(), assistant(&format!("{REPLY}\n\n(sent by bot)")), next()]),
        ("closing tag", vec![q()], vec![q(), assistant(&format!("{REPLY}</code>")), next()]),
        ("split", vec![q()], vec![q(), assistant(&REPLY[..9]), assistant(&REPLY[9..]), next()]),
        ("cut off", vec![q()], vec![q(), assistant(&cut), next()]),
        ("merged users", vec![user("hello"), q()], vec![user("hello\nWhat is 7 plus 5?"), r(), next()]),
        (
            "numbers of JavaScript",
            vec![q(), call("{\"x\": 1.0}"), tool("paid")],
            vec![q(), call("{\"x\":1}"), tool("paid"), r(), next()],
        ),
        (
            "sorted keys",
            vec![q(), call("{\"b\":1,\"a\":2}"), tool("paid")],
            vec![q(), call("{\"a\":2,\"b\":1}"), tool("paid"), r(), next()],
        ),
        ("spaces", vec![user("What  is\n\n7 plus 5?")], vec![user("What is\n7 plus 5?"), r(), next()]),
    ]
}

#[test]
fn a_reply_is_found_whatever_a_framework_does_to_the_history() {
    for (name, first, second) in patterns() {
        for marks in [unnamed(), named("s"), RequestMarks { person: Some("ada".to_owned()), ..unnamed() }] {
            let mut client = Client::new();
            let (one, turn, _) = client.exchange(&marks, &first, REPLY);
            let (two, news) = client.ask(&marks, &second);
            assert_eq!(news, told(&turn, "Too long."), "{name}");
            assert_eq!(one.session, two.session, "{name}");
        }
    }
}

#[test]
fn an_observation_behind_a_reply_is_its_next_state() {
    let (q, seen) = (user("Weather in Rome?"), format!("{REPLY}\nObservation: 21 degrees"));
    let mut client = Client::new();
    let (_, turn, _) = client.exchange(&unnamed(), std::slice::from_ref(&q), REPLY);
    let (arrival, news) = client.ask(&unnamed(), &[q.clone(), assistant(&seen)]);
    assert_eq!(news, told(&turn, "21 degrees"));
    // The agent goes on in the same message.
    let next = client.answer(&arrival, json!({"content": "Final Answer: it is 21 degrees in Rome"}));
    let last = format!("{seen}\nFinal Answer: it is 21 degrees in Rome");
    let (_, news) = client.ask(&unnamed(), &[q, assistant(&last), user("thanks")]);
    assert!(news.is_empty() || news == told(&next, "thanks"), "{news:?}");
}

#[test]
fn a_name_keeps_the_session_over_a_summary_of_everything() {
    let mut client = Client::new();
    let (one, ..) = client.exchange(&named("s"), &[user("What is 7 plus 5?")], REPLY);
    let (two, news) = client.ask(&named("s"), &[user("Summary: adds numbers."), user("Too long.")]);
    assert_eq!((one.session, news), (two.session, Vec::new()));
}

#[test]
fn equal_openings_are_conversations_of_their_own_unless_one_says_that_it_repeats() {
    let mut client = Client::new();
    let opening = [system("sys"), user("hi")];
    let turns: Vec<_> = (0..8).map(|_| client.exchange(&unnamed(), &opening, REPLY)).collect();
    for (at, (one, ..)) in turns.iter().enumerate() {
        assert!(turns[..at].iter().all(|(other, ..)| other.session != one.session));
    }
    let mut answered = Vec::new();
    for nth in 0..8 {
        let next = user(&format!("remark {nth}"));
        let (arrival, news) =
            client.ask(&unnamed(), &[opening[0].clone(), opening[1].clone(), assistant(REPLY), next]);
        assert_eq!(news.len(), 1, "{nth}");
        answered.extend(news);
        assert_eq!(arrival.index, 2);
    }
    answered.sort_unstable();
    answered.dedup_by_key(|(turn, _)| turn.clone());
    assert_eq!(answered.len(), 8, "each found a turn of its own");

    let retry = RequestMarks { retry: true, ..unnamed() };
    let (first, ..) = client.exchange(&unnamed(), &[user("again?")], "yes, again and again");
    assert_eq!(client.ask(&retry, &[user("again?")]).0.session, first.session);
}

#[test]
fn a_reply_that_two_conversations_share_is_nobodys_once_their_histories_are_rewritten() {
    let mut client = Client::new();
    client.exchange(&unnamed(), &[system("1"), user("hi")], REPLY);
    client.exchange(&unnamed(), &[system("2"), user("hi")], REPLY);
    let (_, news) = client.ask(&unnamed(), &[system("3"), user("hi"), assistant(REPLY), user("Too long.")]);
    assert_eq!(news, []);
    // Short words are anybody's.
    client.exchange(&unnamed(), &[user("2+2?")], "4");
    assert_eq!(client.ask(&unnamed(), &[user("1+3?"), assistant("4"), user("no")]).1, []);
}

#[test]
fn a_person_is_no_conversation_and_shares_none_with_another() {
    let as_person = |name: &str| RequestMarks { person: Some(name.to_owned()), ..unnamed() };
    let mut client = Client::new();
    let (ada, turn, _) = client.exchange(&as_person("ada"), &[user("hi")], REPLY);
    let other =
        client.exchange(&as_person("ada"), &[user("What is 2 plus 2?")], "It is four, I think, my dear.");
    assert_ne!(ada.session, other.0.session);
    let rewritten = [system("new"), user("hi"), assistant(REPLY), user("Too long.")];
    assert_eq!(client.ask(&as_person("bob"), &rewritten).1, []);
    assert_eq!(client.ask(&as_person("ada"), &rewritten).1, told(&turn, "Too long."));
}

#[test]
fn a_short_reply_with_something_behind_it_is_known_at_its_place_and_no_other_answer_is_taken_for_it() {
    let mut client = Client::new();
    let question = [user("is it?")];
    let (_, short, _) = client.exchange(&named("s"), &question, "yes");
    let (_, long, _) = client.exchange(&named("s"), &question, "yes it is");
    let asked = |reply: &str, text: &str| [user("is it?"), assistant(reply), user(text)];
    let (_, news) = client.ask(&named("s"), &asked("yes it is", "sure?"));
    assert_eq!(news, told(&long, "sure?"));
    let (_, news) = client.ask(&named("s"), &asked("yes</code>", "why?"));
    assert_eq!(news, told(&short, "why?"));
}
