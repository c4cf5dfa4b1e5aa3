use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use openclaw_journal::{
    Judged, Sample, Screen,
    inbox::{Inbox, InboxLimits},
};
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    chat_client::tests::{completion, ended_completion, endpoint},
    prompts::hint_answer,
    tiny::{Tiny, message, turn, user_says},
};

const DEADLINE: Duration = Duration::from_secs(30);

fn config() -> JudgeConfig {
    JudgeConfig {
        votes: Votes::Sampled(3),
        temperature: 0.6,
        max_new_tokens: 16,
        deadline: DEADLINE,
        prompt: PromptStyle::Compact,
        history_messages: 8,
        hints: Some(HintSelection::Shortest(3)),
        hint_check: false,
        remember_hints: false,
        images: None,
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
    /// A judge is sent what is committed.
    async fn judge(&self, turn: Turn, next_state: NextState) {
        let turn = Arc::new(turn);
        let completed = Record::TurnCompleted { turn: turn.clone(), mark: Default::default() };
        self.judge.journal.record(completed).await.expect("written");
        let seen = Record::NextStateSeen {
            turn: turn.id.clone(),
            next_state: next_state.clone(),
            provisional: false,
        };
        self.judge.journal.record(seen).await.expect("written");
        self.work.send(Evaluate { turn, next_state, undone: 0 }).await;
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
    let bench = bench(client(&url), JudgeConfig { votes: Votes::Sampled(4), ..config() });
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
async fn a_wish_that_was_said_as_one_stands_for_replies_that_nobody_complains_about() {
    let url = endpoint(|body| {
        let answer = if asks_for_a_hint(&body) { hint_answer(None) } else { "\\boxed{1}".to_owned() };
        async move { completion(&answer) }
    })
    .await;
    let bench = bench(client(&url), JudgeConfig { remember_hints: true, ..config() });
    let named = |name: &str| Turn { id: openclaw_journal::TurnId(name.into()), ..homework() };
    let words = |text: &str| NextState { kind: NextStateKind::Feedback, rating: Some(-1), ..user_says(text) };
    bench.judge(named("first"), words("Always greet me first.")).await;
    bench.judge(named("second"), user_says("thanks!")).await;
    // About one answer alone: shown with it, and not remembered.
    let about = Turn {
        id: openclaw_journal::TurnId("third".into()),
        ..turn(vec![message("user", "red apples?")], "**4**")
    };
    bench.judge(about, words("No, red pears instead of apples.")).await;
    let hints: Vec<Vec<String>> = bench.to_teach().await.into_iter().map(|judged| judged.hints).collect();
    let stands = "Always greet me first.".to_owned();
    let both = format!("{stands} No, red pears instead of apples.");
    assert_eq!(hints, [vec![stands.clone()], vec![stands.clone()], vec![both]]);
    let standing = bench.judge.journal.wishes(None).await.expect("read");
    assert_eq!(standing.len(), 1);
    bench.judge.journal.record(Record::WishWithdrawn { wish: standing[0].wish }).await.expect("kept");
    bench.judge(named("fourth"), user_says("thanks!")).await;
    assert_eq!((bench.to_teach().await.len(), bench.ready().await.len()), (3, 1));
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
    let bench = bench(client(&url), JudgeConfig { hints: None, ..config() });
    let opinion = bench.judge.evaluate(&homework(), &user_says("thanks!"), Duration::from_secs(4)).await;
    let opinion = opinion.expect("two votes arrive");
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
async fn a_vote_and_a_hint_are_read_from_a_finished_answer_behind_its_thought() {
    let hint = hint_answer(Some("Use no bold text."));
    for (before, said, finish_reason, counts) in [
        ("<think>\nAt first sight they seem pleased: ", "", "length", false),
        ("<think>\nmaybe ", "\n</think>\n\nI would rather not say.", "stop", false),
        ("<think>\nmaybe ", "\n</think>\n\n", "stop", false),
        ("The choices are ", " and others. I cannot", "length", false),
        ("", "", "content_filter", false),
        ("<think>\nhm\n</think>\n\n", "", "stop", true),
    ] {
        let hint = hint.clone();
        let url = endpoint(move |body| {
            let answer = if asks_for_a_hint(&body) { hint.as_str() } else { "\\boxed{1}" };
            let answer = ended_completion(&format!("{before}{answer}{said}"), finish_reason);
            async move { answer }
        })
        .await;
        let bench = bench(client(&url), config());
        let opinion =
            bench.judge.evaluate(&homework(), &user_says("ok"), DEADLINE).await.expect("answers arrive");
        let reward = counts.then_some(1);
        assert_eq!(opinion.verdict.votes, [reward; 3], "{before}..{said} {finish_reason}");
        assert_eq!((opinion.verdict.reward, opinion.hints.len()), (reward, usize::from(counts)));
        assert!(
            opinion.answers.iter().flatten().all(|answer| answer.starts_with(before)),
            "it is kept as said"
        );
    }
}

#[tokio::test]
async fn a_persons_words_are_the_hint_and_no_hint_writer_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = endpoint({
        let asked = asked.clone();
        move |body| {
            asked.fetch_add(usize::from(asks_for_a_hint(&body)), Ordering::SeqCst);
            let guess = hint_answer(Some("Great job on asking!"));
            let answer = if asks_for_a_hint(&body) { guess } else { "\\boxed{-1}".to_owned() };
            async move { completion(&answer) }
        }
    })
    .await;
    let cut = || {
        let mut turn = homework();
        turn.completion.finish_reason = FinishReason::Length;
        turn
    };
    for (turn, words, rating) in [
        (homework(), "no", Some(-1)),
        (homework(), "Write <b>plain</b> sentences.", None),
        (cut(), "Be brief.", None),
    ] {
        let bench = bench(client(&url), config());
        let said = NextState { kind: NextStateKind::Feedback, rating, ..user_says(words) };
        bench.judge(turn, said).await;
        let judged = bench.to_teach().await.remove(0);
        assert_eq!((judged.hints, judged.verdict.reward), (vec![words.to_owned()], Some(-1)));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let long = "é".repeat(3000);
    let hint = explicit_hint(NextStateKind::Feedback, &long).expect("words");
    assert!(hint.starts_with('é') && hint.ends_with('é') && hint.chars().count() < 1010);
}

#[tokio::test]
async fn a_late_judge_costs_attempts_and_names_the_key_and_no_rule_waits_for_it() {
    let url = endpoint(|_| async {
        std::future::pending::<()>().await;
        completion("")
    })
    .await;
    let bench = bench(client(&url), JudgeConfig { deadline: Duration::from_millis(50), ..config() });
    bench.judge(homework(), user_says("no")).await;
    assert!(bench.work.failing().expect("it is slow").starts_with("slow: "));
    bench.judge.handle(bench.work.lease().await).await;
    let (attempts, reason) = bench.work.dead_letter(|_, tried, why| (tried, why.map(str::to_owned))).await;
    assert_eq!((attempts, bench.work.depth()), (2, 0));
    let reason = reason.expect("it is told");
    assert!(reason.contains("within 0.1 s") && reason.contains("`actors.judge.deadline_secs`"), "{reason}");

    let failed = NextState { kind: NextStateKind::Tool, is_error: true, ..user_says("No such file") };
    let tool_call = Turn { id: openclaw_journal::TurnId("tool".into()), ..homework() };
    bench.judge(tool_call, failed).await;
    let sample = bench.ready().await.remove(0);
    assert_eq!((sample.verdict.rule.as_deref(), bench.work.depth()), (Some("tool_error"), 0));
}

#[tokio::test]
async fn what_a_person_said_on_the_page_is_recorded_at_once_though_no_judge_answers() {
    let url = endpoint(|_| async {
        std::future::pending::<()>().await;
        completion("")
    })
    .await;
    let bench = bench(client(&url), config());
    let (turn, next_state) = (Arc::new(homework()), user_says("no"));
    let id = || turn.id.clone();
    for record in [
        Record::TurnCompleted { turn: turn.clone(), mark: Default::default() },
        Record::NextStateSeen { turn: id(), next_state: next_state.clone(), provisional: false },
        Record::Rated { turn: id(), rating: -1 },
        Record::HintCorrected { turn: id(), hint: "Be brief.".to_owned() },
    ] {
        assert_eq!(bench.judge.journal.record(record).await.expect("written"), Recorded::Done);
    }
    bench.work.send(Evaluate { turn: turn.clone(), next_state, undone: 0 }).await;
    tokio::select! {
        () = bench.judge.handle(bench.work.lease().await) => {}
        () = sleep_until(Instant::now() + DEADLINE / 2) => panic!("it waits for the judge"),
    }
    let judged = bench.to_teach().await.remove(0);
    assert_eq!((judged.verdict.reward, judged.hints), (Some(-1), vec!["Be brief.".to_owned()]));
}

#[tokio::test]
async fn an_embedded_judge_that_is_cut_off_says_so() {
    let (engine, _exited) = Tiny::new(1).engine("judge.0").await;
    let opened = engine.text().tokenizer.encode("<|im_start|>assistant\n<think>\n").expect("ids");
    assert!(engine.text().opens_a_thought(&opened) && !engine.text().opens_a_thought(&opened[..3]));
    let config = JudgeConfig { max_new_tokens: 1, ..config() };
    let (judge, unseen) = (JudgeEngine::Embedded(engine), Screens::default());
    let answer = judge.answer("[judge]", &unseen, &config, Instant::now() + DEADLINE).await;
    let answer = answer.expect("an engine that is up").expect("in time");
    // One token is either the end, and then there is no text, or not the end.
    assert!(answer.readable().is_err(), "{answer:?}");
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
async fn a_scored_verdict_is_read_from_the_probabilities_of_the_three() {
    let (engine, _exited) = Tiny::new(1).engine("judge.0").await;
    let prompt_ids = engine.question_ids("[judge]").expect("ids");
    let said = ["\\boxed{-1}", "\\boxed{0}", "\\boxed{1}"].map(|text| engine.text_ids(text).expect("ids"));
    let at = (0..).find(|at| said[0][*at] != said[1][*at]).expect("they differ");
    let mut logprobs = Vec::new();
    for ids in &said {
        let (ids, start) = ([&prompt_ids[..], ids].concat(), prompt_ids.len());
        let request = openclaw_model::ScoreRequest { ids, start, temperature: 1.0, ..Default::default() };
        logprobs.push(engine.score(request).await.expect("scored").logprobs[at]);
    }
    let scores = Scores::of(&engine, "[judge]").await.expect("scored");
    let sum: f32 = logprobs.iter().map(|logprob| logprob.exp()).sum();
    let expected = logprobs
        .iter()
        .zip([-1, 0, 1])
        .map(|(logprob, verdict)| format!("{verdict}: {:.3}", logprob.exp() / sum));
    assert_eq!(scores.told(), expected.collect::<Vec<_>>().join(", "));

    // A verdict of it is recorded as one vote, readable as any other; it needs no sample, and is never unreadable.
    let votes = Votes::Scored { margin: 0.0 };
    let bench = bench(JudgeEngine::Embedded(engine), JudgeConfig { votes, ..config() });
    bench.judge(homework(), user_says("no bold, please")).await;
    let verdict = bench.ready().await.remove(0).verdict;
    assert!(verdict.reward.is_some() && verdict.votes == [verdict.reward], "{verdict:?}");
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
        let opinion = bench.judge.evaluate(&again(), &user_says("?"), DEADLINE).await.expect("votes arrive");
        assert_eq!(opinion.verdict.rule.as_deref(), expected, "{first:?}");
    }
}

#[test]
fn hints_are_chosen_as_published() {
    let answers = ["Use no bold text.", "short", "Write plain sentences only."]
        .map(|hint| hint_answer(Some(hint)))
        .into_iter()
        .chain([hint_answer(None)])
        .collect::<Vec<_>>();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    assert_eq!(select_hints(HintSelection::Longest, &answers), ["Write plain sentences only."]);
    assert_eq!(select_hints(HintSelection::Shortest(1), &answers), ["Use no bold text."]);
    assert_eq!(select_hints(HintSelection::Shortest(3), &answers).len(), 2);
    assert_eq!(select_hints(HintSelection::Longest, &[]), [""; 0]);
}

#[tokio::test]
async fn a_judge_that_sees_is_shown_the_screen_before_the_step_and_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let pictures = Pictures::new(dir.path().to_owned(), 1 << 20);
    let image = |of: &str| {
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), of.as_bytes()].concat();
        let name: String = Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect();
        pictures.keep(&name, &png).expect("kept");
        (name, format!("data:image/png;base64,{}", STANDARD.encode(&png)))
    };
    let ((before, old), (after, new)) = (image("old"), image("new"));
    let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let url = endpoint(move |body| {
        let _ = asked.send(body["messages"][0]["content"].clone());
        async move { completion("\\boxed{1}") }
    })
    .await;
    let seeing =
        JudgeConfig { images: Some(pictures.clone()), votes: Votes::Sampled(1), hints: None, ..config() };
    let mut shows = async |config: &JudgeConfig, screen: Option<Screen>| {
        let bench = bench(client(&url), config.clone());
        let next_state =
            NextState { kind: NextStateKind::Tool, screen, ..user_says("The screen has changed.") };
        bench.judge(homework(), next_state).await;
        questions.recv().await.expect("it was asked")
    };
    let screen = |before: Option<&String>| Screen {
        before: before.cloned(),
        after: after.clone(),
        point: Some((0.251, 1.0)),
    };
    let shown = shows(&seeing, Some(screen(Some(&before)))).await;
    let parts = shown.as_array().expect("parts");
    let urls: Vec<&str> = parts[1..].iter().filter_map(|part| part["image_url"]["url"].as_str()).collect();
    assert_eq!(urls, [&old, &new]);
    let words = parts[0]["text"].as_str().expect("words");
    assert!(words.contains("The screen has changed.") && words.contains("25 % from the left"), "{words}");
    assert_eq!(shows(&seeing, Some(screen(None))).await.as_array().expect("parts").len(), 2);
    // What made room for others, what never was, and a judge that reads alone.
    let gone = Screen { after: "0".repeat(64), ..screen(Some(&before)) };
    for (config, screen) in [
        (&seeing, Some(gone)),
        (&seeing, None),
        (&JudgeConfig { images: None, ..seeing.clone() }, Some(screen(Some(&before)))),
    ] {
        assert!(shows(config, screen).await.is_string());
    }
}
