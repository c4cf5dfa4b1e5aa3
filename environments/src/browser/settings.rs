//! `[environments.NAME]` of kind `browser`.
use std::path::PathBuf;

use serde::Deserialize;

use super::{
    engine::EngineOptions,
    families::{Family, Knobs},
};
use crate::{
    draw::Kinds,
    gui::{Actions, Options, Show},
    registry::within,
    world::WorldError,
};

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Families of pages made from their numbers, in turn. All three if there are neither `tasks` nor `rows`.
    pub families: Option<Vec<Family>>,
    /// Least and most buttons of a page of `gw1`, 2 to 12.
    pub buttons: (usize, usize),
    /// Least and most fields of a page of `gw2`, 1 to 6.
    pub fields: (usize, usize),
    /// Least and most boxes, or things to choose from, of a page of `gw3`, 2 to 10.
    pub choices: (usize, usize),
    /// Held-out tasks of families are of the kinds that training shows, too; otherwise of kinds of their own.
    pub seen_kinds: bool,
    /// A folder of pages: `html` of MiniWoB++ for `tasks`, or what `rows` name.
    pub pages: Option<PathBuf>,
    /// Tasks of MiniWoB++ by name, in turn.
    pub tasks: Option<Vec<String>>,
    /// A file of tasks in lines of JSON: `id`, `url`, `instruction`, `evaluate`.
    pub rows: Option<PathBuf>,
    /// The same, never trained on.
    pub held_out_rows: Option<PathBuf>,
    /// The browser's program, where it is not where Debian has it.
    pub browser: Option<PathBuf>,
    /// Episodes in one browser at a time, 1 to 64; more have another browser.
    pub contexts: usize,
    /// Memory of a browser, 256 and more.
    pub memory_mb: u64,
    /// What an agent acts with: `elements`, `coordinates` or `both`.
    pub actions: Actions,
    /// What it is shown: `list`, `screenshot` or `both`.
    pub show: Show,
    /// Whether screenshots are made at all.
    pub screenshots: bool,
    /// Of a page, in pixels.
    pub width: u32,
    /// Of a page, in pixels.
    pub height: u32,
    /// The most lines of a list.
    pub list_lines: usize,
    /// The most characters of a list.
    pub list_chars: usize,
    /// What came, went and changed is told after each step: for a judge that reads.
    pub changes: bool,
    /// The most steps of an episode.
    pub steps: u32,
    /// For a step.
    pub step_secs: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let (knobs, options) = (Knobs::default(), Options::default());
        Self {
            families: None,
            buttons: knobs.buttons,
            fields: knobs.fields,
            choices: knobs.choices,
            seen_kinds: false,
            pages: None,
            tasks: None,
            rows: None,
            held_out_rows: None,
            browser: None,
            contexts: 8,
            memory_mb: 2048,
            actions: options.actions,
            show: options.show,
            screenshots: true,
            width: 480,
            height: 360,
            list_lines: options.list_lines,
            list_chars: options.list_chars,
            changes: options.changes,
            steps: 10,
            step_secs: 30,
        }
    }
}

impl Settings {
    /// Names the key of what cannot be used.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        self.options().check()?;
        let pairs = [
            ("buttons", self.buttons, 2, 12),
            ("fields", self.fields, 1, 6),
            ("choices", self.choices, 2, 10),
        ];
        for (key, (low, high), least, most) in pairs {
            if !(least..=most).contains(&low) || !(low..=most).contains(&high) {
                return refuse(format!(
                    "{key}: [{low}, {high}] is not from {least} to {most}, the lesser first"
                ));
            }
        }
        let numbers = [
            ("contexts", self.contexts as u64, 1, 64),
            ("memory_mb", self.memory_mb, 256, 1 << 20),
            ("steps", self.steps.into(), 1, 1000),
            ("step_secs", self.step_secs, 1, 3600),
        ];
        within(numbers)?;
        let sources = [self.families.is_some(), self.tasks.is_some(), self.rows.is_some()];
        if sources.iter().filter(|given| **given).count() > 1 {
            return refuse("families, tasks, rows: only one of them can be".to_owned());
        }
        for (key, empty) in [
            ("families", self.families.as_ref().is_some_and(Vec::is_empty)),
            ("tasks", self.tasks.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                return refuse(format!("{key}: is empty"));
            }
        }
        if self.tasks.is_some() && self.pages.is_none() {
            return refuse("pages: tasks need the folder html of MiniWoB++".to_owned());
        }
        if self.held_out_rows.is_some() && self.rows.is_none() {
            return refuse("held_out_rows: needs rows".to_owned());
        }
        if let Some(pages) = self.pages.as_ref().filter(|pages| !pages.is_dir()) {
            return refuse(format!("pages: {} is no folder", pages.display()));
        }
        if !self.screenshots && self.show != Show::List {
            return refuse("show: needs screenshots = true".to_owned());
        }
        Ok(())
    }

    pub(super) fn options(&self) -> Options {
        Options {
            width: self.width,
            height: self.height,
            actions: self.actions,
            show: self.show,
            list_lines: self.list_lines,
            list_chars: self.list_chars,
            changes: self.changes,
        }
    }

    pub(super) fn engine(&self) -> EngineOptions {
        EngineOptions {
            program: self.browser.clone(),
            memory_mb: self.memory_mb,
            contexts: self.contexts,
            pages: self.pages.clone(),
        }
    }

    pub(super) fn knobs(&self) -> Knobs {
        Knobs {
            buttons: self.buttons,
            fields: self.fields,
            choices: self.choices,
            kinds: if self.seen_kinds { Kinds::Seen } else { Kinds::Own },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_by_its_key() {
        let fault = |settings: Settings| settings.check().map_err(|error| error.to_string());
        assert_eq!(fault(Settings::default()), Ok(()));
        let own = Settings::default;
        for (settings, key) in [
            (Settings { width: 5000, ..own() }, "width: "),
            (Settings { fields: (3, 1), ..own() }, "fields: [3, 1]"),
            (Settings { contexts: 0, ..own() }, "contexts: 0"),
            (Settings { memory_mb: 1, ..own() }, "memory_mb: 1"),
            (Settings { families: Some(Vec::new()), ..own() }, "families: is empty"),
            (
                Settings { tasks: Some(Vec::new()), families: Some(vec![Family::Fields]), ..own() },
                "families, tasks, rows: ",
            ),
            (Settings { tasks: Some(vec!["click-test".into()]), ..own() }, "pages: "),
            (Settings { pages: Some("/no/such/folder".into()), ..own() }, "pages: /no/such/folder"),
            (Settings { held_out_rows: Some("x".into()), ..own() }, "held_out_rows: "),
            (Settings { show: Show::Both, screenshots: false, ..own() }, "show: "),
            (Settings { show: Show::Screenshot, ..own() }, "show: "),
        ] {
            let said = fault(settings).expect_err(key);
            assert!(said.starts_with(key), "{key}: {said}");
        }
    }
}
