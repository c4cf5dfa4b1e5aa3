//! What a patch is about, and which files of a repository are not an agent's to change.
use std::collections::BTreeSet;

/// Names of files that say how tests are run, wherever they lie.
const STEERING: [&str; 6] =
    ["conftest.py", "pytest.ini", ".pytest.ini", "sitecustomize.py", "usercustomize.py", ".coveragerc"];
/// Names of folders that hold tests and what these need.
const FOLDERS: [&str; 3] = ["test", "tests", "testing"];

/// Paths that the sections of a patch name, on either side.
pub fn paths(patch: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for line in patch.lines() {
        let sides: Vec<&str> = if let Some(rest) = line.strip_prefix("diff --git ") {
            rest.split_once(" b/")
                .map(|(one, other)| vec![one.trim_start_matches("a/"), other])
                .unwrap_or_default()
        } else if let Some(rest) = line.strip_prefix("--- ").or_else(|| line.strip_prefix("+++ ")) {
            let path = rest.split('\t').next().unwrap_or(rest).trim();
            vec![path.strip_prefix("a/").or_else(|| path.strip_prefix("b/")).unwrap_or(path)]
        } else {
            continue;
        };
        paths.extend(sides.into_iter().filter(|path| *path != "/dev/null").map(str::to_owned));
    }
    paths
}

/// Lines that a patch takes away, and that it adds.
pub fn lines(patch: &str) -> (Vec<&str>, Vec<&str>) {
    let of = |sign: char, header: &str| {
        let lines = patch.lines().filter(|line| line.starts_with(sign) && !line.starts_with(header));
        lines.map(|line| &line[1..]).collect()
    };
    (of('-', "--- "), of('+', "+++ "))
}

/// Whether a path leads somewhere beneath the repository, and not into what git keeps there.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|part| part != ".." && !part.eq_ignore_ascii_case(".git"))
}

/// The files that judge a patch: an agent may change them, and it does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    files: BTreeSet<String>,
    /// With a slash at the end.
    folders: BTreeSet<String>,
}

impl Protected {
    /// By the names of tests and the patch that brings them: those files, and the folders of tests that they lie in.
    pub fn of<'a>(tests: impl IntoIterator<Item = &'a String>, test_patch: &str) -> Self {
        let named = tests.into_iter().filter_map(|name| test_file(name)).map(str::to_owned);
        let mut protected = Self::default();
        for file in named.chain(paths(test_patch)) {
            let parts: Vec<&str> = file.split('/').collect();
            let folder = parts[..parts.len() - 1].iter().position(|part| FOLDERS.contains(part));
            if let Some(at) = folder {
                protected.folders.insert(parts[..=at].join("/") + "/");
            }
            protected.files.insert(file);
        }
        protected
    }

    /// Whether a path is one of them.
    pub fn has(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        STEERING.contains(&name)
            || self.files.contains(path)
            || self.folders.iter().any(|folder| path.starts_with(folder.as_str()))
    }

    /// Files that tests are in, by their names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }
}

/// Lines around a change.
const AROUND: usize = 3;

/// The patch that puts `line` in place of a line of `text`, counted from 0.
pub fn of_line(path: &str, text: &str, at: usize, line: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(lines.len()));
    let mut hunk = String::new();
    let whole = text.ends_with('\n');
    for (number, old) in lines.iter().enumerate().take(to).skip(from) {
        let end = if number + 1 == lines.len() && !whole { "\n\\ No newline at end of file\n" } else { "\n" };
        match number == at {
            true => hunk.push_str(&format!("-{old}{end}+{line}{end}")),
            false => hunk.push_str(&format!(" {old}{end}")),
        }
    }
    let (first, count) = (from + 1, to - from);
    format!(
        "diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -{first},{count} +{first},{count} @@\n{hunk}"
    )
}

/// The file of a test's name, where it has one: `a/b.py::T::t[x]`.
pub fn test_file(name: &str) -> Option<&str> {
    let (file, _) = name.split_once("::")?;
    is_inside(file).then_some(file)
}

/// The function of a test's name: `t` of `a/b.py::T::t[x]`.
pub fn test_function(name: &str) -> &str {
    let main = name.split('[').next().unwrap_or(name);
    main.rsplit("::").next().unwrap_or(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "diff --git a/src/a.py b/src/a.py\nindex 1..2\n--- a/src/a.py\n+++ b/src/a.py\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 2\n y\n\
                         diff --git a/old name.py b/new name.py\nrename from old name.py\nrename to new name.py\n";

    #[test]
    fn a_patch_says_what_it_touches() {
        let found: Vec<String> = paths(PATCH).into_iter().collect();
        assert_eq!(found, ["new name.py", "old name.py", "src/a.py"]);
        assert_eq!(lines(PATCH), (vec!["x = 1"], vec!["x = 2"]));
        let added = "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+x\n";
        assert_eq!(paths(added).into_iter().collect::<Vec<_>>(), ["n.py"]);
    }

    #[test]
    fn the_files_that_judge_are_protected() {
        let tests =
            ["pkg/tests/unit/test_a.py::t[x]".to_owned(), "test_top.py::t".to_owned(), "no file".to_owned()];
        let protected = Protected::of(&tests, "--- a/other/test_c.py\n+++ b/other/test_c.py\n");
        for path in [
            "pkg/tests/unit/test_a.py",
            "pkg/tests/helpers.py",
            "test_top.py",
            "other/test_c.py",
            "conftest.py",
            "a/b/pytest.ini",
        ] {
            assert!(protected.has(path), "{path}");
        }
        // A package for tests is not one of its tests.
        for path in ["pkg/a.py", "test_topical.py", "django/test/client.py", "other/d.py", "setup.cfg"] {
            assert!(!protected.has(path), "{path}");
        }
    }

    #[test]
    fn no_path_leads_out_or_into_git() {
        for path in ["../a", "/a", "a/../../b", ".git/config", "a/.GIT/hooks/x", ""] {
            assert!(!is_inside(path), "{path}");
        }
        assert!(is_inside("a/.github/b") && is_inside("a b"));
        assert_eq!(test_file("/etc/x.py::t"), None);
        assert_eq!(test_function("a.py::T::t[x::y]"), "t");
    }
}
