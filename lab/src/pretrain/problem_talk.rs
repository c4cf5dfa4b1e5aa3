//! Conversations about word problems: the default style, hints, complaints and what follows them.
use super::chat;
use super::conversations::Talk;
use super::hints::{self, HintKind};
use super::text::{Document, DocumentKind};
use openclaw_environments::dice::Dice;
use openclaw_environments::persona::{Intent, Persona, Split, Style, Task, Wordings, reply, scribble};

/// Share of a persona's own style among first replies. Reinforcement needs something to reinforce, and three such
/// replies in a row must stay rare by chance.
const OWN_STYLE: f64 = 0.11;
const OTHER_STYLE: f64 = 0.03;
const SHORT_STYLE: f64 = 0.006;

/// A question: mostly a persona's, sometimes the problem alone.
pub(super) struct Question {
    pub(super) task: Task,
    pub(super) message: String,
}

pub(super) fn question(dice: &mut Dice) -> Question {
    let persona = Persona::ALL[dice.index(3)];
    let task = Task::new(persona, dice);
    let message = if persona != Persona::Teacher && dice.chance(0.06) {
        task.problem().to_owned()
    } else {
        task.first_message(dice)
    };
    Question { task, message }
}

/// The style of a first reply when nobody asked for one.
pub(super) fn default_style(persona: Persona, dice: &mut Dice) -> Style {
    let shares = Style::ALL.map(|style| {
        let share = match style {
            Style::Machine => 1.0 - OWN_STYLE - 2.0 * OTHER_STYLE - SHORT_STYLE,
            Style::Short => SHORT_STYLE,
            style if style == persona.wanted_style() => OWN_STYLE,
            _ => OTHER_STYLE,
        };
        (style, share)
    });
    dice.weighted(&shares)
}

/// A first reply when nobody asked for a style.
pub(super) fn default_reply(task: &Task, dice: &mut Dice) -> String {
    let style = default_style(task.persona(), dice);
    reply(task, style, dice)
}

/// The style that somebody asks for: the persona's own half of the time.
pub(super) fn requested_style(persona: Persona, dice: &mut Dice) -> Style {
    if dice.chance(0.5) {
        return persona.wanted_style();
    }
    dice.weighted(&[
        (Style::Plain, 0.29),
        (Style::Long, 0.27),
        (Style::Warm, 0.27),
        (Style::Short, 0.06),
        (Style::Machine, 0.11),
    ])
}

/// A complaint and the style in which its redo is written.
pub(super) struct Complaint {
    pub(super) intent: Intent,
    pub(super) text: String,
    pub(super) redo: Style,
}

/// A complaint about a reply in style `before`.
pub(super) fn complaint(persona: Persona, before: Style, dice: &mut Dice) -> Complaint {
    let intent = match dice.weighted(&[(0, 0.86), (1, 0.08), (2, 0.06)]) {
        0 => loop {
            let style = requested_style(persona, dice);
            if style != before {
                break Intent::Complaint(style);
            }
        },
        1 => Intent::GenericComplaint,
        _ => Intent::WrongResult,
    };
    let redo = match intent {
        Intent::Complaint(style) => style,
        Intent::GenericComplaint if before != persona.wanted_style() => persona.wanted_style(),
        Intent::GenericComplaint => Style::Plain,
        _ => before,
    };
    let text = Wordings::get().say(intent, Split::Train, dice);
    Complaint { intent, text: scribble(&text, dice), redo }
}

pub(super) fn thanks(dice: &mut Dice) -> String {
    let text = Wordings::get().say(Intent::Thanks, Split::Train, dice);
    scribble(&text, dice)
}

pub(super) fn first_reply(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::FirstReply, dice);
    let Question { task, message } = question(dice);
    talk.user(&message, dice);
    talk.assistant(&default_reply(&task, dice));
    talk.finish()
}

