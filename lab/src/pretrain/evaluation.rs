//! Questions that show what the embedded model has learnt, in wordings that it never read (and in some that it
//! did, to tell understanding from memory).
use super::abilities;
use super::content::Content;
use super::conversations::Talk;
use super::hints::{self, HintKind};
use super::judgements::{self, Evidence, reacted};
use super::problem_talk;
use super::rules::Wanted;
use super::system_prompts::Clock;
use super::text::DocumentKind;
use super::wishes;
use super::written::{Author, World};
use openclaw_actors::prompts::{parse_hint, parse_verdict};
use openclaw_environments::dice::Dice;
use openclaw_environments::persona::{
    Intent, Persona, Split, Style, Task, Wordings, reply, scribble, verdict_of,
};
use serde_json::Value;

/// Words of the system prompt in the cases that have one: about 500 tokens.
const SYSTEM_WORDS: usize = 260;

/// One prompt and how to tell whether its answer is good.
#[derive(Clone, Debug)]
pub struct EvaluationCase {
    /// What is tested: `judge`, `reaction`, `step_judge`, `hint`, `wish`, `no_hint`, `hinted_reply`, `redo`, `rule`,
    /// `unseen_rule`, `arithmetic`, `noun`, `compare`, `tool`, `unseen_tool` or `default_style`.
    pub group: &'static str,
    /// The part of the group that is counted alone: a verdict, a persona, a kind of message.
    pub class: String,
    /// Whether the wordings that matter were held out of pretraining.
    pub split: Split,
    /// Whether a long system prompt (where there can be one) and time stamps are around it.
    pub with_system: bool,
    /// Messages as the chat template takes them.
    pub messages: Vec<Value>,
    /// Tool definitions as it takes them.
    pub tools: Vec<Value>,
    /// At which the answer is sampled; 0 is greedy.
    pub temperature: f32,
    /// What a good answer is.
    pub check: Check,
}

/// What a good answer is.
#[derive(Clone, Debug)]
pub enum Check {
    /// This verdict.
    Verdict(i8),
    /// A hint of this kind.
    Hint(HintKind),
    /// A hint that says what a wish of this rule does, and what it names.
    Says(&'static str, String),
    /// No hint, said readably.
    NoHint,
    /// A reply in the style that this persona wants.
    Satisfies(Persona),
    /// A right answer.
    Correct(Task),
    /// A reply that keeps a rule of style.
    Keeps(Kept),
    /// A reply that names this and nothing else that could be counted.
    Names(String),
    /// The word `correct`, or the word `wrong`.
    Grades(bool),
    /// This call.
    Calls(String, Value),
}

/// A rule of style, and what a reply by it says.
#[derive(Clone)]
pub struct Kept {
    pub(super) wanted: Wanted,
    pub(super) content: Content,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} of {:?}", self.wanted.rule.name, self.wanted.named, self.content)
    }
}

impl Check {
    /// Whether `answer`, made of `response_tokens` tokens, is good.
    pub fn judge(&self, answer: &str, response_tokens: usize) -> bool {
        match self {
            Self::Verdict(verdict) => parse_verdict(answer) == Some(*verdict),
            Self::Hint(kind) => parse_hint(answer).is_some_and(|hint| HintKind::of(&hint) == Some(*kind)),
            Self::Says(rule, named) => {
                parse_hint(answer).is_some_and(|hint| wishes::is_said(rule, named, &hint))
            }
            Self::NoHint => parse_hint(answer).is_none() && parse_verdict(answer) == Some(-1),
            Self::Satisfies(persona) => persona.satisfied(answer, response_tokens),
            Self::Correct(task) => task.is_correct(answer),
            Self::Keeps(Kept { wanted, content }) => wanted.is_kept(content, answer),
            Self::Names(noun) => abilities::names(answer, noun),
            Self::Grades(correct) => verdict_of(answer) == Some(*correct),
            Self::Calls(name, arguments) => abilities::call_in(answer)
                .is_some_and(|call| call["name"] == **name && call["arguments"] == *arguments),
        }
    }
}

