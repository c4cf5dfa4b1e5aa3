//! How a model is talked to about a repository: by tools or by blocks of bash, and what of a long conversation stays.
use serde_json::{Map, Value, json};

use super::settings::Talk;
use crate::{
    agent::{Agent, Fit, Parsed, Reply, ToolAgent},
    world::{Action, Call, Outcome, Part, Said, Task, text_of},
};

/// Of the room for turns, what the first ones have; the last ones have the rest.
const FIRST: f64 = 0.3;
/// How a fenced block begins.
const BEGIN: &str = "```bash";
/// And how it ends.
const END: &str = "```";
/// How a note of what was left out begins.
const NOTE: &str = "[left out here: ";

/// What a reply without exactly one block is told.
const REMINDER: &str = "Nothing was run: a reply has to hold exactly one block, which begins with a line ```bash and ends with a \
                        line ```. Say what you want to find out or change, then give one block with the command. To submit, \
                        the block holds nothing but: echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT";

/// Works on a repository by commands.
#[derive(Clone, Debug, Default)]
pub struct BashAgent {
    talk: Talk,
    tools: ToolAgent,
}

impl BashAgent {
    /// That says what it does in this way.
    pub fn new(talk: Talk) -> Self {
        Self { talk, tools: ToolAgent::default() }
    }
}

impl Agent for BashAgent {
    fn name(&self) -> &'static str {
        self.talk.name()
    }

    fn start(&mut self, task: &Task, first: &[Part]) -> Vec<Value> {
        self.tools.start(task, first)
    }

    fn parse(&self, reply: &Reply) -> Parsed {
        match self.talk {
            Talk::BashTool => self.tools.parse(reply),
            Talk::BashBlock => match block(reply) {
                Some(command) => {
                    let arguments = Map::from_iter([("command".to_owned(), json!(command))]);
                    let call = Call { id: "block".to_owned(), name: "bash".to_owned(), arguments };
                    Parsed::Action(Action::Calls(vec![call]))
                }
                None => Parsed::Malformed(vec![Said::user(REMINDER).message()]),
            },
        }
    }

    fn observe(&mut self, outcome: &Outcome) -> Vec<Value> {
        if self.talk == Talk::BashTool {
            return self.tools.observe(outcome);
        }
        let seen = &outcome.observation;
        let texts = seen.results.iter().map(|result| text_of(&result.parts));
        let texts: Vec<String> =
            texts.chain((!seen.parts.is_empty()).then(|| text_of(&seen.parts))).collect();
        if texts.is_empty() { Vec::new() } else { vec![Said::user(texts.join("\n")).message()] }
    }

    fn fit(&mut self, messages: &[Value]) -> Fit {
        match shortened(messages) {
            Some(shorter) => Fit::Rewrite(shorter),
            None => Fit::Full,
        }
    }
}

/// The command of a reply that has exactly one block.
fn block(reply: &Reply) -> Option<String> {
    let mut found: Option<Vec<&str>> = None;
    let mut is_open = false;
    for line in reply.text.lines() {
        match (is_open, line.trim_end()) {
            (false, start) if start.trim_start() == BEGIN => {
                if found.is_some() {
                    return None;
                }
                (found, is_open) = (Some(Vec::new()), true);
            }
            (true, END) => is_open = false,
            (true, _) => found.get_or_insert_default().push(line),
            _ => {}
        }
    }
    let command = found.filter(|_| !is_open && !reply.truncated)?.join("\n");
    (!command.trim().is_empty()).then_some(command)
}

/// A turn: what the model said, and what it was told of it.
struct Turn<'a> {
    messages: &'a [Value],
    /// Turns that a note in it stands for.
    noted: usize,
}

impl Turn<'_> {
    fn length(&self) -> usize {
        length(self.messages)
    }
}

fn length(messages: &[Value]) -> usize {
    messages.iter().map(|message| message.to_string().len()).sum()
}

