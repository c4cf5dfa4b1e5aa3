//! Cases of what the embedded model can do beside judging and the personas: rules of style in another author's words, things
//! that it never read of, numbers, tools, and steps of agents.
use super::content::Content;
use super::evaluation::{Check, EvaluationCase, Kept, Maker, question};
use super::rules::{self, Wanted};
use super::{hints, step_judge, things, tools, wishes};
use openclaw_environments::persona::{Split, Style};
use serde_json::Value;

/// In no document.
const NOUNS: [&str; 12] = [
    "llamas",
    "harps",
    "parasols",
    "pumpkins",
    "scooters",
    "turtles",
    "napkins",
    "thimbles",
    "cactuses",
    "kettles",
    "postcards",
    "walnuts",
];

/// `count` cases of every class.
pub(super) fn cases(make: &mut Maker<'_>, count: usize, into: &mut Vec<EvaluationCase>) {
    let styled = wishes::rules(Split::HeldOut).into_iter().filter_map(rules::named);
    for rule in styled {
        for nth in 0..count {
            into.push(kept(make, rule, nth % 2 == 0));
        }
    }
    let known: Vec<&str> = tools::all(Split::Train).iter().map(|tool| tool.name).collect();
    for nth in 0..count {
        into.push(noun(make));
        into.push(compared(make));
        let of = |is_known: bool| {
            let fits = |tool: &&tools::Tool| known.contains(&tool.name) == is_known;
            tools::all(Split::HeldOut).iter().filter(fits).collect::<Vec<_>>()
        };
        for (group, tools) in [("tool", of(true)), ("unseen_tool", of(false))] {
            into.push(called(make, group, tools[nth % tools.len()]));
        }
        if !make.with_system {
            into.extend(["+1", "-1"].map(|class| step(make, class)));
        }
    }
}

/// A wish of the other author, as the hint of a teacher or as what is said of the usual reply.
fn kept(make: &mut Maker<'_>, rule: &'static rules::Rule, as_hint: bool) -> EvaluationCase {
    let wish = wishes::any(Split::HeldOut, Some(rule.name), make.dice);
    let wanted = Wanted { rule, named: wish.named };
    // What keeps the rule anyway shows nothing; of some rules nearly everything does.
    let mut shown = (Content::new(Split::HeldOut, make.dice), String::new());
    for _ in 0..40 {
        let content = Content::new(Split::HeldOut, make.dice);
        let (usual, plain) = (content.usual(make.dice), content.plain(make.dice));
        let (by_usual, by_plain) = (wanted.is_kept(&content, &usual), wanted.is_kept(&content, &plain));
        shown = (content, usual);
        if !by_usual && (rule.name == "plain" || !by_plain) {
            break;
        }
    }
    let (content, usual) = shown;
    let mut talk = make.talk();
    if as_hint {
        talk.user_with_hint(&content.message, &wish.text, make.dice);
    } else {
        talk.user(&content.message, make.dice);
        talk.assistant(&usual);
        talk.user(&wish.text, make.dice);
    }
    let group = if rule.trained { "rule" } else { "unseen_rule" };
    make.case(group, rule.name.to_owned(), talk.finish().messages, Check::Keeps(Kept { wanted, content }))
}

/// A reply in a style that names what is counted.
fn noun(make: &mut Maker<'_>) -> EvaluationCase {
    let content = Content::sum(make.dice);
    let noun = make.dice.pick(&NOUNS);
    let message = things::in_place(&content.message, content.task().map_or("", |task| task.object()), noun);
    let list = hints::list(hints::HintKind::Style(Style::Long), Split::Train);
    let hint = &list[make.dice.index(list.len())];
    let mut talk = make.talk();
    talk.user_with_hint(&message, hint, make.dice);
    make.case("noun", "sums".to_owned(), talk.finish().messages, Check::Names(noun.to_owned()))
}

fn compared(make: &mut Maker<'_>) -> EvaluationCase {
    let (one, other) = super::drills::pair(make.dice);
    let said = make.dice.pick(&[
        "The key says {a}. The pupil says {b}. Correct or wrong?",
        "Tell me whether {b} is right when the solution is {a}.",
        "Grade this: pupil {b}, solution {a}.",
        "Solution {a}, handed in {b}. Your verdict?",
    ]);
    let said = said.replace("{a}", &one.to_string()).replace("{b}", &other.to_string());
    let mut talk = make.talk();
    talk.user(&said, make.dice);
    make.case("compare", "numbers".to_owned(), talk.finish().messages, Check::Grades(one == other))
}

fn called(make: &mut Maker<'_>, group: &'static str, tool: &tools::Tool) -> EvaluationCase {
    let asked = tools::Exchange::of(tool, false, make.dice);
    let mut talk = make.talk();
    talk.user(&asked.request, make.dice);
    let name = asked.name().to_owned();
    let check = Check::Calls(name, Value::Object(asked.arguments.clone()));
    let tools = asked.offered(2, make.dice);
    EvaluationCase { tools, ..make.case(group, "calls".to_owned(), talk.finish().messages, check) }
}

fn step(make: &mut Maker<'_>, class: &str) -> EvaluationCase {
    loop {
        let (prompt, verdict) = step_judge::case(Split::HeldOut, make.dice);
        if (verdict == 1) == (class == "+1") {
            return make.case("step_judge", class.to_owned(), question(prompt), Check::Verdict(verdict));
        }
    }
}

/// Whether a reply names this thing, and none of the usual ones.
pub(super) fn names(answer: &str, noun: &str) -> bool {
    let answer = answer.to_lowercase();
    let words: Vec<&str> = answer.split(|c: char| !c.is_alphanumeric()).collect();
    words.contains(&noun) && !things::KNOWN.iter().any(|known| words.contains(known))
}

/// The first call in an answer.
pub(super) fn call_in(answer: &str) -> Option<Value> {
    let (_, rest) = answer.split_once("<tool_call>")?;
    let (call, _) = rest.split_once("</tool_call>")?;
    serde_json::from_str(call.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_environments::persona::verdict_of;

    #[test]
    fn answers_are_read_as_they_are_meant() {
        assert!(names("So there are 4 llamas.", "llamas") && !names("4 apples, no llamas", "llamas"));
        assert_eq!((verdict_of("This is wrong."), verdict_of("not correct")), (Some(false), Some(false)));
        let call = call_in("<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}}\n</tool_call>")
            .expect("a call");
        assert_eq!((&call["name"], &call["arguments"]["x"]), (&"a".into(), &1.into()));
        assert_eq!(call_in("<tool_call>{"), None);
    }
}