impl Check {
    /// Whether a verdict says the opposite of what it should.
    pub fn is_flipped(&self, answer: &str) -> bool {
        matches!(self, Self::Verdict(verdict) if *verdict != 0 && parse_verdict(answer) == Some(-verdict))
    }
}

/// `count` cases of every class of every group, the same for the same seed.
pub fn evaluation_cases(seed: u64, count: usize) -> Vec<EvaluationCase> {
    let mut dice = Dice::new(seed);
    let mut cases = Vec::new();
    for with_system in [false, true] {
        for _ in 0..count {
            for split in [Split::HeldOut, Split::Train] {
                let mut make = Maker { split, with_system, dice: &mut dice };
                cases.extend([-1, 0, 1].map(|verdict| make.judge(verdict)));
                cases.extend(Persona::ALL.map(|persona| make.hint(persona)));
                cases.extend([Intent::Thanks, Intent::Neutral].map(|intent| make.no_hint(intent)));
                cases.extend(Persona::ALL.map(|persona| make.hinted_reply(persona)));
                cases.extend(Persona::ALL.map(|persona| make.redo(persona)));
            }
            let mut make = Maker { split: Split::Train, with_system, dice: &mut dice };
            cases.extend(Persona::ALL.map(|persona| make.arithmetic(persona)));
            cases.extend(Persona::ALL.map(|persona| make.default_style(persona)));
        }
    }
    for with_system in [false, true] {
        let mut make = Maker { split: Split::HeldOut, with_system, dice: &mut dice };
        abilities::cases(&mut make, count, &mut cases);
    }
    let mut make = Maker { split: Split::HeldOut, with_system: false, dice: &mut dice };
    for verdict in [-1, 0, 1] {
        for world in World::ALL {
            cases.extend((0..count).map(|_| make.reaction(verdict, world)));
        }
    }
    for rule in wishes::rules(Split::HeldOut) {
        cases.extend((0..count).map(|_| make.wish(rule)));
    }
    cases
}

/// Makes cases of one split.
pub(super) struct Maker<'a> {
    pub(super) split: Split,
    pub(super) with_system: bool,
    pub(super) dice: &'a mut Dice,
}

