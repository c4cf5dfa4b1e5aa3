//! Word problems of arithmetic, small enough for a model of a few million parameters, and whether a reply to one
//! is right.
use super::{Persona, stories};
use crate::dice::Dice;

/// A word problem as one persona asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    persona: Persona,
    problem: String,
    object: &'static str,
    equations: Vec<String>,
    answer: i64,
    given: Option<i64>,
}

impl Task {
    /// A random task of `persona`. The teacher's pupil is right in about 60 % of them.
    pub fn new(persona: Persona, dice: &mut Dice) -> Self {
        let (stories, steps) = numbers(dice);
        let object = dice.pick(&stories::OBJECTS);
        let problem = tell(stories, &steps, object, dice);
        let answer = steps[steps.len() - 1].result();
        let given = (persona == Persona::Teacher).then(|| {
            if dice.chance(0.6) {
                answer
            } else {
                let away = dice.pick(&[&1, &1, &2, &3, &4, &5, &10]);
                if answer > *away && dice.chance(0.5) { answer - away } else { answer + away }
            }
        });
        let equations = steps.iter().map(Equation::to_string).collect();
        Self { persona, problem, object, equations, answer, given }
    }

    /// Who asks.
    pub fn persona(&self) -> Persona {
        self.persona
    }

    /// The problem alone, without the persona's frame.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What is counted.
    pub fn object(&self) -> &str {
        self.object
    }

    /// The working: one or two equations.
    pub fn equations(&self) -> &[String] {
        &self.equations
    }

    /// The result.
    pub fn answer(&self) -> i64 {
        self.answer
    }

    /// The pupil's answer, if it is to be graded.
    pub fn given(&self) -> Option<i64> {
        self.given
    }

    /// `correct` or `wrong`, for a pupil's answer.
    pub fn verdict(&self) -> &'static str {
        if self.given == Some(self.answer) { "correct" } else { "wrong" }
    }

    /// The message that asks for it, in one of many wordings.
    pub fn first_message(&self, dice: &mut Dice) -> String {
        let frame = dice.pick(match self.persona {
            Persona::Student => stories::STUDENT,
            Persona::Ta => stories::TA,
            Persona::Teacher => stories::TEACHER,
        });
        let given = self.given.map(|given| given.to_string()).unwrap_or_default();
        frame.replace("{}", &self.problem).replace("{g}", &given)
    }

    /// Whether `reply` is right: for a problem its last number is the result, for a pupil's answer its verdicts
    /// agree with each other and with the truth.
    pub fn is_correct(&self, reply: &str) -> bool {
        match self.given {
            None => last_number(reply) == Some(self.answer),
            Some(given) => verdict_of(reply) == Some(given == self.answer),
        }
    }
}

/// `a op b`.
#[derive(Clone, Copy)]
struct Equation {
    left: i64,
    sign: char,
    right: i64,
}

impl Equation {
    fn new(left: i64, sign: char, right: i64) -> Self {
        Self { left, sign, right }
    }

    fn result(&self) -> i64 {
        match self.sign {
            '+' => self.left + self.right,
            '-' => self.left - self.right,
            _ => self.left * self.right,
        }
    }
}

impl std::fmt::Display for Equation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} = {}", self.left, self.sign, self.right, self.result())
    }
}

fn numbers(dice: &mut Dice) -> (&'static stories::Stories, Vec<Equation>) {
    let two_steps = |first: Equation, sign, right| vec![first, Equation::new(first.result(), sign, right)];
    match dice.weighted(&[(0, 0.25), (1, 0.2), (2, 0.2), (3, 0.15), (4, 0.12), (5, 0.08)]) {
        0 => (&stories::ADD, vec![Equation::new(dice.between(2, 20), '+', dice.between(2, 20))]),
        1 => {
            let left = dice.between(4, 40);
            (&stories::SUBTRACT, vec![Equation::new(left, '-', dice.between(2, (left - 1).min(20)))])
        }
        2 => (&stories::MULTIPLY, vec![Equation::new(dice.between(2, 9), '*', dice.between(2, 9))]),
        3 => {
            let sum = Equation::new(dice.between(2, 20), '+', dice.between(2, 12));
            (&stories::ADD_SUBTRACT, two_steps(sum, '-', dice.between(2, (sum.result() - 1).min(15))))
        }
        4 => {
            let product = Equation::new(dice.between(2, 6), '*', dice.between(2, 9));
            let most = (product.result() - 1).min(15);
            (&stories::MULTIPLY_SUBTRACT, two_steps(product, '-', dice.between(2, most)))
        }
        _ => {
            let product = Equation::new(dice.between(2, 6), '*', dice.between(2, 6));
            (&stories::MULTIPLY_ADD, two_steps(product, '+', dice.between(2, 10)))
        }
    }
}

