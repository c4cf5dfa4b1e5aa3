//! The picture: a line about the node, what needs the operator, the actors, whether it learns, and what the keys do.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    actors, load, pane,
    state::{Pane, Prompt, State, is_sick, way_back},
};
use crate::{
    admin::{ActorStatus, Command, NodeStatus},
    cells::{fit, width, wrap},
    measures::span,
};

/// Rows that the actors keep when something is to be shown below them.
const ACTOR_ROWS: u16 = 8;
/// From this height on the actors stay in view beside the detail.
const BESIDE_ROWS: u16 = 18;
/// Cells of a reason that are worth a line with what brings the actor back.
const REASON_CELLS: usize = 30;
/// Between two things on a line.
const GAP: &str = "  ";

/// Draws the view.
pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let columns = area.width.into();
    let prompt = prompt(state, columns);
    let alerts = shortened(alerts(state, columns), (area.height / 4).max(1).into());
    let gap = u16::from(area.height >= 16);
    let [top, middle, _, body, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(alerts.len() as u16),
        Constraint::Length(gap),
        Constraint::Min(0),
        Constraint::Length((prompt.len() as u16).min(area.height / 3).max(1)),
    ])
    .areas(area);
    frame.render_widget(header(state, columns), top);
    frame.render_widget(Paragraph::new(alerts), middle);
    draw_body(frame, body, state);
    frame.render_widget(Paragraph::new(prompt), bottom);
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let rows = actors::rows(state);
    match state.pane {
        Pane::Load => {
            let room = area.height.saturating_sub(rows.min(ACTOR_ROWS));
            let wanted = if room < 2 { 0 } else { room.min(load::ROWS) };
            let table = rows.min(area.height.saturating_sub(wanted));
            let gap = u16::from(area.height > table + wanted);
            let [above, below] = split(area, table + gap, wanted);
            actors::draw(frame, above, state);
            load::draw(frame, below, state);
        }
        Pane::Detail(_) if area.height >= BESIDE_ROWS => {
            let table = rows.min(area.height / 2);
            let [above, below] = split(area, table, area.height - table);
            actors::draw(frame, above, state);
            pane::draw(frame, below, state);
        }
        Pane::Detail(_) | Pane::Help(_) => pane::draw(frame, area, state),
    }
    if state.gone.is_some() {
        frame.buffer_mut().set_style(area, Style::new().add_modifier(Modifier::DIM));
    }
}

fn split(area: Rect, above: u16, below: u16) -> [Rect; 2] {
    // Whatever is left over stays empty, below both.
    let [above, below, _] =
        Layout::vertical([Constraint::Length(above), Constraint::Length(below), Constraint::Min(0)])
            .areas(area);
    [above, below]
}

/// Rows that a pane beside the header, the alerts and the prompt has at least, for whoever scrolls in it.
pub fn pane_rows(size: (u16, u16)) -> usize {
    size.1.saturating_sub(3).into()
}

fn header(state: &State, columns: usize) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(status) = &state.status else {
        let word = if state.gone.is_some() { "no node" } else { "looking …" };
        return Line::styled(word, bold);
    };
    let NodeStatus { run, node, version, sessions, journal, .. } = status;
    let (word, journal_style) = match (journal.healthy, journal.detail.as_str()) {
        (true, "") => ("journal ok".to_owned(), Style::new()),
        (true, detail) => (format!("journal ok, {}", fit(detail, 16)), Style::new()),
        (false, _) => ("journal FAILING".to_owned(), state.alarm()),
    };
    let mut parts = vec![
        (0, Span::styled(fit(run, columns.min(40)), bold)),
        (6, Span::raw(format!("on {}", fit(node, 24)))),
        (2, Span::raw(format!("version {version}"))),
        (5, Span::raw(format!("{sessions} sessions"))),
        (3, Span::raw(format!("up {}", span(status.uptime_secs)))),
        (4, Span::styled(word, journal_style)),
    ];
    if status.stopping {
        parts.insert(1, (1, Span::styled("STOPPING", state.alarm())));
    }
    one_line(parts, columns)
}

