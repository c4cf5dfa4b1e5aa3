//! Whether it learns, and how busy it is: approval by version, and the last minutes.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph},
};

use super::state::State;
use crate::{
    admin::{LearningStatus, NodeStatus, ServingStatus},
    cells::{bars, fit},
    measures::span,
    versions::Reception,
};

/// Rows that all of it takes.
pub const ROWS: u16 = 7;
/// Cells of what stands before each line.
const LABEL_CELLS: usize = 11;
/// Most bars of a curve by version.
const VERSION_BARS: usize = 24;

/// A share of fewer replies is no share.
const ENOUGH_REPLIES: u64 = 3;
/// What stands for such a one.
const FEW: char = '·';

/// Draws as many lines as there is room for, the most telling first.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let Some(status) = &state.status else { return };
    let block = Block::new().borders(Borders::TOP).title(" is it learning? ");
    let columns = usize::from(area.width);
    let NodeStatus { learning, serving, .. } = status;
    let lines = vec![
        approval(state, "approved", learning, |heard| (heard.approved, heard.replies), columns),
        approval(state, "first ones", learning, |heard| (heard.first_approved, heard.first), columns),
        labelled("steps", vec![Span::raw(fit(&steps(learning), columns.saturating_sub(LABEL_CELLS)))]),
        labelled("verdicts", vec![Span::raw(fit(&verdicts(learning), columns.saturating_sub(LABEL_CELLS)))]),
        tokens(state, serving, columns),
        requests(state, serving, columns),
    ];
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn labelled(label: &str, mut told: Vec<Span<'static>>) -> Line<'static> {
    let faint = Style::new().add_modifier(Modifier::DIM);
    told.insert(0, Span::styled(format!("{label:<LABEL_CELLS$}"), faint));
    Line::from(told)
}

/// The share of replies that were approved, of those that `counted` picks, by the version that drew them.
fn approval(
    state: &State,
    label: &str,
    learning: &LearningStatus,
    counted: impl Fn(&Reception) -> (u64, u64),
    columns: usize,
) -> Line<'static> {
    let counts = learning.versions.iter().map(|heard| (heard.version, counted(heard)));
    let shares: Vec<Share> = counts
        .filter(|(_, (_, replies))| *replies > 0)
        .map(|(version, (approved, replies))| Share { version, approved, replies })
        .collect();
    // A share of one or two replies says nothing, and is not told beside one of twenty.
    let enough: Vec<&Share> = shares.iter().filter(|share| !share.is_of_few()).collect();
    let ends = (enough.first().copied().or(shares.first()), enough.last().copied().or(shares.last()));
    let (Some(first), Some(last)) = ends else {
        return labelled(label, vec![Span::raw("none has been judged yet")]);
    };
    let left = columns.saturating_sub(LABEL_CELLS);
    let mut words = last.told();
    if first.version != last.version {
        words = format!("{} → {words}", first.told());
    }
    let whole = format!("{words} replies");
    if whole.chars().count() <= left {
        words = whole;
    }
    let room = left.saturating_sub(words.chars().count() + 1).min(VERSION_BARS);
    let mut told = Vec::new();
    if shares.len() > 1 && room > 1 {
        let groups = grouped(&shares, room);
        let heights: Vec<f64> = groups.iter().map(Share::of_one).collect();
        let bars = bars(&heights, 1.0, room);
        let drawn = bars.chars().zip(&groups).map(|(bar, group)| if group.is_of_few() { FEW } else { bar });
        told.push(Span::styled(drawn.collect::<String>(), state.colour(Color::Cyan)));
        told.push(Span::raw(" "));
    }
    told.push(Span::raw(fit(&words, left)));
    labelled(label, told)
}

/// How much of what a version said was approved.
#[derive(Clone, Copy)]
struct Share {
    version: u64,
    approved: u64,
    replies: u64,
}

impl Share {
    fn of_one(&self) -> f64 {
        self.approved as f64 / self.replies as f64
    }

    fn is_of_few(&self) -> bool {
        self.replies < ENOUGH_REPLIES
    }

    fn told(&self) -> String {
        format!("v{} {:.0}% of {}", self.version, 100.0 * self.of_one(), self.replies)
    }
}

/// Neighbours together, so that there are at most `most`.
fn grouped(shares: &[Share], most: usize) -> Vec<Share> {
    let together = shares.len().div_ceil(most.max(1)).max(1);
    let sum = |group: &[Share]| Share {
        approved: group.iter().map(|share| share.approved).sum(),
        replies: group.iter().map(|share| share.replies).sum(),
        ..group[0]
    };
    shares.chunks(together).map(sum).collect()
}

fn steps(learning: &LearningStatus) -> String {
    let LearningStatus { steps, trained, withheld, loss, .. } = learning;
    let mut told = steps.to_string();
    if let Some(loss) = loss {
        told += &format!(", loss {loss:.3}");
    }
    if *withheld > 0 {
        told += &format!(", {withheld} withheld");
    }
    // Steps that are not on the disk yet are counted, their turns not.
    told += &format!(", {trained} turns kept");
    told
}

fn verdicts(learning: &LearningStatus) -> String {
    let LearningStatus { approved, rejected, neutral, hinted, .. } = learning;
    format!("{approved} good, {rejected} bad, {neutral} neutral; {hinted} hints")
}

fn tokens(state: &State, serving: &ServingStatus, columns: usize) -> Line<'static> {
    let mut numbers = serving.recent.tokens_per_sec.clone();
    numbers.push(serving.tokens_per_sec);
    let top = numbers.iter().copied().fold(0.0, f64::max);
    lately(
        state,
        "tokens/s",
        &numbers,
        serving,
        &format!("{:.0}, most {top:.0}", serving.tokens_per_sec),
        columns,
    )
}

fn requests(state: &State, serving: &ServingStatus, columns: usize) -> Line<'static> {
    let mut numbers: Vec<f64> = serving.recent.in_flight.iter().map(|count| *count as f64).collect();
    numbers.push(serving.in_flight as f64);
    let top = numbers.iter().copied().fold(0.0, f64::max);
    lately(state, "in flight", &numbers, serving, &format!("{}, most {top:.0}", serving.in_flight), columns)
}

fn lately(
    state: &State,
    label: &str,
    numbers: &[f64],
    serving: &ServingStatus,
    words: &str,
    columns: usize,
) -> Line<'static> {
    // As wide on each line, so that what happened together stands together.
    let room = columns.saturating_sub(LABEL_CELLS + 2 * LABEL_CELLS).min(60);
    let shown = numbers.len().min(room);
    let top = numbers.iter().copied().fold(0.0, f64::max);
    let secs = shown.saturating_sub(1) as f64 * serving.recent.period_secs;
    let words = if secs > 0.0 { format!("{words} in {}", span(secs)) } else { words.to_owned() };
    let bars = Span::styled(bars(numbers, top, room), state.colour(Color::Cyan));
    let left = columns.saturating_sub(LABEL_CELLS + shown + 1);
    labelled(label, vec![bars, Span::raw(" "), Span::raw(fit(&words, left))])
}