/// Half as long: all that comes before the first reply stays, then the first turns, a note, and the last turns. None where
/// nothing can be left out.
fn shortened(messages: &[Value]) -> Option<Vec<Value>> {
    let is_reply = |message: &Value| message["role"] == "assistant";
    let begin = messages.iter().position(is_reply)?;
    let starts: Vec<usize> = (begin..messages.len()).filter(|at| is_reply(&messages[*at])).collect();
    let ends = starts.iter().skip(1).copied().chain([messages.len()]);
    let turns: Vec<Turn<'_>> = starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let all = &messages[*start..end];
            let note = all.iter().rposition(|message| noted(message) > 0);
            let noted = note.map_or(0, |at| noted(&all[at]));
            // A note is the last of its turn.
            Turn { messages: &all[..note.unwrap_or(all.len())], noted }
        })
        .collect();
    let room = (length(messages) / 2).saturating_sub(length(&messages[..begin]));
    let (mut first, mut used) = (0, 0);
    while first < turns.len() && used + turns[first].length() <= (room as f64 * FIRST) as usize {
        used += turns[first].length();
        first += 1;
    }
    // The latest turn stays in any case: without it nobody knows what to do next.
    let (mut last, mut left) = (turns.len(), room - used);
    while last > first && (last == turns.len() || turns[last - 1].length() <= left) {
        left = left.saturating_sub(turns[last - 1].length());
        last -= 1;
    }
    if first == last {
        return None;
    }
    let before: usize = turns[..last].iter().map(|turn| turn.noted).sum();
    let kept = |turns: &[Turn<'_>]| turns.iter().flat_map(|turn| turn.messages.to_vec()).collect::<Vec<_>>();
    let note = format!("{NOTE}{} turns]", last - first + before);
    let mut shorter = messages[..begin].to_vec();
    shorter.extend(kept(&turns[..first]));
    shorter.push(Said::user(note).message());
    shorter.extend(kept(&turns[last..]));
    Some(shorter)
}

/// Turns that a message stands for.
fn noted(message: &Value) -> usize {
    let text = message["content"].as_str().and_then(|text| text.strip_prefix(NOTE));
    text.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &str) -> Reply {
        Reply { text: text.to_owned(), ..Reply::default() }
    }

    #[test]
    fn a_reply_has_exactly_one_block() {
        let agent = BashAgent::new(Talk::BashBlock);
        let command = |text: &str| match agent.parse(&says(text)) {
            Parsed::Action(Action::Calls(calls)) => calls[0].text("command").map(str::to_owned),
            Parsed::Action(other) => panic!("{other:?}"),
            Parsed::Malformed(told) => {
                assert_eq!(told, [Said::user(REMINDER).message()]);
                None
            }
        };
        assert_eq!(command("I look.\n```bash\nls -a\ncd x\n```\n").as_deref(), Some("ls -a\ncd x"));
        // What is written within a command is no block of its own.
        assert_eq!(command("```bash\ncat <<E\n ```bash\nE\n```").as_deref(), Some("cat <<E\n ```bash\nE"));
        for none in
            ["ls", "```\nls\n```", "```bash\nls", "```bash\n\n```", "```bash\na\n```\n```bash\nb\n```"]
        {
            assert_eq!(command(none), None, "{none}");
        }
        let cut = Reply { truncated: true, ..says("```bash\nls\n```") };
        assert!(matches!(agent.parse(&cut), Parsed::Malformed(_)));
    }

    fn turn(number: usize) -> [Value; 2] {
        [
            json!({"role": "assistant", "content": format!("look {number:03}")}),
            Said::user("x".repeat(100)).message(),
        ]
    }

    fn numbers(messages: &[Value]) -> Vec<String> {
        messages
            .iter()
            .filter_map(|message| Some(message["content"].as_str()?.get(..12)?.to_owned()))
            .collect()
    }

    #[test]
    fn the_first_and_the_last_turns_stay_whole() {
        let head = [json!({"role": "system", "content": "s"}), Said::user("the issue").message()];
        let mut messages: Vec<Value> = head.to_vec();
        messages.extend((0..20).flat_map(turn));
        let mut agent = BashAgent::new(Talk::BashBlock);
        let Fit::Rewrite(shorter) = agent.fit(&messages) else { panic!("it is long") };
        assert!(length(&shorter) <= length(&messages) / 2 + 100);
        assert_eq!(shorter[..2], head);
        let of = |messages: &[Value]| -> Vec<usize> {
            let said =
                messages.iter().filter_map(|message| message["content"].as_str()?.strip_prefix("look "));
            said.map(|number| number.parse().unwrap()).collect()
        };
        assert_eq!(of(&shorter), [0, 1, 13, 14, 15, 16, 17, 18, 19], "{:?}", numbers(&shorter));
        assert!(numbers(&shorter).contains(&"[left out he".to_owned()));
        assert_eq!(shorter.iter().map(noted).sum::<usize>(), 11);
        // Again: the note counts what it stands for.
        let mut longer = shorter;
        longer.extend((20..26).flat_map(turn));
        let Fit::Rewrite(again) = agent.fit(&longer) else { panic!("it is long") };
        assert_eq!(again.iter().filter(|message| noted(message) > 0).count(), 1);
        let (kept, noted) = (of(&again).len(), again.iter().map(noted).sum::<usize>());
        assert_eq!((kept + noted, of(&again).last()), (26, Some(&25)));
        assert!(matches!(agent.fit(&[head.to_vec(), turn(0).to_vec()].concat()), Fit::Full));
    }
}
