//! What containers are made of.

use std::{collections::HashMap, ffi::OsString, path::Path};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, ResourcesUlimits,
};

use super::LABEL;
use crate::{APP, HOME, LOGS, Limits, SandboxError, Spec, TMP, WORKSPACE, seccomp};

/// The base: it makes a pipe whose writer it alone is, says that it is there, and waits for the end of its input.
const BASE: &str = r#"mkdir /store/etc && printf %s "$1" > /store/etc/passwd && printf %s "$2" > /store/etc/group &&
mkfifo /disk/alive && exec 3<>/disk/alive && chmod 400 /disk/alive && echo && exec cat"#;
/// A cell: it ends with the base, and waits for whoever is left to it meanwhile.
const CELL: &str = "read x <\"$1\" & wait $!";
/// The pipe of the base, in a cell.
const ALIVE: &str = "/dev/session";

/// What the engine itself hides, and what tells of the host.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sysrq-trigger",
    "/sys",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/interrupts"];

/// Where the folders of a session lie on the daemon's machine.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) disk: String,
    pub(super) store: String,
}

/// Whose containers these are, and as whom they run.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) image: String,
    pub(super) user: u32,
    pub(super) label: String,
}

/// Of the base, in which no command ever runs: it has the disk and the programs that carry files.
pub(super) fn base(owner: &Owner, limits: &Limits) -> ContainerCreateBody {
    let user = owner.user;
    let own = format!("uid={user},gid={user},mode=0700");
    let disk = vec![tmpfs("/disk", format!("size={},{own}", limits.disk_bytes)), tmpfs("/store", own)];
    let host = HostConfig {
        mounts: Some(disk),
        // What is carried in lies in memory, too.
        memory: Some(bytes(limits.disk_bytes.saturating_mul(4).saturating_add(1 << 30))),
        pids_limit: Some(64),
        ..isolated()
    };
    let passwd =
        format!("root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:{user}:{user}:agent:{HOME}:/bin/sh\n");
    let group = format!("root:x:0:\nagent:x:{user}:\n");
    let words = ["/bin/sh", "-c", BASE, "sh", &passwd, &group].map(String::from).to_vec();
    let mut body = container(owner, words, host);
    body.working_dir = Some("/disk".into());
    body.open_stdin = Some(true);
    body.stdin_once = Some(true);
    body.attach_stdin = Some(true);
    body.attach_stdout = Some(true);
    body.attach_stderr = Some(true);
    body.env = Some(vec!["LC_ALL=C".into()]);
    body
}

/// Of a cell, in which commands run.
pub(super) fn cell(owner: &Owner, places: &Places, spec: &Spec) -> Result<ContainerCreateBody, SandboxError> {
    let Places { disk, store } = places;
    let mut mounts = vec![bind(&format!("{disk}/alive"), ALIVE, true)];
    for name in ["passwd", "group"] {
        mounts.push(bind(&format!("{store}/etc/{name}"), &format!("/etc/{name}"), true));
    }
    let folders = [
        ("workspace", WORKSPACE),
        ("workspace", APP),
        ("logs", LOGS),
        ("home", HOME),
        ("tmp", TMP),
        ("shm", "/dev/shm"),
    ];
    mounts.extend(folders.map(|(from, to)| bind(&format!("{disk}/{from}"), to, false)));
    fn utf8(at: &Path) -> Result<&str, SandboxError> {
        at.to_str().ok_or_else(|| SandboxError::path(at, "is not UTF-8, which docker needs"))
    }
    for alias in &spec.aliases {
        mounts.push(bind(&format!("{disk}/workspace"), utf8(alias)?, false));
    }
    for (number, at) in spec.read_only.keys().enumerate() {
        let to = utf8(at)?;
        mounts.push(bind(&format!("{store}/{number}"), to, true));
    }
    let limits = &spec.limits;
    // Files lie in memory, too.
    let memory = bytes(limits.memory_bytes.saturating_add(limits.disk_bytes));
    let host = HostConfig {
        mounts: Some(mounts),
        memory: Some(memory),
        memory_swap: Some(memory),
        pids_limit: Some(bytes(limits.processes)),
        cpu_period: limits.cpu_percent.map(|_| 100_000),
        cpu_quota: limits.cpu_percent.map(|percent| i64::from(percent) * 1000),
        ulimits: Some(ulimits(limits)),
        ..isolated()
    };
    let words = ["/bin/sh", "-c", CELL, "sh", ALIVE].map(String::from).to_vec();
    let mut body = container(owner, words, host);
    body.env = Some(env(own_env().chain(spec.env.clone()))?);
    Ok(body)
}

/// As an engine takes it.
pub(super) fn env(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Vec<String>, SandboxError> {
    let all: std::collections::BTreeMap<OsString, OsString> = vars.into_iter().collect();
    all.into_iter()
        .map(|(name, value)| {
            let (name, value) = (text(&name)?, text(&value)?);
            Ok(format!("{name}={value}"))
        })
        .collect()
}

/// What a request, which is JSON, can hold.
pub(super) fn text(word: &std::ffi::OsStr) -> Result<&str, SandboxError> {
    let refused = |why: &str| SandboxError::path(Path::new(word), why);
    let text = word.to_str().ok_or_else(|| refused("is not UTF-8, which docker needs"))?;
    if text.contains('\0') { Err(refused("has a zero byte")) } else { Ok(text) }
}

/// The image's own `PATH` holds.
fn own_env() -> impl Iterator<Item = (OsString, OsString)> {
    [("HOME", HOME), ("USER", "agent"), ("LANG", "C.UTF-8"), ("TERM", "dumb"), ("TMPDIR", TMP)]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
}

fn container(owner: &Owner, words: Vec<String>, host_config: HostConfig) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(owner.image.clone()),
        hostname: Some("sandbox".into()),
        user: Some(format!("{0}:{0}", owner.user)),
        entrypoint: Some(words),
        cmd: Some(Vec::new()),
        working_dir: Some("/".into()),
        // The image's own would be one more process that nobody started.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        labels: Some([(LABEL.into(), owner.label.clone())].into()),
        network_disabled: Some(true),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

fn isolated() -> HostConfig {
    let paths = |paths: &[&str]| Some(paths.iter().map(|path| (*path).to_owned()).collect());
    HostConfig {
        network_mode: Some("none".into()),
        ipc_mode: Some("private".into()),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into(), format!("seccomp={}", seccomp::profile())]),
        readonly_rootfs: Some(true),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        auto_remove: Some(true),
        ..HostConfig::default()
    }
}

fn ulimits(limits: &Limits) -> Vec<ResourcesUlimits> {
    let all = [
        ("core", 0),
        ("fsize", limits.file_bytes),
        ("memlock", 64 << 10),
        ("nofile", limits.open_files),
        ("msgqueue", 64 << 10),
        ("cpu", limits.cpu_secs),
    ];
    let limit = |(name, value): (&str, u64)| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(bytes(value)),
        hard: Some(bytes(value)),
    };
    all.into_iter().map(limit).collect()
}

/// A folder in memory, which goes with the container.
fn tmpfs(at: &str, options: String) -> Mount {
    let options: HashMap<String, String> =
        [("type", "tmpfs"), ("device", "tmpfs"), ("o", &*format!("nosuid,nodev,{options}"))]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    Mount {
        target: Some(at.into()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            driver_config: Some(MountVolumeOptionsDriverConfig {
                name: Some("local".into()),
                options: Some(options),
            }),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

fn bind(from: &str, to: &str, read_only: bool) -> Mount {
    Mount {
        source: Some(from.into()),
        target: Some(to.into()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn bytes(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
