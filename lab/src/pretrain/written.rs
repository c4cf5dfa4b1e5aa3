//! What people wrote for the judge to read, one by one and by no grammar: reactions to an answer, and exchanges that they
//! may follow. Two authors: what the one wrote is trained on, what the other wrote measures and is never generated from.
use openclaw_actors::prompts::hint_answer;
use openclaw_environments::{
    dice::Dice,
    persona::{Persona, Split, Style, Task, reply},
};
use std::{collections::HashSet, sync::LazyLock};

/// What an exchange is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum World {
    Sums,
    Facts,
    Programs,
    Messages,
}

impl World {
    pub(super) const ALL: [Self; 4] = [Self::Sums, Self::Facts, Self::Programs, Self::Messages];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sums => "sums",
            Self::Facts => "facts",
            Self::Programs => "programs",
            Self::Messages => "messages",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|world| world.name() == name)
    }
}

/// What somebody said about an answer.
#[derive(Debug)]
pub(super) struct Reaction {
    pub(super) verdict: i8,
    /// The one world that it fits, or any.
    pub(super) world: Option<World>,
    text: &'static str,
    /// What it asks for, in the words of a hint.
    wish: Option<&'static str>,
}

/// A question and its answer.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) question: String,
    pub(super) answer: String,
    right: String,
    given: String,
    topic: String,
}

/// What one author wrote.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) reactions: Vec<Reaction>,
    exchanges: Vec<(World, [&'static str; 4])>,
    split: Split,
}

static TRAIN: LazyLock<Author> = LazyLock::new(|| {
    Author::read(Split::Train, include_str!("texts/reactions.tsv"), include_str!("texts/exchanges.tsv"))
});

static HELD_OUT: LazyLock<Author> = LazyLock::new(|| {
    let mut author = Author::read(
        Split::HeldOut,
        include_str!("held_out/reactions.tsv"),
        include_str!("held_out/exchanges.tsv"),
    );
    // Both say "Thanks." once: that one measures nothing.
    let known: HashSet<String> = TRAIN.reactions.iter().map(|reaction| bare(reaction.text)).collect();
    author.reactions.retain(|reaction| !known.contains(&bare(reaction.text)));
    author
});

fn bare(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c.is_whitespace() || !c.is_ascii();
    text.to_lowercase().chars().filter(|&c| plain(c)).collect::<String>().trim().to_owned()
}

impl Author {
    pub(super) fn of(split: Split) -> &'static Self {
        match split {
            Split::Train => &TRAIN,
            Split::HeldOut => &HELD_OUT,
        }
    }

    fn read(split: Split, reactions: &'static str, exchanges: &'static str) -> Self {
        let reaction = |line: &'static str| {
            let mut columns = line.split('\t');
            let verdict = columns.next()?.parse().ok()?;
            let world = World::of(columns.nth(1)?);
            let text = columns.next()?;
            let wish = columns.next().filter(|wish| !wish.is_empty());
            Some(Reaction { verdict, world, text, wish })
        };
        let exchange = |line: &'static str| {
            let mut columns = line.split('\t');
            let world = World::of(columns.next()?)?;
            Some((world, [columns.next()?, columns.next()?, columns.next()?, columns.next().unwrap_or("")]))
        };
        let rows = |text: &'static str| text.lines().filter(|line| !line.is_empty());
        let expect = "the files have their columns";
        Self {
            reactions: rows(reactions).map(|line| reaction(line).expect(expect)).collect(),
            exchanges: rows(exchanges).map(|line| exchange(line).expect(expect)).collect(),
            split,
        }
    }

    /// Something to react to.
    pub(super) fn exchange(&self, world: World, dice: &mut Dice) -> Exchange {
        let rows: Vec<&[&str; 4]> =
            self.exchanges.iter().filter(|(of, _)| *of == world).map(|(_, row)| row).collect();
        if world == World::Sums && (rows.is_empty() || self.split == Split::Train) {
            return sum(dice);
        }
        let lines = |text: &str| text.replace("\\n", "\n");
        let [question, answer, right, topic] = rows[dice.index(rows.len())];
        let is_right = right.is_empty() || answer.to_lowercase().contains(&right.to_lowercase());
        // Where the answer is right, whoever corrects it says something else.
        let other = rows[dice.index(rows.len())][2];
        let (right, given) = match (is_right, world) {
            (true, World::Sums) => (shifted(right, dice), (*right).to_owned()),
            (true, _) => (if other.is_empty() { *right } else { other }.to_owned(), (*right).to_owned()),
            (false, _) => ((*right).to_owned(), (*topic).to_owned()),
        };
        Exchange {
            question: lines(question),
            answer: lines(answer),
            right,
            given,
            topic: (*topic).to_owned(),
        }
    }

    /// A question of knowledge, its answer, and what in it is right.
    pub(super) fn fact(&self, dice: &mut Dice) -> [&'static str; 3] {
        loop {
            let (world, [question, answer, right, _]) = self.exchanges[dice.index(self.exchanges.len())];
            if world == World::Facts {
                return [question, answer, right];
            }
        }
    }

    /// A reaction of a verdict that fits a world.
    pub(super) fn reaction(&self, verdict: i8, world: World, dice: &mut Dice) -> &Reaction {
        loop {
            let reaction = &self.reactions[dice.index(self.reactions.len())];
            if reaction.verdict == verdict && reaction.world.is_none_or(|of| of == world) {
                return reaction;
            }
        }
    }
}

