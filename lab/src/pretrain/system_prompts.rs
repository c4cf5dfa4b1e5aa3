//! What real clients put around a message: system prompts of all lengths, time stamps and runtime lines. The
//! model must learn that none of it is a number to calculate with.
use openclaw_environments::dice::Dice;

const ONE_LINE: &[&str] = &[
    "You are a helpful assistant.",
    "You are a personal assistant.",
    "Answer the user.",
    "You help people with short questions.",
    "You are an assistant in a chat.",
    "Help the user as well as you can.",
    "You work for one user on one machine.",
    "You are a polite assistant.",
    "You are OpenClaw.",
    "The user writes in English.",
];

const SUBJECTS: &[&str] = &[
    "the agent",
    "the assistant",
    "the user",
    "this workspace",
    "the gateway",
    "a session",
    "the memory file",
    "the scheduler",
    "each channel",
    "the sandbox",
    "the browser",
    "a plugin",
    "the operator",
    "the calendar",
    "every message",
    "the host",
    "a sub-agent",
    "the log",
    "the config",
    "the inbox",
    "the group chat",
    "the owner",
];

const VERBS: &[&str] = &[
    "keeps",
    "reads",
    "writes",
    "stores",
    "sends",
    "checks",
    "loads",
    "updates",
    "opens",
    "closes",
    "reports",
    "watches",
    "moves",
    "lists",
    "needs",
    "owns",
    "saves",
    "sorts",
    "copies",
    "may delete",
    "must not share",
    "should confirm",
    "can edit",
    "never prints",
    "always asks before it changes",
];

const OBJECTS: &[&str] = &[
    "the project files",
    "the notes of the day",
    "private data",
    "the output of a command",
    "the list of contacts",
    "old messages",
    "the current folder",
    "a summary of the thread",
    "the settings",
    "an image",
    "the weather report",
    "the next reminder",
    "web pages",
    "secrets and keys",
    "the status of a job",
    "a draft",
    "the voice message",
    "the identity file",
    "daily tasks",
    "long documents",
    "a table of numbers",
    "the time zone",
    "the history",
];

const TAILS: &[&str] = &[
    "",
    "",
    "",
    " before the session ends",
    " when the user asks for it",
    " every {} minutes",
    " in the workspace",
    " after {} retries",
    " on channel {}",
    " for at most {} seconds",
    " unless the owner says otherwise",
    " if a file is larger than {} KB",
    " at the start of the day",
    " without asking",
    " in the background",
    " as soon as the network is back",
    " in version {}",
];

const TITLES: &[&str] = &[
    "Tooling",
    "Safety",
    "Workspace",
    "Memory",
    "Sessions",
    "Channels",
    "Heartbeat",
    "Skills",
    "Identity",
    "Messaging",
    "Reminders",
    "Sandbox",
    "Project context",
    "Documentation",
    "Time",
];

const TOOL_LINES: &[&str] = &[
    "- read: read a file, up to {} lines",
    "- write: create or change a file",
    "- exec: run a shell command, limit {} seconds",
    "- web_search: search the web, at most {} results",
    "- browser: open a page",
    "- cron: plan a job, id {}",
    "- message: send a message to a channel",
    "- image: look at an image of up to {} MB",
    "- session_status: show the state of a session",
];

const DATA_LINES: &[&str] = &[
    "{\"channel\": \"chat\", \"chat_id\": {}, \"schema\": \"v{}\"}",
    "{\"host\": \"box-{}\", \"port\": {}, \"open\": true}",
    "workspace = /home/user/project-{}",
    "port: {}",
    "max_items: {}",
    "build {}.{}.{}",
    "Current date: 20{}-{}-{}",
    "model=policy | channel=chat | thinking=off | level={}",
];

/// A system prompt, or none: often one line, sometimes a page.
pub(super) fn maybe(dice: &mut Dice) -> Option<String> {
    match dice.weighted(&[(0, 0.55), (1, 0.17), (2, 0.16), (3, 0.12)]) {
        0 => None,
        1 => Some(dice.pick(ONE_LINE).to_owned()),
        2 => {
            let words = dice.between(20, 110) as usize;
            Some(page(words, dice))
        }
        _ => {
            let words = dice.between(110, 330) as usize;
            Some(page(words, dice))
        }
    }
}

/// About `words` words of plausible rules, lists and data.
pub(super) fn page(words: usize, dice: &mut Dice) -> String {
    let mut text = dice.pick(ONE_LINE).to_owned();
    while text.split_whitespace().count() < words {
        match dice.index(5) {
            0 => {
                text.push_str(&format!("\n\n## {}\n", dice.pick(TITLES)));
                text.push_str(&sentence(dice));
            }
            1 => {
                for _ in 0..dice.between(2, 4) {
                    text.push('\n');
                    text.push_str(&filled(dice.pick(TOOL_LINES), dice));
                }
            }
            2 => {
                text.push('\n');
                text.push_str(&filled(dice.pick(DATA_LINES), dice));
            }
            3 => {
                for at in 1..=dice.between(2, 4) {
                    text.push_str(&format!("\n{at}. {}", sentence(dice)));
                }
            }
            _ => {
                text.push('\n');
                for _ in 0..dice.between(1, 3) {
                    text.push(' ');
                    text.push_str(&sentence(dice));
                }
            }
        }
    }
    text
}

/// A sentence of such a page.
pub(super) fn sentence(dice: &mut Dice) -> String {
    let tail = filled(dice.pick(TAILS), dice);
    let text = format!("{} {} {}{tail}.", dice.pick(SUBJECTS), dice.pick(VERBS), dice.pick(OBJECTS));
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

fn filled(pattern: &str, dice: &mut Dice) -> String {
    let mut text = pattern.to_owned();
    while text.contains("{}") {
        let most = dice.pick(&[&9, &60, &500]);
        text = text.replacen("{}", &dice.between(1, *most).to_string(), 1);
    }
    text
}

/// The time in a conversation, as some clients stamp it on each user message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    minutes: i64,
    zone: &'static str,
}

impl Clock {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self {
            minutes: dice.between(0, 4 * 365 * 24 * 60),
            zone: dice.pick(&["UTC", "UTC", "CET", "EST", "GMT+2"]),
        }
    }

    /// `[Sun 2026-11-22 13:58 UTC] `, some minutes after the last one.
    pub(super) fn stamp(&mut self, dice: &mut Dice) -> String {
        self.minutes += dice.between(0, 30);
        let (day, minute) = (self.minutes / 1440, self.minutes % 1440);
        let weekday = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][day as usize % 7];
        // Dates are scenery: months have 28 days here.
        let (year, month, date) = (2024 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
        let (hour, minute) = (minute / 60, minute % 60);
        format!("[{weekday} {year}-{month:02}-{date:02} {hour:02}:{minute:02} {}] ", self.zone)
    }
}

/// The line that a client appends to the first user message.
pub(super) fn runtime_line(dice: &mut Dice) -> String {
    let id = dice.seed();
    format!(
        "\n\nRuntime: agent=main | session=agent:main:{}{} | sessionId={:08x}-{:04x} | host=box-{} | model=policy",
        dice.pick(&["g", "main", "chat-"]),
        dice.between(1, 99),
        id >> 32,
        id & 0xffff,
        dice.between(1, 40),
    )
}
