//! A reply in its parts, wherever the page or the operator is shown one.

use openclaw_model::{ParserConfig, ReplySplit};

use super::*;
use crate::{
    admin::{DeadTurn, DeadTurnStory},
    page::reply::ReplyParts,
};

const THOUGHT: &str = "<think>\nhm\n</think>\n\n";
const PROSE: &str = "The tag that ends it is </think>, a call begins with <tool_call>.";

impl House {
    /// Version `version` replied `text` at the beginning of a conversation.
    fn replied(&self, session: &str, text: &str, version: u64) -> Turn {
        let mut turn = self.turn(session, 1);
        turn.tools = Arc::new(vec![json!({"type": "function", "function": {"name": "ls"}})]);
        let completion = &mut turn.completion;
        completion.response_ids = self.ids(&format!("{text}{END}"));
        completion.rollout_logprobs = vec![-0.5; completion.response_ids.len()];
        // As a client asks: what is drawn for it says something.
        let asked = [json!({"role": "user", "content": "What is 2 + 3?"})];
        completion.prompt_ids = self.text.prompt_ids(&asked, &[], &Default::default()).expect("a prompt");
        completion.policy_version = version;
        completion.text = text.to_owned();
        completion.split = ReplySplit::of(text, ParserConfig::new(&turn.tools, false));
        turn
    }
}

fn shown(text: &str) -> Value {
    json!({"text": text, "chars": text.chars().count()})
}

#[tokio::test]
async fn a_turn_shows_thinking_and_calls_apart_and_a_mark_in_its_words_as_a_word() {
    let house = House::open().await;
    let call = "{\"name\": \"ls\", \"arguments\": {\"path\": \"</think>\"}}";
    let text = format!("{THOUGHT}{PROSE}\n<tool_call>\n{call}\n</tool_call>");
    house.judge(house.replied("s", &text, 0), -1).await;
    house.judge(house.replied("plain", PROSE, 0), -1).await;

    let turn = house.seen("/page/turn?id=s-1").await;
    let parts = json!({"thinking": shown("hm"), "words": shown(PROSE), "calls": [shown(call)]});
    assert_eq!(turn["reply"], parts);
    let tokens = turn["tokens"]["text"].as_array().expect("a list").iter();
    let thinking = turn["tokens"]["thinking"].as_u64().expect("a number") as usize;
    let thought: String = tokens.take(thinking).map(|token| token.as_str().expect("text")).collect();
    assert!(THOUGHT.starts_with(&thought) && thought.trim_end().ends_with("</think>"), "{thought}");

    let plain = house.seen("/page/turn?id=plain-1").await;
    assert_eq!(plain["reply"], json!({"thinking": null, "words": shown(PROSE), "calls": []}));
    assert_eq!(plain["tokens"]["thinking"], 0);
}

#[tokio::test]
async fn the_overview_compares_what_was_said() {
    let house = House::open().await;
    for (session, version) in [("old", 0), ("new", 3)] {
        house.judge(house.replied(session, &format!("{THOUGHT}{PROSE}"), version), 1).await;
    }
    let pair = &house.seen("/page/overview").await["pair"];
    for side in ["before", "after"] {
        let parts = json!({"thinking": shown("hm"), "words": shown(PROSE), "calls": []});
        assert_eq!(pair[side]["reply"], parts, "{pair}");
    }
}

#[tokio::test]
async fn a_comparison_shows_each_reply_in_its_parts() {
    let house = House::open().await;
    house.judge(house.replied("s", &format!("{THOUGHT}{PROSE}"), 0), 1).await;
    let mut open = house.replied("open", "hm\n</think>\n\nhi", 0);
    open.completion.split = ReplySplit::of(&open.completion.text, ParserConfig::new(&[], true));
    house.judge(open, 1).await;
    let (_, compared) = house.compare(json!({"turn": "s-1", "old": 0, "new": 0})).await;
    let parts = json!({"thinking": shown("hm"), "words": shown(PROSE), "calls": []});
    assert_eq!(compared["recorded"]["reply"], parts, "{compared}");
    assert!(compared["old"]["reply"]["words"]["chars"].as_u64() > Some(0), "{compared}");
    // The prompt of the other turn had left a thought open: what is drawn now begins within it.
    let (_, compared) = house.compare(json!({"turn": "open-1", "old": 0, "new": 0})).await;
    assert_eq!(compared["recorded"]["reply"]["words"], shown("hi"), "{compared}");
    assert!(compared["old"]["reply"]["thinking"]["chars"].as_u64() > Some(0), "{compared}");
    assert_eq!(compared["old"]["reply"]["words"], shown(""), "{compared}");
}

#[tokio::test]
async fn a_dead_turn_is_told_with_its_thinking_apart() {
    let house = House::open().await;
    let turn = house.judge(house.replied("s", &format!("{THOUGHT}{PROSE}"), 0), 1).await;
    let row = house.journal.turn(&turn).await.expect("it can be read").expect("it is there");
    let story = DeadTurnStory::new(DeadTurn::default(), row);
    assert_eq!((&*story.thought, &*story.replied), ("hm", PROSE));
}

#[test]
fn each_part_is_cut_by_itself() {
    let text = format!("{THOUGHT}{PROSE}");
    let split = ReplySplit::of(&text, ParserConfig::new(&[], false));
    let parts = serde_json::to_value(ReplyParts::cut(&text, &split, 1)).expect("JSON");
    let words = json!({"text": "T", "chars": PROSE.chars().count()});
    assert_eq!(parts, json!({"thinking": {"text": "h", "chars": 2}, "words": words, "calls": []}));
}
