//! What can be opened: all about one actor, and the keys.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph},
};

use super::{
    draw::pane_rows,
    state::{Pane, State, way_back},
};
use crate::{
    admin::{ActorStatus, InboxView},
    cells::wrap,
    measures::span,
};

/// Cells of what stands before each line.
const LABEL_CELLS: usize = 11;

const KEYS: [(&str, &str); 12] = [
    ("↑ ↓  j k", "choose an actor"),
    ("Tab", "the next that failed or is stuck"),
    ("Enter  →", "all about it, its whole error"),
    ("PgUp PgDn", "further up, further down"),
    ("r", "restart it"),
    ("p", "pause its role, or resume it"),
    ("d", "drain it: it finishes, and stays down"),
    ("K", "kill it, as a crash would"),
    ("y n", "answer the question"),
    ("Esc  ←", "close what is open, or end"),
    ("?", "these keys"),
    ("q  Ctrl-C", "end"),
];

/// Draws what is open.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let (title, line) = match state.pane {
        Pane::Load => return,
        Pane::Detail(line) => (state.chosen.clone().unwrap_or_default(), line),
        Pane::Help(line) => ("keys".to_owned(), line),
    };
    let lines = lines(state, area.width.into());
    let inside = usize::from(area.height.saturating_sub(1));
    let first = line.min(lines.len().saturating_sub(inside));
    let more = lines.len().saturating_sub(first + inside);
    let title = if more > 0 { format!(" {title}: {more} more lines, PgDn ") } else { format!(" {title} ") };
    let block = Block::new().borders(Borders::TOP).title(title);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block).scroll((first as u16, 0)), area);
}

/// The furthest line that can be scrolled to.
pub fn most_scroll(state: &State) -> usize {
    lines(state, state.size.0.into()).len().saturating_sub(pane_rows(state.size) / 2)
}

fn lines(state: &State, columns: usize) -> Vec<Line<'static>> {
    match state.pane {
        Pane::Load => Vec::new(),
        Pane::Detail(_) => state.actor().map(|actor| detail(state, actor, columns)).unwrap_or_default(),
        Pane::Help(_) => {
            KEYS.iter().flat_map(|(key, does)| labelled(key, does, Style::new(), columns)).collect()
        }
    }
}

fn detail(state: &State, actor: &ActorStatus, columns: usize) -> Vec<Line<'static>> {
    let ActorStatus { state: word, restarts, version, up_secs, inbox, last_error, last_error_secs, .. } =
        actor;
    let plain = Style::new();
    let up = up_secs.map_or_else(String::new, |secs| format!(", up {}", span(secs)));
    let times = if *restarts == 1 { "restart" } else { "restarts" };
    let mut lines =
        labelled("state", &format!("{word}{up}, {restarts} {times}"), state.style_of(word), columns);
    let mut add = |label: &str, told: &str| lines.extend(labelled(label, told, plain, columns));
    if let Some(command) = way_back(actor) {
        add("way back", &command);
    }
    if !actor.detail.is_empty() {
        add("at", &actor.detail);
    }
    if let Some(advice) = &actor.advice {
        add("look into", advice);
    }
    if let Some(version) = version {
        add("version", &version.to_string());
    }
    if let Some(inbox) = inbox {
        add("inbox", &told(inbox, &actor.role));
    }
    if let Some(error) = last_error {
        add("last error", &format!("{} ago", span(last_error_secs.unwrap_or_default())));
        lines.extend(wrap(error, columns).into_iter().map(Line::raw));
    }
    lines
}

fn told(inbox: &InboxView, role: &str) -> String {
    let InboxView { waiting, leased, capacity, oldest_wait_secs, dead_letters, paused } = inbox;
    let mut told = format!("of every {role}: {waiting} waiting, {leased} leased, room for {capacity}");
    if *waiting > 0 {
        told += &format!("; the oldest waits {}", span(*oldest_wait_secs));
    }
    if *paused {
        told += "; paused";
    }
    told += &match dead_letters {
        0 => "; no dead letters".to_owned(),
        dead => format!("; {dead} dead letters: openclaw-rl dead list"),
    };
    told
}

fn labelled(label: &str, told: &str, style: Style, columns: usize) -> Vec<Line<'static>> {
    let faint = Style::new().add_modifier(Modifier::DIM);
    let wrapped = wrap(told, columns.saturating_sub(LABEL_CELLS));
    let labels = [label].into_iter().chain(std::iter::repeat(""));
    let line = |(label, text): (&str, String)| {
        Line::from(vec![Span::styled(format!("{label:<LABEL_CELLS$}"), faint), Span::styled(text, style)])
    };
    labels.zip(wrapped).map(line).collect()
}
