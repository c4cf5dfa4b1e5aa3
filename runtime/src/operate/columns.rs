//! Aligned columns, and text cut to fit into one.

use crate::{
    cells::{fit, width},
    printable::printable,
};

/// A column's heading and side.
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn heading(&self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

/// A heading line and one line per row, padded to the widest cell; the last column is not.
pub fn lines<const N: usize>(columns: &[Column; N], rows: &[[String; N]]) -> Vec<String> {
    let heading: [String; N] = std::array::from_fn(|i| columns[i].heading().to_owned());
    let widths: [usize; N] = std::array::from_fn(|i| {
        let cells = rows.iter().chain([&heading]).map(|row| width(&row[i]));
        cells.max().unwrap_or_default()
    });
    let line = |row: &[String; N]| {
        let cells = columns.iter().zip(row).zip(widths).map(|((column, cell), widest)| match column {
            Column::Left(_) => format!("{cell}{}", " ".repeat(widest.saturating_sub(width(cell)))),
            Column::Right(_) => format!("{}{cell}", " ".repeat(widest.saturating_sub(width(cell)))),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&heading].into_iter().chain(rows).map(line).collect()
}

/// `text` on one line of at most `most` cells, none of which a terminal obeys.
pub fn short(text: &str, most: usize) -> String {
    fit(&printable(text), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |name: &str, count: &str| [name.to_owned(), count.to_owned(), "x y".to_owned()];
        let columns = [Column::Left("NAME"), Column::Right("N"), Column::Left("DETAIL")];
        let told = lines(&columns, &[row("judge.0", "41"), row("é", "5")]);
        assert_eq!(told, ["NAME      N  DETAIL", "judge.0  41  x y", "é         5  x y"]);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(short("a\n  bé c", 5), "a bé…");
        assert_eq!(short("a b", 3), "a b");
        assert_eq!(short("a\x1b[2J", 9), "a�[2J");
    }
}
