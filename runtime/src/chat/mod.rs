//! `chat`: training by talking. A conversation with a gateway from the terminal; under each reply stands what was learnt
//! from the one before, and a session that is left is ended.
//!
//! `line` is what is typed, `terminal` how it is typed and shown, `gateway` and `stream` how the model is asked, `node` and
//! `follow` how it is seen what is learnt, `learnt` how that is said.

mod follow;
mod gateway;
mod learnt;
mod line;
mod node;
mod signals;
mod stream;
mod terminal;

use std::{io, pin::pin, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use self::{
    follow::Follower,
    gateway::Gateway,
    learnt::{Learnt, Look},
    line::{COMMANDS, Line},
    signals::{Signals, Wish},
    stream::Piece,
    terminal::{Heard, Terminal},
};
use crate::{
    admin::{ClientError, Command},
    operate::NodeArgs,
    printable::printable,
};

/// Shown below `chat --help`.
pub fn examples() -> String {
    let commands = COMMANDS.replace('\n', "\n  ");
    format!(
        "\
In the conversation:
  {commands}

What you say next is what the reply before is judged by. On a terminal each verdict is shown when it is known, with \
the hint and what came of it; off a terminal one line for each reply stands at the end. It is read over the node's own \
socket: a gateway elsewhere is talked to all the same, and what is learnt there is not shown.

Examples:
  openclaw-rl chat
  openclaw-rl chat --url http://127.0.0.1:30000/v1 --temperature 0.2
  printf 'Tom has 12 apples and gets 7 more. How many is that?\\n/good\\n' | openclaw-rl chat --wait"
    )
}

/// A person does not wait longer than this for a look.
const LOOK_PATIENCE: Duration = Duration::from_millis(300);
/// Off a terminal a look is all that is ever shown.
const ONLY_LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// The arguments of `chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The gateway's address; that of the running node, unless given.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// The model's name; the first one that the gateway names, unless given.
    #[arg(long)]
    model: Option<String>,
    /// The environment variable that holds the key; nothing is sent when it is not set.
    #[arg(long, value_name = "NAME", default_value = "OPENCLAW_API_KEY")]
    api_key_env: String,
    /// Sampling temperature; the gateway's own, unless given.
    #[arg(long)]
    temperature: Option<f64>,
    /// Once a session has ended, waits until all that was answered or rated is learnt, at most SECS (60, unless given).
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "60")]
    wait: Option<u64>,
}

/// Talks until the input ends.
pub async fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    let found = node::find(args.url, &args.node).await?;
    let key = std::env::var(&args.api_key_env).ok().filter(|key| !key.trim().is_empty());
    let gateway = Gateway::connect(&found.url, key, args.model, args.temperature).await?;
    let signals = Signals::listen()?;
    let mut terminal = Terminal::open();
    if terminal.is_live() {
        terminal
            .note(&format!("Talking to {} at {}. /help tells the commands.", gateway.model, gateway.url))?;
    }
    if found.node.is_none() {
        let why = format!("What is learnt cannot be shown: {} is no node's of this machine.", gateway.url);
        if terminal.is_live() { terminal.note(&why)? } else { eprintln!("openclaw-rl: {}", printable(&why)) }
    }
    let mut chat = Chat {
        gateway,
        follower: found.node.map(Follower::new),
        is_out_of_sight: false,
        learnt: Learnt::default(),
        terminal,
        signals,
        wait: args.wait.map(Duration::from_secs),
        session: String::new(),
        messages: Vec::new(),
        last_reply: None,
        has_spoken: false,
    };
    chat.begin();
    let talked = chat.talk().await;
    let ended = chat.end().await;
    talked.and(ended)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Listen,
    Leave,
}

struct Chat {
    gateway: Gateway,
    /// Who knows what is learnt, where that can be seen.
    follower: Option<Follower>,
    /// The last look failed, and that was told.
    is_out_of_sight: bool,
    learnt: Learnt,
    terminal: Terminal,
    signals: Signals,
    wait: Option<Duration>,
    session: String,
    messages: Vec<Value>,
    last_reply: Option<String>,
    /// The gateway may have heard of this session.
    has_spoken: bool,
}

impl Chat {
    fn begin(&mut self) {
        self.session = format!("chat-{:016x}", rand::random::<u64>());
        self.messages.clear();
        self.last_reply = None;
        self.has_spoken = false;
        self.learnt.begin_session(&self.session);
        if let Some(follower) = &mut self.follower {
            follower.begin(&self.session);
        }
    }

