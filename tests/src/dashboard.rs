//! Grafana's dashboards as we write them. A key that is not listed here is refused: a mistyped one would be ignored by
//! Grafana, and a panel be empty.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

/// A dashboard in the classic model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct Dashboard {
    pub uid: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub schema_version: u32,
    pub version: u32,
    pub editable: bool,
    pub graph_tooltip: u32,
    pub refresh: String,
    pub time: Value,
    pub timezone: String,
    pub links: Vec<Value>,
    pub templating: Value,
    pub annotations: Annotations,
    pub panels: Vec<Panel>,
}

/// Marks on the time axis.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct Annotations {
    pub list: Vec<Annotation>,
}

/// One kind of mark.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct Annotation {
    pub name: String,
    pub datasource: Value,
    pub enable: bool,
    pub icon_color: String,
    pub expr: String,
    pub title_format: String,
}

/// A panel, or the heading of a row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct Panel {
    pub id: u32,
    pub r#type: String,
    pub title: String,
    #[serde(default)]
    pub description: String,
    pub grid_pos: GridPos,
    #[serde(default)]
    pub datasource: Value,
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(default)]
    pub field_config: Value,
    #[serde(default)]
    pub options: Value,
    #[serde(default)]
    pub transformations: Vec<Value>,
    #[serde(default)]
    pub collapsed: bool,
    #[serde(default)]
    pub panels: Vec<Value>,
}

/// Where a panel lies, in columns of 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct GridPos {
    pub x: u32,
    pub y: u32,
    pub w: u32,
    pub h: u32,
}

/// One expression of a panel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "Grafana's own words")]
pub struct Target {
    pub ref_id: String,
    pub expr: String,
    pub legend_format: String,
    #[serde(default)]
    pub format: String,
    #[serde(default)]
    pub instant: bool,
}

/// An expression, and where it stands.
#[derive(Debug)]
pub struct Expression {
    /// `overview: First token, p95`
    pub place: String,
    /// PromQL, Grafana's variables included.
    pub promql: String,
    /// Asked for the present alone.
    pub instant: bool,
}

/// The folder `dashboards/`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

impl Dashboard {
    /// Every shipped dashboard, by file name. Panics, with the reason, on one that cannot be read.
    pub fn all() -> Vec<(String, Self)> {
        let mut found: Vec<(String, Self)> = std::fs::read_dir(folder().join("grafana"))
            .expect("the folder is there")
            .map(|entry| entry.expect("it can be listed").path())
            .map(|path| {
                let text = std::fs::read_to_string(&path).expect("a dashboard is text");
                let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
                let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                (name, board)
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Panels that show something.
    pub fn shown(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.r#type != "row")
    }

    /// What is asked of Prometheus.
    pub fn expressions(&self, name: &str) -> Vec<Expression> {
        let panels = self.shown().flat_map(|panel| {
            panel.targets.iter().map(move |target| Expression {
                place: format!("{name}: {} {}", panel.title, target.ref_id),
                promql: target.expr.clone(),
                instant: target.instant,
            })
        });
        let marks = self.annotations.list.iter().map(|mark| Expression {
            place: format!("{name}: {}", mark.name),
            promql: mark.expr.clone(),
            instant: false,
        });
        panels.chain(marks).collect()
    }
}

/// The names of series in PromQL, or in any text that contains some: ours, and those of the process and the scrape.
pub fn series_names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !word(c))
        .filter(|name| {
            ["openclaw_", "openclaw:", "process_", "scrape_"].iter().any(|ours| name.starts_with(ours))
        })
        .map(str::to_owned)
        .collect()
}
