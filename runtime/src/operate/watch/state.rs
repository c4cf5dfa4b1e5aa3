//! What the view knows, and what a look, a key or an answer makes of it.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::pane;
use crate::{
    admin::{ActorStatus, Command, NodeStatus},
    printable::printable,
};

/// A node that has not answered for this long is waited for, visibly.
const PATIENCE: Duration = Duration::from_secs(3);
/// What a page key moves by.
const PAGE_ROWS: usize = 8;

/// What is to be done outside the view.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ends it.
    Quit,
    /// Has the node do it.
    Operate(Command),
}

/// What lies over or below the actors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// Whether it learns.
    #[default]
    Load,
    /// All about the chosen actor, from this line on.
    Detail(usize),
    /// The keys, from this line on.
    Help(usize),
}

/// The last lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Prompt {
    /// What can be done.
    #[default]
    Keys,
    /// Asks before it is done.
    Question(Command),
    /// It is being done.
    UnderWay(String),
    /// It was done.
    Done(String),
    /// It was not.
    Refused(String),
}

/// The view.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The node, as it last answered. Nothing in it can be obeyed by a terminal.
    pub status: Option<NodeStatus>,
    /// Why it does not answer.
    pub gone: Option<String>,
    /// The chosen actor.
    pub chosen: Option<String>,
    /// What is shown beside the actors.
    pub pane: Pane,
    /// What is said at the bottom.
    pub prompt: Prompt,
    /// Colours are wanted.
    pub colours: bool,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// Somebody chose it; else it is whoever needs help.
    by_hand: bool,
    /// Since the view began.
    now: Duration,
    /// When the node last answered.
    answered: Duration,
}

impl State {
    /// Before the first look.
    pub fn new(colours: bool, size: (u16, u16)) -> Self {
        Self { colours, size, ..Self::default() }
    }

    /// Time passes.
    pub fn on_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// The node answered, or it is told why it does not.
    pub fn on_look(&mut self, look: Result<NodeStatus, String>) {
        match look {
            Ok(status) => {
                self.choose_again(&status);
                self.status = Some(shown(status));
                self.gone = None;
                self.answered = self.now;
            }
            Err(why) => self.gone = Some(why),
        }
    }

    /// What the node said to an order, or why nothing came of it.
    pub fn on_answer(&mut self, answer: Result<String, String>) {
        let (Ok(said) | Err(said)) = &answer;
        let said = printable(said).into_owned();
        // A question that was asked meanwhile waits for its key.
        if !matches!(self.prompt, Prompt::Question(_)) {
            self.prompt = if answer.is_ok() { Prompt::Done(said) } else { Prompt::Refused(said) };
        }
    }

    /// How long the node has not answered, once that is long.
    pub fn silence(&self) -> Option<Duration> {
        let silence = self.now.saturating_sub(self.answered);
        (self.gone.is_some() || silence > PATIENCE).then_some(silence)
    }

    /// The actors.
    pub fn actors(&self) -> &[ActorStatus] {
        self.status.as_ref().map(|status| status.actors.as_slice()).unwrap_or_default()
    }