impl Maker<'_> {
    fn judge(&mut self, verdict: i8) -> EvaluationCase {
        let persona = Persona::ALL[self.dice.index(3)];
        let next = match verdict {
            -1 if self.dice.chance(0.8) => self.say(Intent::Complaint(persona.wanted_style())),
            -1 => self.say(Intent::GenericComplaint),
            0 => self.say(Intent::Neutral),
            _ => match self.dice.index(4) {
                0 => self.next_question(persona),
                1 => format!("{} {}", self.say(Intent::Thanks), self.next_question(persona)),
                _ => self.say(Intent::Thanks),
            },
        };
        let style = self.style_before(persona, verdict == -1);
        let prompt = self.evidence(persona, style, next).judge_prompt();
        let class = ["-1", "0", "+1"][(verdict + 1) as usize].to_owned();
        self.case("judge", class, question(prompt), Check::Verdict(verdict))
    }

    /// A reaction that another author wrote than the one whose are trained on, in an exchange of theirs.
    fn reaction(&mut self, verdict: i8, world: World) -> EvaluationCase {
        let author = Author::of(Split::HeldOut);
        let exchange = author.exchange(world, self.dice);
        let (evidence, _) = reacted(author, &exchange, verdict, world, self.dice);
        let class = format!("{} {}", ["-1", "0", "+1"][(verdict + 1) as usize], world.name());
        self.case("reaction", class, question(evidence.judge_prompt()), Check::Verdict(verdict))
    }

    /// A wish in the words of the other author.
    fn wish(&mut self, rule: &'static str) -> EvaluationCase {
        let (evidence, wish) = judgements::wish(Split::HeldOut, Some(rule), self.dice);
        let check = Check::Says(wish.rule, wish.named);
        self.case("wish", rule.to_owned(), question(evidence.hint_prompt()), check)
    }

    fn hint(&mut self, persona: Persona) -> EvaluationCase {
        let next = self.say(Intent::Complaint(persona.wanted_style()));
        let style = self.style_before(persona, true);
        let prompt = self.evidence(persona, style, next).hint_prompt();
        self.case("hint", persona.name().into(), question(prompt), Check::Hint(HintKind::wanted_by(persona)))
    }

    fn no_hint(&mut self, intent: Intent) -> EvaluationCase {
        let persona = Persona::ALL[self.dice.index(3)];
        let next = self.say(intent);
        let style = self.style_before(persona, false);
        let prompt = self.evidence(persona, style, next).hint_prompt();
        let class = if intent == Intent::Thanks { "thanks" } else { "neutral" };
        self.case("no_hint", class.into(), question(prompt), Check::NoHint)
    }

    fn hinted_reply(&mut self, persona: Persona) -> EvaluationCase {
        let list = hints::list(HintKind::wanted_by(persona), self.split);
        let hint = &list[self.dice.index(list.len())];
        let task = Task::new(persona, self.dice);
        let mut talk = self.talk();
        talk.user_with_hint(&task.first_message(self.dice), hint, self.dice);
        self.case("hinted_reply", persona.name().into(), talk.finish().messages, Check::Satisfies(persona))
    }

    fn redo(&mut self, persona: Persona) -> EvaluationCase {
        let complaint = self.say(Intent::Complaint(persona.wanted_style()));
        let task = Task::new(persona, self.dice);
        let mut talk = self.talk();
        talk.user(&task.first_message(self.dice), self.dice);
        talk.assistant(&reply(&task, Style::Machine, self.dice));
        talk.user(&complaint, self.dice);
        self.case("redo", persona.name().into(), talk.finish().messages, Check::Satisfies(persona))
    }

    fn arithmetic(&mut self, persona: Persona) -> EvaluationCase {
        let task = Task::new(persona, self.dice);
        let mut talk = self.talk();
        talk.user(&task.first_message(self.dice), self.dice);
        self.case("arithmetic", persona.name().into(), talk.finish().messages, Check::Correct(task))
    }

    fn default_style(&mut self, persona: Persona) -> EvaluationCase {
        let task = Task::new(persona, self.dice);
        let mut talk = self.talk();
        talk.user(&task.first_message(self.dice), self.dice);
        let messages = talk.finish().messages;
        let case = self.case("default_style", persona.name().into(), messages, Check::Satisfies(persona));
        EvaluationCase { temperature: 0.8, ..case }
    }

    pub(super) fn case(
        &self,
        group: &'static str,
        class: String,
        messages: Vec<Value>,
        check: Check,
    ) -> EvaluationCase {
        let Self { split, with_system, .. } = *self;
        EvaluationCase {
            group,
            class,
            split,
            with_system,
            messages,
            tools: Vec::new(),
            temperature: 0.0,
            check,
        }
    }

    pub(super) fn talk(&mut self) -> Talk {
        if self.with_system {
            Talk::heavy(DocumentKind::FirstReply, SYSTEM_WORDS, self.dice)
        } else {
            Talk::bare(DocumentKind::FirstReply)
        }
    }

    fn say(&mut self, intent: Intent) -> String {
        let text = Wordings::get().say(intent, self.split, self.dice);
        scribble(&text, self.dice)
    }

    fn next_question(&mut self, persona: Persona) -> String {
        problem_talk::next_question(&Task::new(persona, self.dice), "", self.dice)
    }

    /// A style that a complaint or a remark may follow.
    fn style_before(&mut self, persona: Persona, disliked: bool) -> Style {
        if disliked || self.dice.chance(0.5) { Style::Machine } else { persona.wanted_style() }
    }

    fn evidence(&mut self, persona: Persona, style: Style, next: String) -> Evidence {
        let task = Task::new(persona, self.dice);
        let mut evidence = Evidence {
            task: task.first_message(self.dice),
            answer: reply(&task, style, self.dice),
            next,
            next_role: "user",
        };
        if self.with_system {
            let mut clock = Clock::new(self.dice);
            evidence.task.insert_str(0, &clock.stamp(self.dice));
            evidence.next.insert_str(0, &clock.stamp(self.dice));
        }
        evidence
    }
}

pub(super) fn question(prompt: String) -> Vec<Value> {
    vec![serde_json::json!({"role": "user", "content": prompt})]
}
