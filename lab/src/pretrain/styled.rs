//! Replies by rules of style that somebody voices: before the question, in a hint, or after a reply that broke them.
use super::content::Content;
use super::conversations::Talk;
use super::rules::{self, Wanted};
use super::text::{Document, DocumentKind};
use super::wishes::{self, Mood, Wish};
use openclaw_environments::{
    dice::Dice,
    persona::{Split, scribble},
};

/// Some rules that go together, mostly one, each with a wish for it.
struct Order {
    wanted: Vec<Wanted>,
    wishes: Vec<Wish>,
}

impl Order {
    fn new(moods: &[Mood], dice: &mut Dice) -> Self {
        let count = dice.weighted(&[(1, 0.72), (2, 0.24), (3, 0.04)]);
        let mut order = Self { wanted: Vec::new(), wishes: Vec::new() };
        let known: Vec<_> = rules::all(true).collect();
        while order.wanted.len() < count {
            let rule = known[dice.index(known.len())];
            if order.wanted.iter().any(|wanted| wanted.rule.place == rule.place) {
                continue;
            }
            let wish = wishes::in_mood(rule.name, moods, dice);
            order.wanted.push(Wanted { rule, named: wish.named.clone() });
            order.wishes.push(wish);
        }
        order
    }

    /// A reply that keeps every rule; none where they do not go together for this content.
    fn reply(&self, content: &Content, dice: &mut Dice) -> Option<String> {
        let said = rules::reply(content, &self.wanted, dice);
        let is_kept = self.wanted.iter().all(|wanted| wanted.is_kept(content, &said));
        (is_kept && content.is_in(&said)).then_some(said)
    }

    /// What was wished for stays: so often there is another question.
    fn goes_on(&self, share: f64, talk: &mut Talk, dice: &mut Dice) {
        if !dice.chance(share) {
            return;
        }
        let next = Content::new(Split::Train, dice);
        if let Some(said) = self.reply(&next, dice) {
            talk.user(&next.message, dice);
            talk.assistant(&said);
        }
    }

    /// What is said for it, as one message.
    fn said(&self, dice: &mut Dice) -> String {
        let said: Vec<&str> = self.wishes.iter().map(|wish| wish.text.as_str()).collect();
        let said = said.join(if dice.chance(0.7) { " " } else { " And: " });
        // A slip of the pen must not change what is named.
        let names = self.wishes.iter().any(|wish| said.contains(&wish.named));
        if !names && dice.chance(0.25) { scribble(&said, dice) } else { said }
    }

    /// As the teacher is told, in a hint's words or in a person's.
    fn hint(&self, dice: &mut Dice) -> String {
        let hints = self.wishes.iter().map(|wish| match &wish.hint {
            Some(hint) if dice.chance(0.75) => hint.clone(),
            _ => wish.text.clone(),
        });
        hints.collect::<Vec<_>>().join(" ")
    }
}

/// A document of one of these kinds.
pub(super) fn document(dice: &mut Dice) -> Document {
    loop {
        let written = match dice.weighted(&[(0, 0.42), (1, 0.36), (2, 0.22)]) {
            0 => hinted(dice),
            1 => redone(dice),
            _ => standing(dice),
        };
        if let Some(document) = written {
            return document;
        }
    }
}

fn hinted(dice: &mut Dice) -> Option<Document> {
    let order = Order::new(&Mood::ALL, dice);
    let content = Content::new(Split::Train, dice);
    let said = order.reply(&content, dice)?;
    let mut talk = Talk::new(DocumentKind::Styled, dice);
    let hint = order.hint(dice);
    talk.user_with_hint(&content.message, &hint, dice);
    talk.assistant(&said);
    Some(talk.finish())
}

fn redone(dice: &mut Dice) -> Option<Document> {
    let order = Order::new(&[Mood::Complaint, Mood::Request], dice);
    let content = Content::new(Split::Train, dice);
    let said = order.reply(&content, dice)?;
    let mut talk = Talk::new(DocumentKind::Styled, dice);
    talk.user(&content.message, dice);
    let usual = content.usual(dice);
    // Nobody complains of what is as they wish.
    if order.wanted.iter().all(|wanted| wanted.is_kept(&content, &usual)) {
        return None;
    }
    talk.assistant_failing(&usual);
    let wish = order.said(dice);
    if dice.chance(0.3) {
        let hint = order.hint(dice);
        talk.user_with_hint(&wish, &hint, dice);
    } else {
        talk.user(&wish, dice);
    }
    talk.assistant(&said);
    order.goes_on(0.3, &mut talk, dice);
    Some(talk.finish())
}

fn standing(dice: &mut Dice) -> Option<Document> {
    let order = Order::new(&[Mood::Standing], dice);
    let content = Content::new(Split::Train, dice);
    let said = order.reply(&content, dice)?;
    let wish = order.said(dice);
    let mut talk = match dice.index(3) {
        0 => {
            let mut talk = Talk::bare(DocumentKind::Styled);
            talk.system(&wish);
            talk.user(&content.message, dice);
            talk
        }
        at => {
            let mut talk = Talk::new(DocumentKind::Styled, dice);
            let message = &content.message;
            talk.user(&if at == 1 { format!("{wish} {message}") } else { format!("{message} {wish}") }, dice);
            talk
        }
    };
    talk.assistant(&said);
    order.goes_on(0.4, &mut talk, dice);
    Some(talk.finish())
}
