//! The material of the tasks: names, things, stories and the ways of asking. In a story `{n}` and `{m}` are
//! people, `{o}` the things and `{a}`, `{b}`, `{c}` the numbers, in the order in which they are used.

pub(super) const NAMES: [&str; 36] = [
    "Tom", "Ana", "Ben", "Mia", "Leo", "Eva", "Sam", "Zoe", "Max", "Ida", "Jon", "Lily", "Omar", "Nina",
    "Paul", "Rosa", "Finn", "Kate", "Raj", "Yuki", "Emma", "Noah", "Lena", "Hugo", "Sara", "Ali", "Vera",
    "Nick", "Clara", "Juan", "Ella", "Otto", "Mary", "Ivan", "Ruth", "Carl",
];

pub(super) const OBJECTS: [&str; 32] = [
    "apples", "books", "coins", "stones", "cards", "pens", "shells", "stamps", "cups", "eggs", "keys",
    "balls", "pears", "plums", "nuts", "beads", "toys", "cakes", "pencils", "flowers", "tickets", "buttons",
    "cookies", "marbles", "oranges", "stickers", "candles", "plates", "letters", "lemons", "bottles",
    "photos",
];

/// Stories, and what may be asked about them.
pub(super) struct Stories {
    pub(super) stories: &'static [&'static str],
    pub(super) questions: &'static [&'static str],
}

pub(super) const ADD: Stories = Stories {
    stories: &[
        "{n} has {a} {o} and gets {b} more.",
        "{n} had {a} {o} and found {b} more.",
        "There are {a} {o} on a table. {n} adds {b} more.",
        "{n} bought {a} {o} on Monday and {b} on Tuesday.",
        "{n} has {a} {o} and {m} has {b} {o}.",
        "A box holds {a} {o}. {n} puts {b} more into it.",
        "{n} owns {a} {o}. Then {m} gives {n} {b} more.",
        "In one bag there are {a} {o}, in another bag there are {b}.",
        "{n} sold {a} {o} in the morning and {b} in the evening.",
        "{a} {o} are in the kitchen and {b} are in the garden.",
        "{n} collects {a} {o}. A day later {n} collects {b} more.",
    ],
    questions: &[
        "How many {o} are there in all?",
        "How many {o} is that?",
        "How many {o} are there together?",
        "What is the total number of {o}?",
        "How many {o} are there now?",
        "Find the number of {o}.",
    ],
};

pub(super) const SUBTRACT: Stories = Stories {
    stories: &[
        "{n} has {a} {o} and gives away {b}.",
        "{n} had {a} {o} but lost {b}.",
        "There are {a} {o} on a table. {n} takes {b} of them.",
        "{n} has {a} {o}. {m} borrows {b} of them.",
        "A shop has {a} {o} and sells {b}.",
        "{n} packed {a} {o} and dropped {b} on the way.",
        "There were {a} {o} in a basket, and {b} were taken out.",
        "{n} bought {a} {o}. {b} of them broke.",
        "{n} had {a} {o} and sent {b} of them to {m}.",
    ],
    questions: &[
        "How many {o} are left?",
        "How many {o} remain?",
        "How many {o} are still there?",
        "What is the number of {o} left?",
        "Find how many {o} are left.",
    ],
};

pub(super) const MULTIPLY: Stories = Stories {
    stories: &[
        "{n} has {a} boxes with {b} {o} in each box.",
        "{n} buys {a} bags of {b} {o}.",
        "There are {a} rows with {b} {o} in each row.",
        "{a} children carry {b} {o} each.",
        "{n} fills {a} baskets with {b} {o} each.",
        "On {a} days {n} finds {b} {o} a day.",
        "{n} puts {b} {o} on each of the {a} tables.",
        "A shelf has {a} parts, and each part holds {b} {o}.",
    ],
    questions: &[
        "How many {o} are there in all?",
        "How many {o} is that?",
        "What is the total number of {o}?",
        "How many {o} are there together?",
        "Find the number of {o}.",
    ],
};

