//! Control groups of either version: what a session may use of memory, processes and processors together.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use crate::{Limits, SandboxError};

/// Where groups can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// Of version 2, with all controllers.
    unified: Option<PathBuf>,
    /// Of version 1, by controller.
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// Those of one session. They go with it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
    /// The file that counts kills, and the word before the count.
    kills: Option<PathBuf>,
    /// The kernel enforces memory; else address space is limited.
    pub(crate) memory: bool,
}

/// The group of a container, which the daemon made.
#[derive(Debug)]
pub(crate) struct Seen {
    processes: PathBuf,
    kills: PathBuf,
}

impl Seen {
    /// Every process in it, whoever its parent is. None once the group is gone.
    pub(crate) fn processes(&self) -> Option<Vec<Pid>> {
        let text = fs::read_to_string(&self.processes).ok()?;
        Some(text.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
    }

    /// How often the kernel killed for memory.
    pub(crate) fn kills(&self) -> u64 {
        kills(&self.kills)
    }
}

impl Cgroups {
    /// What this process may use, from `/proc/self`.
    pub(crate) fn find() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let mut found = Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        found.unified = found.unified.take().filter(|parent| delegate(parent));
        for folder in [&mut found.unified, &mut found.memory, &mut found.pids, &mut found.cpu] {
            *folder = folder.take().filter(|parent| writable(parent));
        }
        found
    }

    /// Those that hold a process of a container, whose paths have its id. None where they cannot be seen from here.
    pub(crate) fn of_container(pid: Pid, id: &str) -> Option<Seen> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
        let found = Self::parse(&mounts, &own);
        let is_its = |folder: &PathBuf| folder.to_string_lossy().contains(id);
        // Where there are both, the second version counts no memory.
        let memory = found.memory.filter(is_its).map(|folder| (folder.join("memory.oom_control"), folder));
        let unified = || found.unified.filter(is_its).map(|folder| (folder.join("memory.events"), folder));
        let (kills, folder) = memory.or_else(unified)?;
        Some(Seen { processes: folder.join("cgroup.procs"), kills })
    }

    fn parse(mounts: &str, own: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (Some(at), Some(kind)) = (before.split(' ').nth(4), after.split(' ').next()) else {
                continue;
            };
            let options: Vec<&str> = after.rsplit(' ').next().unwrap_or_default().split(',').collect();
            let path = |controller: &str| {
                let own = own.lines().find_map(|line| {
                    let mut parts = line.splitn(3, ':').skip(1);
                    let controllers = parts.next()?;
                    let path = parts.next()?;
                    controllers.split(',').any(|name| name == controller).then_some(path)
                });
                let inside = Path::new(at).join(own.unwrap_or("/").trim_start_matches('/'));
                // In a container the path is the host's, and the mount is already the container's own.
                if inside.is_dir() { inside } else { PathBuf::from(at) }
            };
            match kind {
                "cgroup2" => found.unified = Some(path("")),
                "cgroup" if options.contains(&"memory") => found.memory = Some(path("memory")),
                "cgroup" if options.contains(&"pids") => found.pids = Some(path("pids")),
                "cgroup" if options.contains(&"cpu") => found.cpu = Some(path("cpu")),
                _ => {}
            }
        }
        found
    }

    /// For an operator: what is enforced, and what is not.
    pub(crate) fn describe(&self) -> (bool, String) {
        if self.unified.is_some() {
            return (true, "version 2: memory, pids, cpu".into());
        }
        let of = [("memory", &self.memory), ("pids", &self.pids), ("cpu", &self.cpu)];
        let names = |there: bool| -> Vec<&str> {
            of.iter().filter(|(_, folder)| folder.is_some() == there).map(|(name, _)| *name).collect()
        };
        match (names(true), names(false)) {
            (all, none) if none.is_empty() => (true, format!("version 1: {}", all.join(", "))),
            (some, without) => (
                false,
                format!(
                    "not writable: {}; have: {}; limits are those of each process",
                    without.join(", "),
                    some.join(", ")
                ),
            ),
        }
    }

    /// The groups of a session.
    pub(crate) fn make(&self, name: &str, limits: &Limits) -> Result<Group, SandboxError> {
        let mut group = Group::default();
        group.fill(self, name, limits).map_err(|source| SandboxError::io("make a control group", source))?;
        Ok(group)
    }

    /// Removes empty groups whose name says that their supervisor is gone.
    pub(crate) fn sweep(&self, gone: impl Fn(&str) -> bool) -> usize {
        let mut removed = 0;
        for parent in [&self.unified, &self.memory, &self.pids, &self.cpu].into_iter().flatten() {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(&gone) && fs::remove_dir(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
        removed
    }
}

impl Group {
    fn fill(&mut self, parents: &Cgroups, name: &str, limits: &Limits) -> io::Result<()> {
        // Files lie in memory, too.
        let memory = limits.memory_bytes.saturating_add(limits.disk_bytes);
        if let Some(parent) = &parents.unified {
            let folder = self.folder(parent, name)?;
            put(&folder, "memory.max", memory)?;
            // Absent without swap.
            let _ = put(&folder, "memory.swap.max", 0);
            put(&folder, "pids.max", limits.processes)?;
            if let Some(percent) = limits.cpu_percent {
                fs::write(folder.join("cpu.max"), format!("{} 100000", u64::from(percent) * 1000))?;
            }
            self.kills = Some(folder.join("memory.events"));
            self.memory = true;
            return Ok(());
        }
        if let Some(parent) = &parents.memory {
            let folder = self.folder(parent, name)?;
            put(&folder, "memory.limit_in_bytes", memory)?;
            let _ = put(&folder, "memory.memsw.limit_in_bytes", memory);
            self.kills = Some(folder.join("memory.oom_control"));
            self.memory = true;
        }
        if let Some(parent) = &parents.pids {
            let folder = self.folder(parent, name)?;
            put(&folder, "pids.max", limits.processes)?;
        }
        if let (Some(parent), Some(percent)) = (&parents.cpu, limits.cpu_percent) {
            let folder = self.folder(parent, name)?;
            put(&folder, "cpu.cfs_period_us", 100_000)?;
            put(&folder, "cpu.cfs_quota_us", u64::from(percent) * 1000)?;
        }
        Ok(())
    }

    fn folder(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        let folder = parent.join(name);
        fs::create_dir(&folder)?;
        self.folders.push(folder.clone());
        Ok(folder)
    }

    /// Puts a process in, and with it all it will start.
    pub(crate) fn add(&self, pid: Pid) -> io::Result<()> {
        self.folders
            .iter()
            .try_for_each(|folder| put(folder, "cgroup.procs", pid.as_raw_nonzero().get() as u64))
    }

    /// How often the kernel killed for memory.
    pub(crate) fn kills(&self) -> u64 {
        self.kills.as_deref().map_or(0, kills)
    }

    /// Removes them. A killed process leaves its group a moment after its end.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        let patience = Instant::now() + Duration::from_secs(10);
        while let Some(folder) = self.folders.last() {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < patience => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {
                    self.folders.pop();
                }
            }
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, folders = ?self.folders, "control groups are left behind");
        }
    }
}

