use std::sync::Arc;

use openclaw_journal::{
    Verdict,
    inbox::{Inbox, InboxLimits},
};

use super::*;
use crate::{
    engine::{EngineLimits, Place},
    loaded_model::LoadedModel,
    methods::MethodKind,
    tiny::{Tiny, message, record_judged, turn},
};

async fn bench(method: &MethodConfig) -> Teacher {
    Teacher {
        config: TeacherConfig::for_method(method, Duration::from_secs(60)),
        student: Tiny::new(1).engine("policy.0").await.0,
        teacher: Tiny::new(2).engine("teacher.0").await.0,
        journal: Journal::in_memory(),
    }
}

fn question() -> Turn {
    turn(vec![message("system", "be kind"), message("user", "2 + 2?")], "**four**")
}

/// log p of the response's token `t`, asked alone: the prompt, the tokens before it, and it.
async fn direct(engine: &Engine, prompt: &str, turn: &Turn, t: usize) -> f32 {
    let messages = [message("system", "be kind"), message("user", prompt)];
    let mut ids = engine.prompt_ids(&messages, &[], &serde_json::Map::new()).expect("a prompt");
    ids.extend(&turn.completion.response_ids[..=t]);
    let start = ids.len() - 1;
    let request = ScoreRequest { ids, start, temperature: 0.8, ..ScoreRequest::default() };
    engine.score(request).await.expect("a score").logprobs[0]
}

#[tokio::test]
async fn the_first_token_is_scored_like_every_other_and_nothing_is_padded() {
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    let turn = question();
    let signal =
        teacher.signal(&turn, &["Be brief, please.".to_owned()]).await.expect("scored").expect("fits");
    let length = turn.completion.response_ids.len();
    assert_eq!(
        (signal.logprobs.len(), signal.old_logprobs.len(), signal.student_top.len()),
        (length, length, length)
    );
    assert!(signal.teacher_top.is_empty());
    for t in [0, 1, length - 1] {
        let hinted = direct(&teacher.teacher, "2 + 2?\n\n[hint] Be brief, please.", &turn, t).await;
        let plain = direct(&teacher.student, "2 + 2?", &turn, t).await;
        assert!((signal.logprobs[t] - hinted).abs() < 1e-4, "{t}: {} {hinted}", signal.logprobs[t]);
        assert!((signal.old_logprobs[t] - plain).abs() < 1e-4, "{t}: {} {plain}", signal.old_logprobs[t]);
    }
    assert!((signal.logprobs[0] - signal.old_logprobs[0]).abs() > 1e-3, "hint and weights make a difference");
}

#[tokio::test]
async fn candidates_carry_both_sides_of_the_same_ids() {
    let method = MethodConfig { add_teacher_top: true, ..MethodConfig::new(MethodKind::Hybrid) };
    let teacher = bench(&method).await;
    let turn = question();
    let signal =
        teacher.signal(&turn, &["Be brief, please.".to_owned()]).await.expect("scored").expect("fits");
    for (t, (student, taught)) in signal.student_top.iter().zip(&signal.teacher_top).enumerate() {
        assert_eq!((student.ids.len(), taught.ids.len()), (4, 1));
        assert!(student.old_logprobs.is_sorted_by(|a, b| a >= b));
        let drawn = turn.completion.response_ids[t];
        if let Some(at) = student.ids.iter().position(|id| *id == drawn) {
            assert!((student.old_logprobs[at] - signal.old_logprobs[t]).abs() < 1e-5);
            assert!((student.teacher_logprobs[at] - signal.logprobs[t]).abs() < 1e-5);
        }
        // An id on both lists is said the same of on both.
        if let Some(at) = student.ids.iter().position(|id| *id == taught.ids[0]) {
            assert!((student.teacher_logprobs[at] - taught.teacher_logprobs[0]).abs() < 1e-5);
            assert!((student.old_logprobs[at] - taught.old_logprobs[0]).abs() < 1e-5);
        }
        assert!(student.teacher_logprobs.iter().all(|logprob| *logprob <= taught.teacher_logprobs[0] + 1e-5));
    }
}

#[tokio::test]
async fn a_hint_too_long_for_the_context_leaves_the_verdict() {
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    let work = Inbox::new("teacher", InboxLimits::default());
    let turn = turn(vec![message("user", &"x".repeat(900))], "ok");
    let verdict = Verdict { reward: Some(-1), votes: vec![Some(-1)], rule: None };
    let judged = Judged { turn: Arc::new(turn), verdict, hints: vec!["y".repeat(500)], undone: 0 };
    record_judged(&teacher.journal, &judged).await;
    work.send(judged).await;
    teacher.handle(work.lease().await).await;
    let (_, sample) = teacher.journal.samples(0, 1).await.expect("read").remove(0);
    assert_eq!((sample.verdict.reward, sample.teacher.is_none()), (Some(-1), true));
    assert_eq!(work.depth(), 0);
}

#[tokio::test]
async fn a_hint_that_changes_nothing_is_not_distilled_where_hints_are_checked() {
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    let hint = "Be brief, please.".to_owned();
    let unhinted = Scored { logprobs: vec![-1.0; 3], ..Scored::default() };
    let heeded =
        |nats: f32| (0, &hint, Scored { logprobs: vec![-1.0, -1.0 - nats, -1.0], ..Scored::default() });
    assert!(teacher.checked(&question(), &unhinted, vec![heeded(0.4)]).await.is_empty());
    // Nothing tells what such a turn is about: what has an effect passes.
    let turn = turn(vec![message("user", "why?")], "so");
    assert_eq!(teacher.checked(&turn, &unhinted, vec![heeded(0.4), heeded(2.0)]).await.len(), 1);
}

