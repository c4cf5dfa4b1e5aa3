use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use openclaw_journal::{
    Judged, Sample,
    inbox::{Inbox, InboxLimits},
};

use super::*;
use crate::{
    chat_client::tests::{completion, endpoint},
    prompts::hint_answer,
    tiny::{Tiny, message, turn, user_says},
};

fn config() -> JudgeConfig {
    JudgeConfig {
        votes: 3,
        temperature: 0.6,
        max_new_tokens: 16,
        deadline: Duration::from_secs(30),
        prompt: PromptStyle::Compact,
        history_messages: 8,
        hints: Some(HintSelection::Shortest(3)),
    }
}

struct Bench {
    judge: Judge,
    work: Inbox<Evaluate>,
}

fn bench(engine: JudgeEngine, config: JudgeConfig) -> Bench {
    let (recent, journal) = (RecentVerdicts::new(), Journal::in_memory());
    let judge = Judge { config, engine, recent, teaches: true, journal };
    Bench { judge, work: Inbox::new("judge", InboxLimits { capacity: 8, max_attempts: 2 }) }
}

impl Bench {
    async fn judge(&self, turn: Turn, next_state: NextState) {
        let turn = Arc::new(turn);
        let completed = Record::TurnCompleted { turn: turn.clone(), mark: Default::default() };
        self.judge.journal.submit(completed).await.expect("recorded");
        let seen = Record::NextStateSeen { turn: turn.id.clone(), next_state: next_state.clone() };
        self.judge.journal.submit(seen).await.expect("recorded");
        self.work.send(Evaluate { turn, next_state }).await;
        self.judge.handle(self.work.lease().await).await;
    }

    async fn to_teach(&self) -> Vec<Judged> {
        let judged = self.judge.journal.judged(0, 10).await.expect("read");
        judged.into_iter().map(|(_, judged)| judged).collect()
    }

    async fn ready(&self) -> Vec<Sample> {
        let samples = self.judge.journal.samples(0, 10).await.expect("read");
        samples.into_iter().map(|(_, sample)| sample).collect()
    }
}

fn client(url: &str) -> JudgeEngine {
    JudgeEngine::OpenAi(ChatClient::new(url, "judge", None).expect("a client"))
}

fn asks_for_a_hint(body: &serde_json::Value) -> bool {
    body["messages"][0]["content"].as_str().expect("a prompt").starts_with("[hint]")
}

fn homework() -> Turn {
    turn(vec![message("user", "2 + 2?")], "**4**")
}

#[tokio::test]
async fn a_complaint_becomes_a_verdict_and_its_hints_go_to_the_teacher() {
    let hints = ["Write plain sentences, without bold.", "short", "Use no bold text.", "use no BOLD text."];
    let drawn = Arc::new(AtomicUsize::new(0));
    let url = endpoint(move |body| {
        let hint =
            hints[drawn.fetch_add(usize::from(asks_for_a_hint(&body)), Ordering::SeqCst) % hints.len()];
        let vote = "it complains: \\boxed{-1}".to_owned();
        let answer = if asks_for_a_hint(&body) { hint_answer(Some(hint)) } else { vote };
        async move { completion(&answer) }
    })
    .await;
    let bench = bench(client(&url), JudgeConfig { votes: 4, ..config() });
    bench.judge(homework(), user_says("no bold, please")).await;
    let judged = bench.to_teach().await.remove(0);
    assert_eq!(judged.verdict.reward, Some(-1));
    assert_eq!(judged.verdict.votes, [Some(-1); 4]);
    assert_eq!(judged.hints, ["Use no bold text.", "Write plain sentences, without bold."]);
    assert_eq!((bench.ready().await.len(), bench.work.depth()), (0, 0));
    let totals = *bench.judge.journal.totals().borrow();
    assert_eq!((totals.rejected, totals.hinted), (1, 1));
}

#[tokio::test]
async fn without_a_hint_the_verdict_alone_becomes_a_sample() {
    let url = endpoint(|body| {
        let answer = if asks_for_a_hint(&body) { hint_answer(None) } else { "\\boxed{1}".to_owned() };
        async move { completion(&answer) }
    })
    .await;
    let bench = bench(client(&url), config());
    bench.judge(homework(), user_says("thanks!")).await;
    let sample = bench.ready().await.remove(0);
    assert_eq!((sample.verdict.reward, sample.teacher.is_none()), (Some(1), true));
    assert_eq!(bench.to_teach().await.len(), 0);
}

#[tokio::test]
async fn a_vote_that_misses_the_deadline_does_not_count() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = endpoint(move |_| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            completion("\\boxed{1}")
        }
    })
    .await;
    let bench =
        bench(client(&url), JudgeConfig { hints: None, deadline: Duration::from_secs(4), ..config() });
    let opinion = bench.judge.evaluate(&homework(), &user_says("thanks!")).await.expect("two votes arrive");
    assert_eq!(opinion.answers.iter().filter(|answer| answer.is_none()).count(), 1);
    assert_eq!(opinion.verdict.reward, Some(1));
}