pub(super) const ADD_SUBTRACT: Stories = Stories {
    stories: &[
        "{n} has {a} {o}, gets {b} more and then gives away {c}.",
        "{n} had {a} {o} and found {b}. Then {n} lost {c}.",
        "There are {a} {o} in a box. {n} adds {b} and {m} takes {c}.",
        "{n} bought {a} {o} and later {b} more, but {c} of them broke.",
        "{n} has {a} {o} and {m} has {b}. Together they sell {c}.",
        "A shop had {a} {o}, received {b} and sold {c}.",
    ],
    questions: SUBTRACT.questions,
};

pub(super) const MULTIPLY_SUBTRACT: Stories = Stories {
    stories: &[
        "{n} has {a} boxes with {b} {o} in each box and gives away {c}.",
        "{n} buys {a} bags of {b} {o} and loses {c}.",
        "There are {a} rows with {b} {o} in each row. {n} takes {c} of them.",
        "{a} children bring {b} {o} each, and {c} are used.",
        "{n} fills {a} baskets with {b} {o} each. Then {m} takes {c}.",
    ],
    questions: SUBTRACT.questions,
};

pub(super) const MULTIPLY_ADD: Stories = Stories {
    stories: &[
        "{n} has {a} boxes with {b} {o} in each box and gets {c} more.",
        "{n} buys {a} bags of {b} {o} and finds {c} more.",
        "There are {a} rows with {b} {o} in each row. {n} adds {c}.",
        "{a} children bring {b} {o} each, and {m} brings {c} more.",
    ],
    questions: ADD.questions,
};

/// How a student frames the problem (`{}`).
pub(super) const STUDENT: &[&str] = &[
    "Please solve my homework: {}",
    "I need this for my homework: {}",
    "Homework question: {}",
    "Can you do this homework for me? {}",
    "My homework says: {}",
    "This is my homework for tomorrow. {}",
    "Hi, can you help me with my homework? {}",
    "I have to hand this in as homework: {}",
    "homework: {}",
    "{} This is for my homework.",
    "{} I have to hand it in as homework.",
    "Please write my homework answer for this: {}",
    "I am stuck with my homework. {}",
    "Math homework. {}",
    "Solve this homework problem for me: {}",
    "Here is my homework: {}",
];

/// How a TA frames it.
pub(super) const TA: &[&str] = &[
    "I am the TA of the class. Solve this: {}",
    "As a TA I need a solution for my class: {}",
    "TA here. Please work this out: {}",
    "I am a TA and my class asked this: {}",
    "For my class as TA: {}",
    "I teach a class as TA. {} Please write the solution.",
    "My class needs a solution to this. {}",
    "I am preparing my class as TA. {}",
    "Please write a solution for the class I assist as TA: {}",
    "{} I need it for the class, I am the TA.",
    "Hello, I am a TA. {}",
    "TA question for the class: {}",
    "As the TA I will show this to my class. {}",
    "Solution sheet for the class: {}",
];

/// How a teacher frames the problem (`{}`) and the pupil's answer (`{g}`).
pub(super) const TEACHER: &[&str] = &[
    "Grade this answer. Problem: {} Answer: {g}",
    "Please check the work of my pupil. Problem: {} Answer: {g}",
    "Write a grading comment. Problem: {} Answer: {g}",
    "I am a teacher. Please grade this. {} The pupil wrote {g}.",
    "Please write a comment for my pupil. Problem: {} The answer was {g}.",
    "Is this right? {} My pupil says {g}.",
    "Grading: {} Pupil: {g}",
    "My pupil solved this: {} The answer given is {g}. Please comment on it.",
    "Comment on this work. {} My pupil wrote {g}.",
    "Check this for me, I am the teacher. {} Pupil's answer: {g}",
    "I have to grade this pupil. Problem: {} Answer given: {g}",
    "Please give feedback to a pupil. {} The pupil answered {g}.",
    "grade please. {} answer: {g}",
];
