//! What the judge of steps learns: whether a call of a tool was worth something, by what came back.
use super::acting::{Episode, Step};
use super::text::{Document, DocumentKind};
use super::tools;
use openclaw_environments::{dice::Dice, persona::Split};
use serde_json::json;

/// A step that is judged, and the verdict.
pub(super) fn case(split: Split, dice: &mut Dice) -> (String, i8) {
    match dice.weighted(&[(0, 0.5), (1, 0.2), (2, 0.3)]) {
        0 => of_an_episode(split, dice),
        1 => repeated(split, dice),
        _ => of_a_tool(split, dice),
    }
}

pub(super) fn document(dice: &mut Dice) -> Document {
    let (prompt, verdict) = case(Split::Train, dice);
    Document::question(DocumentKind::StepJudge, prompt, format!("\\boxed{{{verdict}}}"))
}

/// What the hint writer learns to say of a step that failed.
pub(super) fn hint(dice: &mut Dice) -> Document {
    loop {
        if let Some((prompt, answer)) = Episode::new(Split::Train, true, dice).taught() {
            return Document::question(DocumentKind::HintWriter, prompt, answer);
        }
    }
}

fn of_an_episode(split: Split, dice: &mut Dice) -> (String, i8) {
    let wrong = dice.chance(0.5);
    loop {
        let episode = Episode::new(split, wrong, dice);
        let at = dice.index(episode.steps.len());
        if episode.steps[at].is_wrong == wrong {
            return (episode.judged(at), if wrong { -1 } else { 1 });
        }
    }
}

/// The same call once more, which brings nothing new.
fn repeated(split: Split, dice: &mut Dice) -> (String, i8) {
    let mut episode = Episode::new(split, false, dice);
    let at = dice.index(episode.steps.len());
    if dice.chance(0.5) {
        return (episode.judged(at), 1);
    }
    let again = episode.steps[at].clone();
    episode.steps.insert(at + 1, again);
    (episode.judged(at + 1), -1)
}

/// A tool of a person: what it returns is an answer, an error, nothing, or not what was asked.
fn of_a_tool(split: Split, dice: &mut Dice) -> (String, i8) {
    let asked = tools::Exchange::any(split, dice);
    let call = |asked: &tools::Exchange, result: &str| Step {
        tool: asked.name().to_owned(),
        arguments: asked.arguments.clone(),
        result: result.to_owned(),
        is_wrong: false,
        lesson: None,
    };
    let (step, verdict) = match dice.index(6) {
        0 => (call(&asked, dice.pick(&["", "[]", "{}", "null", "no results", "0 results", "None"])), -1),
        1 => {
            let other = tools::Exchange::any(split, dice);
            let is_asked = other.tool == asked.tool && other.arguments == asked.arguments;
            (call(&other, &other.result), if is_asked && !other.failed { 1 } else { -1 })
        }
        _ => (call(&asked, &asked.result), if asked.failed { -1 } else { 1 }),
    };
    let opening = vec![json!({"role": "user", "content": asked.request})];
    let episode = Episode { opening, tools: Vec::new(), steps: vec![step], ending: String::new() };
    (episode.judged(0), verdict)
}
