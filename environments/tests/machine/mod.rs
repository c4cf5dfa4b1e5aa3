//! What a machine needs for these tests, and what runs on it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Whether sandboxes can be made here; told, and asked for where `OPENCLAW_REQUIRE_ALL` is set.
pub fn has_sandbox() -> bool {
    let missing = openclaw_sandbox::missing();
    can("no sandbox can be made here", missing.is_empty(), &format!("{missing:?}"))
}

/// What is not there is told, and asked for where `OPENCLAW_REQUIRE_ALL` is set.
pub fn can(what: &str, can: bool, why: &str) -> bool {
    if !can {
        assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{what}: {why}");
        eprintln!("skipped, {what}: {why}");
    }
    can
}

/// Processes of this machine, those in sandboxes too, with `marker` in their arguments.
#[allow(dead_code, reason = "not every test looks for processes")]
pub fn with_marker(marker: &str) -> usize {
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(line)
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

/// Waits for a condition.
#[allow(dead_code, reason = "not every test waits")]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < patience, "not in a minute: {what}");
        thread::yield_now();
    }
}