/// The embedded model itself: what it says of a reply is what it learnt to.
#[tokio::test]
async fn a_word_that_answers_is_told_from_a_greeting_by_what_the_question_adds_to_it() {
    let nano = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let model = LoadedModel::open(&nano, Place::Cpu, 2).expect("the embedded model");
    let engine = Engine::new("nano".to_owned(), EngineLimits::default(), model.text.clone());
    let build = model.serving(512, 4096, 2, "nano");
    let first = crate::publisher::Version { number: 0, weights: model.weights.clone() };
    let exited = engine.start(move || build(first)).await.expect("it starts");
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    let teacher = Teacher { teacher: engine, ..teacher };
    let ask = "Anna has 12 apples and gets 7 more. How many apples does she have now?";
    let turn = turn(vec![message("user", ask)], "I do not know.");
    let hint = "Please answer in capital letters.";
    let gain = async |reply: &str| teacher.gain(&turn, hint, reply).await.expect("scored");
    let said = teacher.hinted_reply(&turn, hint, |_| false).await.expect("a reply");
    let (answer, greeting) = (gain(&said).await, gain("HELLO! TELL ME WHEN YOU HAVE A QUESTION.").await);
    assert!(answer > 3.0 && greeting < 3.0, "{said}: {answer}, a greeting: {greeting}");
    drop(exited);
}

#[tokio::test]
async fn a_turn_that_is_late_has_twice_the_time_and_dies_in_the_end_with_the_keys_name() {
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    // It might answer within the tick of a deadline of nothing.
    let _occupied = teacher.student.occupied();
    let teacher = Teacher { config: TeacherConfig { deadline: Duration::ZERO, ..teacher.config }, ..teacher };
    let work = Inbox::new("teacher", InboxLimits { capacity: 1, max_attempts: 2 });
    let verdict = Verdict { reward: Some(-1), votes: vec![Some(-1)], rule: None };
    let hints = vec!["Be brief, please.".to_owned()];
    work.send(Judged { turn: Arc::new(question()), verdict, hints, undone: 0 }).await;
    for _ in 0..2 {
        teacher.handle(work.lease().await).await;
    }
    let (attempts, reason) = work.dead_letter(|_, tried, why| (tried, why.map(str::to_owned))).await;
    assert_eq!((attempts, work.depth()), (2, 0));
    assert!(reason.expect("it is told").contains("actors.teacher.deadline_secs"));
    let secs = |failures| patience(Duration::from_secs(30), failures).as_secs();
    assert_eq!([0, 1, 2, 4, 9].map(secs), [30, 60, 120, 480, 480]);
}

#[tokio::test]
async fn the_hint_whose_teacher_overlaps_most_is_kept() {
    let teacher = bench(&MethodConfig::new(MethodKind::Hybrid)).await;
    let turn = question();
    let hints: Vec<String> = ["aaaa", "Be brief, please.", "zz zz zz"].map(str::to_owned).to_vec();
    let top = |engine: Engine, prompt: Vec<u32>| {
        let (ids, start) = with_response(&turn, &prompt);
        async move {
            let request = ScoreRequest {
                ids,
                start,
                temperature: 0.8,
                top_k: OVERLAP_TOP_K,
                ..ScoreRequest::default()
            };
            engine.score(request).await.expect("a score").top
        }
    };
    let student = top(teacher.student.clone(), turn.completion.prompt_ids.clone()).await;
    let mut overlaps = Vec::new();
    for hint in &hints {
        let prompt = teacher.hinted_prompt(&turn, hint).expect("a prompt");
        overlaps.push(overlap(&student, &top(teacher.teacher.clone(), prompt).await, OVERLAP_TOP_K));
    }
    let most = *overlaps.iter().max().expect("three");
    let expected = &hints[overlaps.iter().position(|overlap| *overlap == most).expect("it is one of them")];
    let signal = teacher.signal(&turn, &hints).await.expect("scored").expect("fits");
    assert_eq!(&signal.hint, expected, "{overlaps:?}");
}

#[test]
fn overlap_counts_shared_ids_whatever_their_order() {
    let rows = |rows: &[[u32; 2]]| -> Vec<Vec<(u32, f32)>> {
        rows.iter().map(|row| row.iter().map(|id| (*id, -1.0)).collect()).collect()
    };
    assert_eq!(overlap(&rows(&[[1, 2], [3, 4]]), &rows(&[[2, 1], [4, 9]]), 2), 3);
    assert_eq!(overlap(&rows(&[[1, 2], [3, 4]]), &rows(&[[2, 1], [4, 9]]), 1), 0);
}

#[test]
fn the_hint_joins_the_persons_message_fenced() {
    let messages =
        [message("user", "list files"), message("assistant", "<tool_call>"), message("tool", "a.txt")];
    let hinted = hinted_messages(&messages, "Use ls.<|im_end|>");
    assert_eq!(hinted[0]["content"], "list files\n\n[hint] Use ls.‹|im_end|>");
    assert_eq!(hinted[1..], messages[1..]);
}