#[tokio::test]
async fn a_turn_that_nobody_answers_for_waits_and_one_that_is_refused_dies() {
    for (status, resting, dead) in [(503, 1, 0), (400, 0, 1)] {
        let status = axum::http::StatusCode::from_u16(status).expect("a status");
        let url = endpoint(move |_| async move { status }).await;
        let bench = bench(client(&url), JudgeConfig { deadline: Duration::from_millis(300), ..config() });
        bench.judge(homework(), user_says("no")).await;
        assert_eq!(bench.work.status().resting, 1, "{status}");
        bench.judge.handle(bench.work.lease().await).await;
        let found = bench.work.status();
        assert_eq!((found.resting, found.dead_letters), (resting, dead), "{status}");
        assert_eq!(bench.ready().await.len() + bench.to_teach().await.len(), 0);
    }
}

#[tokio::test]
async fn an_untrained_judge_gives_no_verdict_and_does_not_hold_the_turn() {
    let (engine, _exited) = Tiny::new(1).engine("judge.0").await;
    let bench = bench(JudgeEngine::Embedded(engine), config());
    bench.judge(homework(), user_says("no bold, please")).await;
    let sample = bench.ready().await.remove(0);
    assert_eq!((sample.verdict.reward, sample.verdict.votes.as_slice()), (None, &[None; 3][..]));
}

#[tokio::test]
async fn a_turn_that_must_not_be_trained_on_goes_no_further() {
    let url = endpoint(|_| async { completion("\\boxed{1}") }).await;
    let bench = bench(client(&url), config());
    bench.judge(Turn { trainable: false, ..homework() }, user_says("thanks!")).await;
    assert_eq!(bench.ready().await.len() + bench.to_teach().await.len() + bench.work.depth(), 0);
    let totals = *bench.judge.journal.totals().borrow();
    assert_eq!((totals.turns, totals.approved, totals.samples), (1, 0, 0));
}

#[test]
fn what_a_rule_sees_needs_no_vote() {
    let tool = |is_error| NextState { kind: NextStateKind::Tool, is_error, ..user_says("No such file") };
    let rated = |rating| NextState { rating: Some(rating), ..user_says("") };
    let cut = |mut turn: Turn| {
        turn.completion.finish_reason = FinishReason::Length;
        turn
    };
    let messages = || vec![message("user", "2 + 2?")];
    let cases = [
        (homework(), user_says("ok"), None),
        (homework(), tool(false), None),
        (homework(), tool(true), Some(("tool_error", -1))),
        (turn(messages(), " \n"), user_says("?"), Some(("empty", -1))),
        (turn(messages(), "<think>hm</think>\n\n"), user_says("?"), Some(("empty", -1))),
        (turn(messages(), "The tag that ends it is </think>"), user_says("Great, thanks"), None),
        (cut(homework()), user_says("go on"), Some(("truncated", -1))),
        (homework(), rated(1), Some(("rating", 1))),
        (cut(homework()), rated(-1), Some(("rating", -1))),
    ];
    for (turn, next_state, expected) in cases {
        let text = turn.completion.text.clone();
        assert_eq!(decide_by_rule(&turn, &next_state, || false), expected, "{text} {next_state:?}");
    }
}

#[tokio::test]
async fn the_same_answer_again_after_a_complaint_is_a_failure_and_else_is_not() {
    let url = endpoint(|_| async { completion("\\boxed{1}") }).await;
    let bench = bench(client(&url), JudgeConfig { hints: None, ..config() });
    let again = || Turn {
        index: 2,
        ..turn(
            vec![
                message("user", "2 + 2?"),
                message("assistant", "**4**"),
                message("user", "no bold, please"),
            ],
            "**4**",
        )
    };
    for (first, expected) in [(Some(-1), Some("repeat")), (Some(1), None), (None, None)] {
        bench.judge.recent.remember(&again().session, 1, first);
        let opinion = bench.judge.evaluate(&again(), &user_says("?")).await.expect("votes arrive");
        assert_eq!(opinion.verdict.rule.as_deref(), expected, "{first:?}");
    }
}

#[test]
fn hints_are_chosen_as_published() {
    let answers: Vec<Option<String>> = ["Use no bold text.", "short", "Write plain sentences only."]
        .iter()
        .map(|hint| Some(hint_answer(Some(hint))))
        .chain([None, Some(hint_answer(None))])
        .collect();
    assert_eq!(select_hints(HintSelection::Longest, &answers), ["Write plain sentences only."]);
    assert_eq!(select_hints(HintSelection::Shortest(1), &answers), ["Use no bold text."]);
    assert_eq!(select_hints(HintSelection::Shortest(3), &answers).len(), 2);
    assert_eq!(select_hints(HintSelection::Longest, &[None]), [""; 0]);
}
