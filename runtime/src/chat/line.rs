//! What a line means that a person typed: a message, or a command. What looks like a command is never sent.

/// Shown by `/help` and `chat --help`.
pub const COMMANDS: &str = "\
/good [WORDS]  the last reply was good, and why
/bad [WORDS]   it was not, and why
/retry         has the last message answered again
/learnt        what became of each reply so far
/wishes        what you wished for before, as far as it stands
/forget N      withdraws the wish of that number
/new           ends this session, begins another
/quit          ends the session and leaves
Ctrl-C         cuts a reply, or clears the line
Ctrl-D         leaves";

/// A line that was read.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// It is empty.
    Nothing,
    /// Is sent.
    Say(String),
    /// Rates the last reply.
    Rate {
        /// +1 or -1.
        rating: i8,
        /// Why.
        text: Option<String>,
    },
    /// Asks for another reply.
    Retry,
    /// Asks for the story so far.
    Learnt,
    /// Asks for the wishes that stand.
    Wishes,
    /// Withdraws one; none where no number could be read.
    Forget(Option<u64>),
    /// Begins another session.
    New,
    /// Asks for the commands.
    Help,
    /// Ends.
    Quit,
    /// No command of ours.
    Unknown(String),
}

impl Line {
    /// Reads it.
    pub fn read(line: &str) -> Self {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let text = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
        match command {
            "" => Self::Nothing,
            "/good" => Self::Rate { rating: 1, text },
            "/bad" => Self::Rate { rating: -1, text },
            "/retry" => Self::Retry,
            "/learnt" => Self::Learnt,
            "/wishes" => Self::Wishes,
            "/forget" => Self::Forget(text.and_then(|number| number.parse().ok())),
            "/new" => Self::New,
            "/help" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            _ if command.starts_with('/') => Self::Unknown(command.to_owned()),
            _ => Self::Say(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_or_a_command() {
        let cases = [
            (" hello there ", Line::Say("hello there".to_owned())),
            ("two\nlines", Line::Say("two\nlines".to_owned())),
            ("/good", Line::Rate { rating: 1, text: None }),
            ("/bad too long", Line::Rate { rating: -1, text: Some("too long".to_owned()) }),
            ("/bda too long", Line::Unknown("/bda".to_owned())),
            ("/retry", Line::Retry),
            ("/wishes", Line::Wishes),
            ("/forget 3", Line::Forget(Some(3))),
            ("/forget it", Line::Forget(None)),
            ("  ", Line::Nothing),
            ("/quit", Line::Quit),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::read(line), expected, "{line}");
        }
    }

    #[test]
    fn every_command_that_is_listed_is_known() {
        for listed in COMMANDS.lines().filter(|listed| listed.starts_with('/')) {
            let command = listed.split_whitespace().next().unwrap_or_default();
            assert!(!matches!(Line::read(command), Line::Unknown(_) | Line::Say(_)), "{listed}");
        }
    }
}