    /// The chosen one's row.
    pub fn row(&self) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        self.actors().iter().position(|actor| actor.name == *chosen)
    }

    /// The chosen one.
    pub fn actor(&self) -> Option<&ActorStatus> {
        Some(&self.actors()[self.row()?])
    }

    /// Keeps the choice, or takes who is in its row when it is gone; until somebody chooses, whoever needs help.
    fn choose_again(&mut self, status: &NodeStatus) {
        let actors = &status.actors;
        let chosen = actors.iter().position(|actor| self.chosen.as_ref() == Some(&actor.name));
        let sick = actors.iter().position(is_sick).filter(|_| !self.by_hand);
        let row = sick.or(chosen).or(self.row()).unwrap_or_default().min(actors.len().saturating_sub(1));
        self.chosen = actors.get(row).map(|actor| actor.name.clone());
    }

    /// A key was pressed.
    pub fn on_key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if with_control => return Some(Action::Quit),
            KeyCode::Char(_) if with_control || key.modifiers.contains(KeyModifiers::ALT) => return None,
            _ => {}
        }
        if let Prompt::Question(command) = &self.prompt {
            let command = command.clone();
            return self.on_reply(key.code, command);
        }
        // Whoever presses a key has read the answer.
        if !matches!(self.prompt, Prompt::UnderWay(_)) {
            self.prompt = Prompt::Keys;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Esc | KeyCode::Left if self.pane != Pane::Load => self.pane = Pane::Load,
            KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Char('?') => {
                self.pane = if matches!(self.pane, Pane::Help(_)) { Pane::Load } else { Pane::Help(0) };
            }
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') if self.actor().is_some() => {
                self.pane = Pane::Detail(0);
                self.by_hand = true;
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.page(1),
            KeyCode::PageUp => self.page(-1),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Tab => self.next_sick(),
            KeyCode::Char(verb) => self.ask(verb),
            _ => {}
        }
        None
    }

    fn on_reply(&mut self, key: KeyCode, command: Command) -> Option<Action> {
        match key {
            KeyCode::Char('y' | 'Y') => {
                self.prompt = Prompt::UnderWay(format!("{} {} …", command.verb(), command.target()));
                Some(Action::Operate(command))
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                self.prompt = Prompt::Keys;
                None
            }
            _ => None,
        }
    }

    /// Asks before what this key stands for is done to the chosen actor.
    fn ask(&mut self, key: char) {
        let Some(ActorStatus { name, role, state, inbox, .. }) = self.actor() else { return };
        let name = || name.clone();
        let is_paused = state == "paused" || inbox.as_ref().is_some_and(|inbox| inbox.paused);
        let command = match key {
            'r' => Command::Restart { name: name(), drain: false },
            'd' => Command::Drain { name: name() },
            'K' => Command::Kill { name: name() },
            'p' if state == "stopped" => Command::Resume { name: name() },
            // Its work waits in one inbox with that of all of its role.
            'p' if is_paused => Command::Resume { name: role.clone() },
            'p' => Command::Pause { name: role.clone() },
            _ => return,
        };
        self.prompt = Prompt::Question(command);
        self.by_hand = true;
    }

    fn step(&mut self, by: isize) {
        match self.pane {
            Pane::Help(_) => self.scroll(by),
            Pane::Load | Pane::Detail(_) => {
                self.choose(self.row().map_or(0, |row| row.saturating_add_signed(by)))
            }
        }
    }

    fn page(&mut self, by: isize) {
        match self.pane {
            Pane::Load => {
                let row = self.row().unwrap_or_default();
                self.choose(row.saturating_add_signed(by * PAGE_ROWS as isize));
            }
            Pane::Detail(_) | Pane::Help(_) => self.scroll(by * PAGE_ROWS as isize / 2),
        }
    }

    fn scroll(&mut self, by: isize) {
        let most = pane::most_scroll(self);
        let moved = |line: usize| line.min(most).saturating_add_signed(by).min(most);
        self.pane = match self.pane {
            Pane::Load => Pane::Load,
            Pane::Detail(line) => Pane::Detail(moved(line)),
            Pane::Help(line) => Pane::Help(moved(line)),
        };
    }

    fn choose(&mut self, row: usize) {
        self.by_hand = true;
        let row = row.min(self.actors().len().saturating_sub(1));
        let chosen = self.actors().get(row).map(|actor| actor.name.clone());
        if chosen != self.chosen {
            self.chosen = chosen;
            if let Pane::Detail(line) = &mut self.pane {
                *line = 0;
            }
        }
    }

    fn next_sick(&mut self) {
        let (count, row) = (self.actors().len(), self.row().unwrap_or_default());
        let next = (1..=count).map(|by| (row + by) % count).find(|row| is_sick(&self.actors()[*row]));
        if let Some(row) = next {
            self.choose(row);
        }
    }
}

/// An operator is needed.
pub fn is_sick(actor: &ActorStatus) -> bool {
    matches!(actor.state.as_str(), "failed" | "stuck")
}

/// What brings an actor back, on a command line.
pub fn way_back(actor: &ActorStatus) -> Option<String> {
    let ActorStatus { name, role, state, .. } = actor;
    match state.as_str() {
        "failed" | "stuck" => Some(format!("openclaw-rl restart {name}")),
        "stopped" => Some(format!("openclaw-rl resume {name}")),
        "paused" => Some(format!("openclaw-rl resume {role}")),
        _ => None,
    }
}

/// The status without what a terminal would obey: errors may quote a model or a client.
fn shown(mut status: NodeStatus) -> NodeStatus {
    let clean = |text: &mut String| *text = printable(text).into_owned();
    for text in [&mut status.run, &mut status.node, &mut status.journal.detail] {
        clean(text);
    }
    for actor in &mut status.actors {
        for text in [&mut actor.name, &mut actor.role, &mut actor.state, &mut actor.detail] {
            clean(text);
        }
        actor.last_error.as_mut().map(clean);
        actor.advice.as_mut().map(clean);
    }
    status
}