pub(super) fn hinted_reply(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::HintedReply, dice);
    let Question { task, message } = question(dice);
    let (kind, style) = if dice.chance(0.04) {
        (HintKind::Result, default_style(task.persona(), dice))
    } else {
        let style = requested_style(task.persona(), dice);
        (HintKind::Style(style), style)
    };
    talk.user_with_hint(&message, &hints::any(kind, dice), dice);
    talk.assistant(&reply(&task, style, dice));
    talk.finish()
}

pub(super) fn redo(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::Redo, dice);
    let Question { task, message } = question(dice);
    talk.user(&message, dice);
    let style = default_style(task.persona(), dice);
    talk.assistant(&reply(&task, style, dice));
    complain_and_redo(&mut talk, &task, style, dice);
    if dice.chance(0.3) {
        talk.user(&thanks(dice), dice);
        talk.assistant(&chat::welcome(dice));
    }
    talk.finish()
}

/// Returns the style of the redo.
fn complain_and_redo(talk: &mut Talk, task: &Task, before: Style, dice: &mut Dice) -> Style {
    let complaint = complaint(task.persona(), before, dice);
    let repeated = matches!(complaint.intent, Intent::Complaint(_)) && dice.chance(0.1);
    if repeated {
        // A redo that does not heed the complaint, which then comes again in other words.
        talk.user(&complaint.text, dice);
        talk.assistant_failing(&reply(task, before, dice));
    }
    let text =
        if repeated { Wordings::get().say(complaint.intent, Split::Train, dice) } else { complaint.text };
    match complaint.intent {
        Intent::Complaint(style) if dice.chance(0.3) => {
            talk.user_with_hint(&text, &hints::any(HintKind::Style(style), dice), dice);
        }
        _ => talk.user(&text, dice),
    }
    talk.assistant(&reply(task, complaint.redo, dice));
    complaint.redo
}

/// Two or three problems. A style that was asked for stays; without a complaint the first one stays.
pub(super) fn session(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::Session, dice);
    let first = question(dice);
    let persona = first.task.persona();
    let mut style = default_style(persona, dice);
    talk.user(&first.message, dice);
    talk.assistant(&reply(&first.task, style, dice));
    if dice.chance(0.5) {
        style = complain_and_redo(&mut talk, &first.task, style, dice);
    }
    let problems = if dice.chance(0.75) { 1 } else { 2 };
    for _ in 0..problems {
        let mut opening = String::new();
        if dice.chance(0.35) {
            let alone = dice.chance(0.5);
            let text = thanks(dice);
            if alone {
                talk.user(&text, dice);
                talk.assistant(&chat::welcome(dice));
            } else {
                // Without a stop it would run into what follows, and be another saying.
                let stop = if text.ends_with(char::is_alphanumeric) { "." } else { "" };
                opening = format!("{text}{stop} ");
            }
        }
        if dice.chance(0.3) {
            let (said, answer) = if dice.chance(0.3) { chat::request(dice) } else { chat::neutral(dice) };
            talk.user(&said, dice);
            talk.assistant(&answer);
        }
        let task = Task::new(persona, dice);
        let message = next_question(&task, &opening, dice);
        if dice.chance(0.15) {
            let style = requested_style(persona, dice);
            talk.user_with_hint(&message, &hints::any(HintKind::Style(style), dice), dice);
            talk.assistant(&reply(&task, style, dice));
            break;
        }
        talk.user(&message, dice);
        talk.assistant(&reply(&task, style, dice));
    }
    talk.finish()
}

/// A question that follows another.
pub(super) fn next_question(task: &Task, opening: &str, dice: &mut Dice) -> String {
    let question = if task.given().is_none() && dice.chance(0.3) {
        task.problem().to_owned()
    } else {
        task.first_message(dice)
    };
    if dice.chance(0.6) {
        let lead = Wordings::get().say(Intent::NextQuestion, Split::Train, dice);
        format!("{opening}{lead} {question}")
    } else {
        format!("{opening}{question}")
    }
}