fn tell(stories: &stories::Stories, steps: &[Equation], object: &str, dice: &mut Dice) -> String {
    let name = dice.pick(&stories::NAMES);
    let friend = loop {
        let friend = dice.pick(&stories::NAMES);
        if friend != name {
            break friend;
        }
    };
    let mut text = format!("{} {}", dice.pick(stories.stories), dice.pick(stories.questions))
        .replace("{n}", name)
        .replace("{m}", friend)
        .replace("{o}", object)
        .replace("{a}", &steps[0].left.to_string())
        .replace("{b}", &steps[0].right.to_string());
    if let Some(second) = steps.get(1) {
        text = text.replace("{c}", &second.right.to_string());
    }
    text
}

fn last_number(reply: &str) -> Option<i64> {
    let digits = |c: char| c.is_ascii_digit();
    let end = reply.rfind(digits)? + 1;
    let start = reply[..end]
        .rfind(|c: char| !digits(c))
        .map_or(0, |at| at + reply[at..].chars().next().expect("rfind found a character here").len_utf8());
    reply[start..end].parse().ok()
}

/// True for `correct` and `right`, false for `wrong`, `incorrect` and `not correct`; nothing if the reply gives
/// no verdict or contradicts itself.
pub fn verdict_of(reply: &str) -> Option<bool> {
    let reply = reply.to_lowercase().replace("n't", " not");
    let words: Vec<&str> =
        reply.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        let says = match *word {
            "correct" | "right" => true,
            "wrong" | "incorrect" => false,
            _ => continue,
        };
        let negated = words[at.saturating_sub(2)..at].contains(&"not");
        if found.is_some_and(|before| before != (says != negated)) {
            return None;
        }
        found = Some(says != negated);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persona::{Style, reply};

    #[test]
    fn every_rendered_reply_is_correct_and_a_wrong_number_is_not() {
        let mut dice = Dice::new(1);
        for round in 0..3000 {
            let task = Task::new(Persona::ALL[round % 3], &mut dice);
            for style in Style::ALL {
                let text = reply(&task, style, &mut dice);
                assert!(task.is_correct(&text), "{task:?}\n{text}");
                let other = match task.given() {
                    None => text.replace(&task.answer().to_string(), &(task.answer() + 1).to_string()),
                    Some(_) if task.verdict() == "correct" => text.replace("correct", "wrong"),
                    Some(_) => text.replace("wrong", "correct"),
                };
                assert!(!task.is_correct(&other), "{task:?}\n{other}");
            }
        }
    }

    #[test]
    fn every_style_keeps_and_breaks_the_rules_it_should() {
        let mut dice = Dice::new(2);
        for round in 0..3000 {
            let task = Task::new(Persona::ALL[round % 3], &mut dice);
            for style in Style::ALL {
                let text = reply(&task, style, &mut dice);
                // The embedded tokenizer makes at least one token of every 4.5 characters of this text.
                let student = Persona::Student.satisfied(&text, 0);
                assert_eq!(student, !matches!(style, Style::Machine | Style::Short), "{style:?}: {text}");
                assert_eq!(Persona::Teacher.satisfied(&text, 0), style == Style::Warm, "{style:?}: {text}");
                let chars = text.chars().count();
                assert!((chars >= 270) == (style == Style::Long), "{chars} {style:?}: {text}");
            }
        }
    }

    #[test]
    fn problems_stay_small_and_pupils_are_mostly_right() {
        let mut dice = Dice::new(3);
        let mut right = 0;
        for _ in 0..5000 {
            let task = Task::new(Persona::Teacher, &mut dice);
            assert!((1..=81).contains(&task.answer()), "{task:?}");
            assert!(!task.problem().contains('{'), "{task:?}");
            assert!(!task.first_message(&mut dice).contains('{'));
            right += usize::from(task.given() == Some(task.answer()));
        }
        assert!((2850..3150).contains(&right), "{right}");
    }

    #[test]
    fn verdicts_are_read_with_their_negations() {
        assert_eq!(verdict_of("That is not correct."), Some(false));
        assert_eq!(verdict_of("It isn't right"), Some(false));
        assert_eq!(verdict_of("Incorrect!"), Some(false));
        assert_eq!(verdict_of("not wrong"), Some(true));
        assert_eq!(verdict_of("correct, so wrong"), None);
        assert_eq!(verdict_of("I write brightly"), None);
        assert_eq!(last_number("so 12 apples, 7"), Some(7));
        assert_eq!(last_number("é34"), Some(34));
        assert_eq!(last_number("none"), None);
    }
}
