//! The actors' table: columns go by importance where it is narrow, rows follow the chosen one where it is low.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table},
};

use super::state::State;
use crate::{
    cells::{fit, width},
    operate::table,
};

/// Cells that the last column keeps when others go.
const DETAIL_CELLS: usize = 18;
/// Cells between two columns.
const GAP: usize = 2;
/// Stands before the chosen one, and before the others.
const CHOSEN: &str = "▸";
const NOT_CHOSEN: &str = " ";
/// Columns of the plain table in the order in which they go, and the last of all.
const GOING: [usize; 4] = [2, 4, 3, 5];
const NAME: usize = 0;
const STATE: usize = 1;
const DETAIL: usize = 6;

/// Rows that all of them take, with the heading.
pub fn rows(state: &State) -> u16 {
    state.actors().len() as u16 + 1
}

/// Draws them.
pub fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    if state.status.is_none() {
        return;
    }
    let all: Vec<[String; 7]> = state.actors().iter().map(table::row).collect();
    if all.is_empty() {
        frame.render_widget(Paragraph::new("it is starting"), area);
        return;
    }
    let columns = Columns::fitting(&all, area.width.into());
    let visible = usize::from(area.height.saturating_sub(1));
    let chosen = state.row().unwrap_or_default();
    // The chosen one in the middle, but no empty rows at the end.
    let first = chosen.saturating_sub(visible / 2).min(all.len().saturating_sub(visible));
    let last = (first + visible).min(all.len());
    let mut headings = table::HEADINGS.map(str::to_owned);
    if last - first < all.len() {
        headings[DETAIL] = format!("{} {}-{last} of {}", headings[DETAIL], first + 1, all.len());
    }
    let line = |cells: &[String; 7], mark: &str, style_of_state: Style| {
        Row::new(columns.shown.iter().map(|column| {
            let text = fit(&cells[*column], columns.widths[*column]);
            match *column {
                NAME => Cell::from(format!("{mark}{text}")),
                STATE => Cell::from(text).style(style_of_state),
                DETAIL => Cell::from(text),
                _ => Cell::from(Line::from(text).right_aligned()),
            }
        }))
    };
    let rows =
        all.iter().zip(state.actors()).enumerate().take(last).skip(first).map(|(i, (cells, actor))| {
            let row =
                line(cells, if i == chosen { CHOSEN } else { NOT_CHOSEN }, state.style_of(&actor.state));
            let emphasis = if i == chosen { Modifier::BOLD } else { Modifier::empty() };
            row.style(Style::new().add_modifier(emphasis))
        });
    let constraints = columns.shown.iter().map(|column| {
        let mark = if *column == NAME { width(CHOSEN) } else { 0 };
        Constraint::Length((columns.widths[*column] + mark) as u16)
    });
    let table = Table::new(rows, constraints)
        .header(line(&headings, NOT_CHOSEN, Style::new()).style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(GAP as u16);
    frame.render_widget(table, area);
}

struct Columns {
    shown: Vec<usize>,
    widths: [usize; 7],
}

impl Columns {
    /// As many as leave enough for the last one.
    fn fitting(rows: &[[String; 7]], columns: usize) -> Self {
        let mut widths: [usize; 7] = std::array::from_fn(|i| {
            let cells = rows.iter().map(|row| width(&row[i])).chain([width(table::HEADINGS[i])]);
            cells.max().unwrap_or_default()
        });
        let mut shown: Vec<usize> = (0..widths.len()).collect();
        let fixed = |shown: &[usize], widths: &[usize; 7]| {
            let cells = shown.iter().filter(|column| **column != DETAIL).map(|column| widths[*column] + GAP);
            width(CHOSEN) + cells.sum::<usize>()
        };
        let wanted = widths[DETAIL].min(DETAIL_CELLS);
        for going in GOING {
            if fixed(&shown, &widths) + wanted > columns {
                shown.retain(|column| *column != going);
            }
        }
        widths[DETAIL] = columns.saturating_sub(fixed(&shown, &widths));
        Self { shown, widths }
    }
}
