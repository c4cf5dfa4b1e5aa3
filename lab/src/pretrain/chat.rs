//! Talk about nothing in particular: greetings, waiting, thanks, nonsense, small facts.
use super::conversations::Talk;
use super::text::{Document, DocumentKind};
use openclaw_environments::dice::Dice;
use openclaw_environments::persona::{Intent, Split, Wordings, scribble};

const WELCOME: &[&str] = &[
    "You are welcome.",
    "You are welcome.",
    "You are welcome!",
    "Glad to help.",
    "Happy to help.",
    "Any time.",
];

const FACTS: &[(&str, &str)] = &[
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("What is the capital of Spain?", "The capital of Spain is Madrid."),
    ("What is the capital of Japan?", "The capital of Japan is Tokyo."),
    ("How many days are in a week?", "A week has 7 days."),
    ("How many hours are in a day?", "A day has 24 hours."),
    ("How many months are in a year?", "A year has 12 months."),
    ("What color is the sky?", "The sky is blue."),
    ("What color is grass?", "Grass is green."),
    ("How many legs does a dog have?", "A dog has 4 legs."),
    ("What can you do?", "I can solve short word problems, grade answers and use tools."),
    ("Can you help me?", "Yes. What do you need?"),
    ("I have a question.", "Please ask."),
    ("Tell me a word.", "Here is one: water."),
    ("Say yes.", "Yes."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("What is the opposite of big?", "The opposite of big is small."),
    ("Which day comes after Monday?", "Tuesday comes after Monday."),
    ("Which day comes after Friday?", "Saturday comes after Friday."),
];

/// What people ask besides word problems: a new request, and with it a sign that the last reply was fine.
pub(super) fn request(dice: &mut Dice) -> (String, String) {
    let (question, answer) = FACTS[dice.index(FACTS.len())];
    (question.to_owned(), answer.to_owned())
}

/// The reply to thanks.
pub(super) fn welcome(dice: &mut Dice) -> String {
    dice.pick(WELCOME).to_owned()
}

/// A message that says nothing about the last reply, and what to say to it.
pub(super) fn neutral(dice: &mut Dice) -> (String, String) {
    if dice.chance(0.12) {
        return (
            salad(dice),
            dice.pick(&["I am not sure what you mean.", "Can you say that in other words?"]).into(),
        );
    }
    let said = Wordings::get().say(Intent::Neutral, Split::Train, dice);
    let reply = reply_to_neutral(&said, dice);
    (scribble(&said, dice), reply)
}

fn reply_to_neutral(said: &str, dice: &mut Dice) -> String {
    let said = said.to_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| said.starts_with(word));
    let holds = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let reply = if holds(&["who are you", "your name"]) {
        dice.pick(&["I am a small assistant on this machine.", "I am your assistant."])
    } else if holds(&["how are you"]) {
        dice.pick(&["I am fine, thank you. How can I help you?", "I am well. What can I do for you?"])
    } else if holds(&["are you there", "still there"]) {
        "Yes, I am here."
    } else if starts(&["bye", "see you", "good night"]) {
        "Goodbye!"
    } else if starts(&["hello", "hi.", "hey", "good morning", "good evening"]) {
        dice.pick(&["Hello! How can I help you?", "Hello! What can I do for you?"])
    } else if holds(&[
        "wait", "later", "moment", "second", "hold on", "back", "read", "let me", "think", "go now",
    ]) {
        dice.pick(&["Sure, take your time.", "Of course, take your time."])
    } else {
        dice.pick(&[
            "I see. Tell me when you have a question.",
            "I see. Is there a question I can help with?",
        ])
    };
    reply.to_owned()
}

/// Nonsense: random letters, unrelated words, signs.
pub(super) fn salad(dice: &mut Dice) -> String {
    const WORDS: &[&str] = &[
        "purple",
        "engine",
        "seven",
        "cloud",
        "under",
        "fork",
        "moon",
        "carpet",
        "whisper",
        "lemon",
        "gravel",
        "tiger",
        "window",
        "quickly",
        "yesterday",
        "bridge",
        "salt",
        "paper",
        "river",
        "orbit",
        "velvet",
        "hammer",
        "winter",
        "between",
        "circle",
        "the",
        "of",
        "and",
        "or",
        "banana",
        "ticket",
        "zebra",
        "lamp",
        "seldom",
        "north",
    ];
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    let length = dice.between(1, 7);
    let kind = dice.index(4);
    let word = |dice: &mut Dice| match kind {
        0 => dice.pick(WORDS).to_owned(),
        1 => (0..dice.between(2, 9)).map(|_| char::from(LETTERS[dice.index(26)])).collect(),
        2 => dice
            .pick(&["...", "?!", "??", ":-)", "#", "42", "--", "%", "1 2 3", "ok/", "<>", "@", "()"])
            .to_owned(),
        _ if dice.chance(0.5) => dice.pick(WORDS).to_owned(),
        _ => (0..dice.between(2, 6)).map(|_| char::from(LETTERS[dice.index(26)])).collect(),
    };
    let words: Vec<String> = (0..length).map(|_| word(dice)).collect();
    words.join(" ")
}

/// A document of one to three such turns.
pub(super) fn small_talk(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::Chat, dice);
    for _ in 0..dice.between(1, 3) {
        let (said, reply) = match dice.index(3) {
            0 => request(dice),
            _ => neutral(dice),
        };
        talk.user(&said, dice);
        talk.assistant(&reply);
        if dice.chance(0.15) {
            let thanks = Wordings::get().say(Intent::Thanks, Split::Train, dice);
            talk.user(&scribble(&thanks, dice), dice);
            talk.assistant(&welcome(dice));
        }
    }
    talk.finish()
}
