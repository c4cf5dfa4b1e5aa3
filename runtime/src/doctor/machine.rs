//! What this machine has: memory, disk, a GPU, a sandbox.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where groups of processes have their limits.
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that a new process can have: what the kernel can give, and what the container's limit leaves. `None`
/// where nobody says.
pub fn available_memory() -> Option<u64> {
    let kernel = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let group = own_group().and_then(|group| {
        let groups = group.ancestors().take_while(|group| group.starts_with(GROUPS));
        groups.filter_map(group_leaves).min()
    });
    [kernel, group].into_iter().flatten().min()
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The cgroup (v2) of this process.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(GROUPS).join(path))
}

/// What a group's limit leaves. Files that are cached for it make room when asked.
fn group_leaves(group: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let cached: u64 = cached.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// The folder itself, or the nearest one above it that is there.
pub fn existing(folder: &Path) -> PathBuf {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let found = whole.ancestors().find(|folder| folder.exists()).map(Path::to_owned);
    found.unwrap_or(whole)
}

/// Bytes that this user can still write at an existing folder.
pub fn free_disk(folder: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of the files in a folder and below.
pub fn folder_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// The version of the NVIDIA driver in the kernel.
pub fn nvidia_driver() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    driver_version(&text).map(str::to_owned)
}

fn driver_version(text: &str) -> Option<&str> {
    let words = text.lines().next()?.split_whitespace();
    words
        .into_iter()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
}

/// Whether untrusted code can be isolated here; an error says what is missing.
pub fn sandbox() -> Result<(), String> {
    let missing = openclaw_sandbox::missing();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        let text = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(mem_available(text), Some(8_192_000_000));
        assert_eq!(mem_available("MemTotal: 1 kB"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_but_for_what_cannot_be_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        put("memory.current", "600\n");
        put("memory.stat", "anon 300\ninactive_file 200\n");
        put("memory.max", "max\n");
        assert_eq!(group_leaves(dir.path()), None);
        put("memory.max", "1000\n");
        assert_eq!(group_leaves(dir.path()), Some(600));
    }

    #[test]
    fn the_drivers_version_is_the_first_number_with_a_point() {
        let text =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC";
        assert_eq!(driver_version(text), Some("550.54.15"));
    }

    #[test]
    fn disk_is_measured_at_the_nearest_folder_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("not").join("there");
        assert_eq!(existing(&deep), dir.path());
        fs::create_dir(dir.path().join("not")).unwrap();
        fs::write(dir.path().join("not/a"), [0; 10]).unwrap();
        fs::write(dir.path().join("b"), [0; 5]).unwrap();
        assert_eq!(folder_size(dir.path()), 15);
        assert!(free_disk(dir.path()).unwrap() > 15);
    }
}