fn shifted(number: &str, dice: &mut Dice) -> String {
    let away = dice.between(1, 9);
    number.trim().parse::<i64>().map_or_else(|_| away.to_string(), |number| (number + away).to_string())
}

fn sum(dice: &mut Dice) -> Exchange {
    let persona = if dice.chance(0.5) { Persona::Student } else { Persona::Ta };
    let task = Task::new(persona, dice);
    let style = Style::ALL[dice.index(Style::ALL.len())];
    let question = if dice.chance(0.5) { task.problem().to_owned() } else { task.first_message(dice) };
    let given = task.answer().to_string();
    Exchange {
        question,
        answer: reply(&task, style, dice),
        right: shifted(&given, dice),
        given,
        topic: task.object().to_owned(),
    }
}

impl Exchange {
    fn filled(&self, text: &str) -> String {
        text.replace("{right}", &self.right).replace("{given}", &self.given).replace("{topic}", &self.topic)
    }
}

impl Reaction {
    /// What is said about this exchange.
    pub(super) fn said(&self, of: &Exchange) -> String {
        of.filled(self.text)
    }

    /// What is wished for it.
    pub(super) fn wish(&self, of: &Exchange) -> Option<String> {
        self.wish.map(|wish| of.filled(wish))
    }

    /// What the hint writer is to say.
    pub(super) fn hint_answer(&self, of: &Exchange) -> String {
        hint_answer(self.wish(of).as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_authors_wrote_enough_of_every_kind_and_share_nothing() {
        for (split, least) in [(Split::Train, 600), (Split::HeldOut, 200)] {
            let author = Author::of(split);
            for verdict in [-1, 0, 1] {
                let count = author.reactions.iter().filter(|reaction| reaction.verdict == verdict).count();
                assert!(count >= least, "{split:?} {verdict}: {count}");
            }
            for world in World::ALL {
                let mut dice = Dice::new(1);
                for _ in 0..200 {
                    let exchange = author.exchange(world, &mut dice);
                    for verdict in [-1, 0, 1] {
                        let said = author.reaction(verdict, world, &mut dice).said(&exchange);
                        assert!(!said.contains(['{', '}']) || world == World::Programs, "{said}");
                    }
                }
            }
        }
        let known: HashSet<String> = TRAIN.reactions.iter().map(|reaction| bare(reaction.text)).collect();
        assert!(HELD_OUT.reactions.iter().all(|reaction| !known.contains(&bare(reaction.text))));
        assert_eq!(bare("That is WRONG!"), "that is wrong");
    }
}
