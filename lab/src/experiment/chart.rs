//! What experiments leave behind: files, and plots of a row for each method over a shared axis.

use std::{fs, path::Path};

use anyhow::Context;

/// Writes a file into a folder.
pub(super) fn put(dir: &Path, name: &str, text: String) -> anyhow::Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// From the top to the rows.
const TOP: f64 = 40.0;

/// A plot as SVG, 720 wide: rows below one another, one axis below them all.
pub(super) struct Chart {
    svg: String,
    left: f64,
    width: f64,
    row: f64,
    bottom: f64,
    most: f64,
}

impl Chart {
    /// Of so many rows of this height, over an axis from 0 to `most`. Names of rows have `left` pixels.
    pub(super) fn new(rows: usize, row: f64, left: f64, most: f64) -> Self {
        let bottom = TOP + row * rows as f64;
        let height = bottom + 50.0;
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
        );
        Self { svg, left, width: 680.0 - left, row, bottom, most }
    }

    /// The axis: its name, and equal parts with this many decimals.
    pub(super) fn axis(&mut self, name: &str, parts: u32, decimals: usize) {
        let bottom = self.bottom;
        for part in 0..=parts {
            let value = self.most * f64::from(part) / f64::from(parts);
            let at = self.x(value);
            self.line(format!(
                "<line x1=\"{at}\" y1=\"{TOP}\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"
            ));
            self.line(format!(
                "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{value:.decimals$}</text>",
                bottom + 16.0
            ));
        }
        self.line(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            self.left + self.width / 2.0,
            bottom + 36.0
        ));
    }

    /// Where a value is.
    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + self.width * value / self.most
    }

    /// The name of a row; where its middle is.
    pub(super) fn row(&mut self, row: usize, name: &str) -> f64 {
        let middle = TOP + self.row * (row as f64 + 0.5);
        self.line(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            self.left - 12.0,
            middle + 4.0
        ));
        middle
    }

    /// A bar at a value, `half` pixels up and down from the middle of a row.
    pub(super) fn bar(&mut self, value: f64, middle: f64, half: f64, colour: &str) {
        let at = self.x(value);
        self.line(format!(
            "<line x1=\"{at}\" y1=\"{}\" x2=\"{at}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            middle - half,
            middle + half
        ));
    }

    /// A dot at a value.
    pub(super) fn dot(&mut self, value: f64, y: f64, colour: &str, is_full: bool) {
        let (at, fill) = (self.x(value), if is_full { colour } else { "white" });
        self.line(format!(
            "<circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"/>"
        ));
    }

    /// One more element.
    pub(super) fn line(&mut self, element: String) {
        self.svg.push_str(&element);
        self.svg.push('\n');
    }

    /// The whole.
    pub(super) fn finish(self) -> String {
        self.svg + "</svg>\n"
    }
}
