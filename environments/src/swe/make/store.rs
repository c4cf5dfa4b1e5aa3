//! Where rows and archives of made tasks lie.
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::MakeError;
use crate::swe::row::Row;

/// A row, and which file it goes to.
pub(super) struct Line {
    pub(super) row: Row,
    pub(super) measures: bool,
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> MakeError {
    let path = path.to_owned();
    move |source| MakeError::File { path, doing, source }
}

/// The archive of a package in the folder of the rows; a folder is packed.
pub(super) fn archive(package: &Path, out: &Path) -> Result<PathBuf, MakeError> {
    fs::create_dir_all(out).map_err(failed(out, "written"))?;
    let package = fs::canonicalize(package).map_err(failed(package, "read"))?;
    let name = package.file_name().unwrap_or(package.as_os_str());
    if !package.is_dir() {
        let copy = out.join(name);
        if fs::canonicalize(&copy).ok().as_deref() != Some(&package) {
            fs::copy(&package, &copy).map_err(failed(&package, "read"))?;
        }
        return Ok(copy);
    }
    let mut name = name.to_owned();
    name.push(".tar.gz");
    let copy = out.join(name);
    // The same folder makes the same archive.
    let status = Command::new("tar")
        .args([
            "--create",
            "--gzip",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .args(["--exclude=.git", "--exclude=__pycache__", "--file"])
        .arg(&copy)
        .arg("--directory")
        .arg(&package)
        .arg(".")
        .status()
        .map_err(failed(&package, "read"))?;
    match status.success() {
        true => Ok(copy),
        false => Err(failed(&package, "read")(io::Error::other(format!("tar: {status}")))),
    }
}

/// Writes the rows of a package in place of those that were there.
pub(super) fn store(out: &Path, package: &str, lines: &[Line]) -> Result<(), MakeError> {
    for (name, measures) in [("train.jsonl", false), ("held_out.jsonl", true)] {
        let path = out.join(name);
        let before = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let of_others =
            |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|row| row["repo"] != package);
        let mut all: Vec<String> = before.lines().filter(of_others).map(str::to_owned).collect();
        all.extend(lines.iter().filter(|line| line.measures == measures).map(|line| as_line(&line.row)));
        if all.is_empty() && before.is_empty() {
            continue;
        }
        // Rename last: whoever reads it finds all rows or those before.
        let mut file = tempfile::NamedTempFile::new_in(out).map_err(failed(out, "written"))?;
        let text: String = all.iter().map(|line| format!("{line}\n")).collect();
        file.write_all(text.as_bytes()).map_err(failed(&path, "written"))?;
        file.persist(&path).map_err(|error| failed(&path, "written")(error.error))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&path, mode).map_err(failed(&path, "written"))?;
    }
    Ok(())
}

/// With all that [`Row::parse`] needs.
fn as_line(row: &Row) -> String {
    let source = match &row.start {
        crate::swe::row::Start::Local(path) => {
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        _ => String::new(),
    };
    json!({
        "instance_id": row.id,
        "repo": row.repo,
        "source": source,
        "recipe": "unpack source, undo patch, commit all of it",
        "problem_statement": row.problem,
        "patch": row.patch,
        "test_patch": "",
        "FAIL_TO_PASS": row.fail_to_pass,
        "PASS_TO_PASS": row.pass_to_pass,
        "mutation": row.mutation,
    })
    .to_string()
}