    async fn talk(&mut self) -> anyhow::Result<()> {
        loop {
            let line = match self.listen().await? {
                Heard::Line(line) => line,
                Heard::Cleared => continue,
                Heard::End => return Ok(()),
            };
            match self.obey(Line::read(&line)).await {
                Ok(Next::Listen) => {}
                Ok(Next::Leave) => return Ok(()),
                // A person can try again; a script cannot see that it should. A terminal that is gone is gone.
                Err(error) if self.terminal.is_live() && !error.is::<io::Error>() => {
                    self.terminal.note(&format!("{error:#}"))?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a line, and meanwhile tells what is learnt, where that disturbs nobody.
    async fn listen(&mut self) -> anyhow::Result<Heard> {
        let follows = self.terminal.shows_above();
        loop {
            tokio::select! {
                biased;
                wish = self.signals.next() => match wish {
                    Wish::Interrupt if self.terminal.is_live() => self.terminal.clear()?,
                    Wish::Interrupt => return Ok(Heard::End),
                    Wish::Leave => {
                        self.terminal.leave().await?;
                        return Ok(Heard::End);
                    }
                },
                heard = self.terminal.hear() => return Ok(heard?),
                look = next_look(&mut self.follower), if follows => self.tell(look)?,
            }
        }
    }

    async fn obey(&mut self, line: Line) -> anyhow::Result<Next> {
        match line {
            Line::Nothing => {}
            Line::Say(text) => return self.say(text).await,
            Line::Retry => return self.retry().await,
            Line::Rate { rating, text } => self.rate(rating, text).await?,
            Line::Learnt => self.tell_the_story().await?,
            Line::Wishes => self.tell_the_wishes().await?,
            Line::Forget(Some(wish)) => {
                let node = self.follower.as_ref().context("wishes cannot be withdrawn from here")?.node();
                // Those of others are not this chat's to withdraw.
                if !node.wishes().await?.iter().any(|known| known.wish == wish && known.person.is_none()) {
                    self.terminal.note(&format!("no wish {wish} of yours stands; /wishes shows them"))?;
                    return Ok(Next::Listen);
                }
                let done = node.operate(Command::ForgetWish { wish }).await?;
                self.terminal.note(&done.message)?;
            }
            Line::Forget(None) => self.terminal.note("say which: /forget and a number that /wishes shows")?,
            Line::New => {
                self.end().await?;
                self.begin();
            }
            Line::Help => self.terminal.note(COMMANDS)?,
            Line::Quit => return Ok(Next::Leave),
            Line::Unknown(command) => {
                self.terminal.note(&format!("{command} is no command; /help tells them"))?;
            }
        }
        Ok(Next::Listen)
    }

    /// A message without a reply is forgotten.
    async fn say(&mut self, text: String) -> anyhow::Result<Next> {
        self.messages.push(json!({"role": "user", "content": text}));
        let answered = self.last_reply.clone();
        let replied = self.reply(false).await;
        // One that was refused, or cut, has been heard all the same.
        if let Some(answered) = answered
            && !replied.as_ref().is_err_and(is_unsent)
        {
            self.learnt.followed(&answered);
        }
        if self.messages.last().is_some_and(|last| last["role"] == "user") {
            self.messages.pop();
        }
        replied
    }

    async fn retry(&mut self) -> anyhow::Result<Next> {
        let before = self.messages.pop().context("there is nothing to ask again yet")?;
        let replied = self.reply(true).await;
        if self.messages.last().is_some_and(|last| last["role"] == "user") {
            self.messages.push(before);
        }
        replied
    }

    /// Has the messages answered, shows the reply as it comes, and keeps it if it comes to its end.
    async fn reply(&mut self, again: bool) -> anyhow::Result<Next> {
        self.has_spoken = true;
        let unechoed = self.terminal.unechoed();
        let replied = tokio::select! {
            biased;
            wish = self.signals.next() => Err(wish),
            replied = draw(&self.gateway, &self.session, &self.messages, &mut self.terminal) => Ok(replied),
        };
        drop(unechoed);
        let Replied { id, text, version } = match replied {
            Ok(replied) => replied?,
            Err(Wish::Interrupt) if self.terminal.is_live() => {
                self.terminal.note("cut: it is not kept, and nothing is learnt from it")?;
                return Ok(Next::Listen);
            }
            Err(_) => return Ok(Next::Leave),
        };
        self.messages.push(json!({"role": "assistant", "content": text}));
        let number = self.learnt.replied(&id, again);
        self.last_reply = Some(id);
        let version = version.map_or_else(String::new, |version| format!(", version {version}"));
        self.terminal.mark(&format!("[reply {number}{version}]"))?;
        if self.terminal.is_live() {
            self.look().await?;
        }
        Ok(Next::Listen)
    }

    async fn rate(&mut self, rating: i8, text: Option<String>) -> anyhow::Result<()> {
        let reply = self.last_reply.as_deref().context("there is no reply to rate yet")?;
        let is_bare = text.is_none();
        let status = self.gateway.rate(reply, rating, text).await?;
        if status == "applied" {
            self.learnt.followed(reply);
        }
        let words = match status.as_str() {
            "applied" if rating > 0 => "rated as good",
            "applied" if is_bare => "rated as bad; what you say next may tell why",
            "applied" => "rated as bad",
            "too_late" => "too late: it is judged by what came before",
            "not_trained" => "this reply is not trained on",
            other => other,
        };
        Ok(self.terminal.note(words)?)
    }

    async fn tell_the_story(&mut self) -> anyhow::Result<()> {
        if self.follower.is_none() {
            return Ok(self.terminal.note("what is learnt cannot be shown here")?);
        }
        self.look().await?;
        let story = self.learnt.story(false);
        if story.is_empty() {
            self.terminal.note("nobody has said anything yet")?;
        }
        Ok(story.iter().try_for_each(|line| self.terminal.note(line))?)
    }

    /// Those of whoever talks without a name, as this chat does.
    async fn tell_the_wishes(&mut self) -> anyhow::Result<()> {
        let Some(follower) = &self.follower else {
            return Ok(self.terminal.note("wishes cannot be shown here")?);
        };
        let mut standing = follower.node().wishes().await?;
        standing.retain(|wish| wish.person.is_none());
        if standing.is_empty() {
            let none = "no wish stands; with `remember_hints` of [actors.judge], /bad WORDS makes one";
            self.terminal.note(none)?;
        }
        Ok(standing
            .iter()
            .try_for_each(|wish| self.terminal.note(&format!("{}  {}", wish.wish, wish.text)))?)
    }

    /// Looks once, for as long as whoever reads it waits.
    async fn look(&mut self) -> anyhow::Result<()> {
        let patience = if self.terminal.is_live() { LOOK_PATIENCE } else { ONLY_LOOK_PATIENCE };
        let Some(follower) = &mut self.follower else { return Ok(()) };
        match timeout(patience, follower.look()).await {
            Ok(look) => self.tell(look),
            Err(_) => Ok(()),
        }
    }

    fn tell(&mut self, look: Result<Option<Look>, ClientError>) -> anyhow::Result<()> {
        match look {
            Ok(look) => {
                self.is_out_of_sight = false;
                let lines = self.learnt.see(look);
                if let Some(follower) = &mut self.follower {
                    follower.leave(|session| self.learnt.is_under_way_in(session));
                }
                // Off a terminal the story at the end has it, in the order of the replies.
                if self.terminal.is_live() {
                    lines.iter().try_for_each(|line| self.terminal.note(line))?;
                }
            }
            Err(error) if !std::mem::replace(&mut self.is_out_of_sight, true) => {
                let error = anyhow::Error::new(error);
                self.terminal.note(&format!("what is learnt cannot be seen at the moment: {error:#}"))?;
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Ends the session, waits for what is still to be learnt where that is asked for, and sums it up.
    async fn end(&mut self) -> anyhow::Result<()> {
        if !self.has_spoken {
            return Ok(());
        }
        // First: whatever fails now, the session is over.
        let ended = self.gateway.end(&self.session).await;
        self.has_spoken = false;
        self.see_the_rest().await?;
        if !self.terminal.is_live() && self.follower.is_some() {
            self.learnt.story(ended.is_ok()).iter().try_for_each(|line| self.terminal.note(line))?;
        }
        let summary = self.learnt.summary().unwrap_or_else(|| "no replies".to_owned());
        let what = if ended.is_ok() { "session ended" } else { "session left open" };
        self.terminal.note(&format!("{what}: {summary}"))?;
        ended.context("the gateway was not told that the session is over")
    }

    async fn see_the_rest(&mut self) -> anyhow::Result<()> {
        if self.follower.is_none() {
            return Ok(());
        }
        let mut waited = pin!(tokio::time::sleep(self.wait.unwrap_or_default()));
        self.look().await?;
        if self.wait.is_none() {
            return Ok(());
        }
        if self.terminal.is_live() && self.learnt.is_under_way() {
            self.terminal.note("waiting for what is still to be learnt; Ctrl-C leaves")?;
        }
        while self.learnt.is_under_way() {
            tokio::select! {
                _ = self.signals.next() => break,
                () = &mut waited => break,
                look = next_look(&mut self.follower) => self.tell(look)?,
            }
        }
        Ok(())
    }
}

/// The gateway cannot have heard it.
fn is_unsent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// A reply that came to its end.
struct Replied {
    id: String,
    text: String,
    version: Option<String>,
}

/// Has `messages` answered, and writes the reply as it comes.
async fn draw(
    gateway: &Gateway,
    session: &str,
    messages: &[Value],
    terminal: &mut Terminal,
) -> anyhow::Result<Replied> {
    let mut replying = gateway.reply(session, messages).await?;
    let (mut text, mut is_thinking) = (String::new(), false);
    while let Some(piece) = replying.next().await? {
        match piece {
            Piece::Thought(thought) => {
                is_thinking = true;
                terminal.piece(&thought, true)?;
            }
            Piece::Text(words) => {
                if std::mem::take(&mut is_thinking) {
                    terminal.end_line()?;
                }
                text.push_str(&words);
                terminal.piece(&words, false)?;
            }
        }
    }
    Ok(Replied { id: replying.id.unwrap_or_default(), text, version: replying.version })
}

/// Never, where nobody is followed.
async fn next_look(follower: &mut Option<Follower>) -> Result<Option<Look>, ClientError> {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}