/// As many of these as fit, the lowest numbers first, in their order.
fn one_line(mut parts: Vec<(u8, Span<'static>)>, columns: usize) -> Line<'static> {
    let wide =
        |parts: &[(u8, Span<'_>)]| -> usize { parts.iter().map(|(_, part)| part.width() + GAP.len()).sum() };
    while wide(&parts) > columns + GAP.len() && parts.len() > 1 {
        let least = parts.iter().map(|(rank, _)| *rank).max().expect("there are two");
        parts.retain(|(rank, _)| *rank != least);
    }
    let mut line = Line::default();
    for (i, (_, part)) in parts.into_iter().enumerate() {
        if i > 0 {
            line.push_span(Span::raw(GAP));
        }
        line.push_span(part);
    }
    line
}

/// What needs the operator, each with what to do below it or beside it.
fn alerts(state: &State, columns: usize) -> Vec<Vec<Line<'static>>> {
    let mut alerts = Vec::new();
    if let Some(silence) = state.silence() {
        let secs = span(silence.as_secs_f64());
        let told = match (&state.gone, &state.status) {
            (None, _) => format!("NO ANSWER for {secs}; it is still asked"),
            (Some(why), None) => format!("GONE: {why}"),
            (Some(why), Some(_)) => format!("GONE for {secs}: {why}"),
        };
        let lines = wrap(&told, columns).into_iter().take(3);
        alerts.push(lines.map(|line| Line::styled(line, state.alarm())).collect());
    }
    let Some(status) = &state.status else { return alerts };
    if !status.journal.healthy {
        let told = fit(&format!("journal FAILING: {}", status.journal.detail), columns);
        alerts.push(vec![Line::styled(told, state.alarm())]);
    }
    alerts.extend(
        status.actors.iter().filter(|actor| is_sick(actor)).map(|actor| alert(state, actor, columns)),
    );
    alerts
}

/// On one line when it fits, else on two.
fn alert(state: &State, actor: &ActorStatus, columns: usize) -> Vec<Line<'static>> {
    let ActorStatus { name, state: word, last_error, last_error_secs, .. } = actor;
    let silent = if word == "stuck" { "does not answer" } else { "ended too often" };
    let ago = last_error_secs.map(|secs| format!(" ({} ago)", span(secs))).unwrap_or_default();
    let reason = format!("{}{ago}", last_error.as_deref().unwrap_or(silent));
    let mut what = vec![
        Span::styled(format!("{} {}", fit(name, 24), word.to_uppercase()), state.alarm()),
        Span::raw(GAP),
    ];
    let back = Span::styled(way_back(actor).unwrap_or_default(), Style::new().add_modifier(Modifier::BOLD));
    let left = columns.saturating_sub(what.iter().map(Span::width).sum());
    let beside = left.saturating_sub(back.width() + GAP.len());
    if width(&reason) <= beside || beside >= REASON_CELLS {
        what.extend([Span::raw(fit(&reason, beside)), Span::raw(GAP), back]);
        return vec![Line::from(what)];
    }
    what.push(Span::raw(fit(&reason, left)));
    vec![Line::from(what), Line::from(vec![Span::raw(GAP), back])]
}

/// At most this many lines of them: what each is about stays, before what is below it.
fn shortened(mut alerts: Vec<Vec<Line<'static>>>, most: usize) -> Vec<Line<'static>> {
    if alerts.iter().map(Vec::len).sum::<usize>() > most {
        alerts.iter_mut().for_each(|alert| alert.truncate(1));
    }
    let count = alerts.len();
    let mut lines = alerts.concat();
    if count > most {
        lines.truncate(most - 1);
        let more = match lines.len() {
            0 => format!("{count} need you"),
            shown => format!("and {} more", count - shown),
        };
        lines.push(Line::raw(format!("{more}: Tab goes to the next")));
    }
    lines
}

fn prompt(state: &State, columns: usize) -> Vec<Line<'static>> {
    let (text, style) = match &state.prompt {
        Prompt::Keys => return vec![keys(state, columns)],
        Prompt::Question(command) => {
            (format!("{}  y/n", question(command)), Style::new().add_modifier(Modifier::REVERSED))
        }
        Prompt::UnderWay(what) => (what.clone(), Style::new()),
        Prompt::Done(said) => (said.clone(), state.colour(Color::Green).add_modifier(Modifier::BOLD)),
        Prompt::Refused(said) => (format!("refused: {said}"), state.alarm()),
    };
    wrap(&text, columns).into_iter().map(|line| Line::styled(line, style)).collect()
}

fn question(command: &Command) -> String {
    let (verb, target) = (command.verb(), command.target());
    let effect = match command {
        Command::Kill { .. } => " as a crash would",
        Command::Pause { .. } => ": hand it no further work",
        Command::Drain { .. } => ": let it finish, then keep it down",
        _ => "",
    };
    format!("{verb} {target}{effect}?")
}

fn keys(state: &State, columns: usize) -> Line<'static> {
    let pause = match state.actor() {
        Some(actor) if matches!(actor.state.as_str(), "paused" | "stopped") => "resume",
        _ => "pause",
    };
    let hints = match state.pane {
        Pane::Load => vec![
            (7, "↑↓", "choose"),
            (2, "⏎", "detail"),
            (3, "r", "restart"),
            (4, "p", pause),
            (5, "d", "drain"),
            (6, "K", "kill"),
            (1, "?", "keys"),
            (0, "q", "end"),
        ],
        Pane::Detail(_) => {
            vec![
                (3, "↑↓", "choose"),
                (4, "PgDn", "more"),
                (2, "r", "restart"),
                (1, "?", "keys"),
                (0, "Esc", "back"),
            ]
        }
        Pane::Help(_) => vec![(1, "↑↓", "more"), (0, "Esc", "back")],
    };
    let faint = Style::new().add_modifier(Modifier::DIM);
    one_line(
        hints
            .into_iter()
            .map(|(rank, key, does)| (rank, Span::styled(format!("{key} {does}"), faint)))
            .collect(),
        columns,
    )
}

impl State {
    /// This colour, where colours are wanted.
    pub fn colour(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// For what needs the operator.
    pub fn alarm(&self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// For a state's word.
    pub fn style_of(&self, state: &str) -> Style {
        match state {
            "running" => self.colour(Color::Green),
            "failed" | "stuck" => self.alarm(),
            "stopped" => Style::new().add_modifier(Modifier::DIM),
            _ => self.colour(Color::Yellow),
        }
    }
}