fn kills(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

fn put(folder: &Path, file: &str, value: u64) -> io::Result<()> {
    fs::write(folder.join(file), value.to_string())
}

/// Whether groups under this one have the controllers, or can be given them.
fn delegate(parent: &Path) -> bool {
    let has = |file: &str| {
        let text = fs::read_to_string(parent.join(file)).unwrap_or_default();
        ["memory", "pids", "cpu"].iter().all(|name| text.split_whitespace().any(|word| word == *name))
    };
    has("cgroup.controllers")
        && (has("cgroup.subtree_control")
            || fs::write(parent.join("cgroup.subtree_control"), "+memory +pids +cpu").is_ok())
}

fn writable(parent: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(parent, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_where_they_are_mounted() {
        let mounts = "25 21 0:22 / /g/memory rw,relatime - cgroup cgroup rw,memory\n\
                      26 21 0:23 / /g/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      27 21 0:24 / /g/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                      28 21 0:25 / /proc rw - proc proc rw";
        let found = Cgroups::parse(mounts, "4:memory:/none\n1:cpu,cpuacct:/\n0::/");
        let expected = Cgroups {
            unified: Some("/g/unified".into()),
            memory: Some("/g/memory".into()),
            pids: None,
            cpu: Some("/g/cpu,cpuacct".into()),
        };
        assert_eq!(found.memory, expected.memory);
        assert_eq!(
            Cgroups { unified: Some("/g/unified".into()), cpu: expected.cpu.clone(), ..found },
            expected
        );
    }
}
