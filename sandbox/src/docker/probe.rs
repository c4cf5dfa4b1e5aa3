//! What the daemon can do, and whether it is there.

use super::{
    Docker, absent_image,
    daemon::{Daemon, is_absent, said},
};
use crate::Check;

/// In the order in which each needs the one before.
pub(super) fn checks(backend: &Docker) -> Vec<Check> {
    let daemon = match Daemon::connect(&backend.socket) {
        Ok(daemon) => daemon,
        Err(why) => {
            let detail = format!("no daemon answers at {}: {why}", backend.socket.display());
            return vec![Check { name: "docker", ok: false, detail, needed: true }, user()];
        }
    };
    let info = daemon.call(|docker| async move { docker.info().await });
    let mut all = Vec::new();
    match info {
        Ok(info) => {
            let of = |part: Option<String>| part.unwrap_or_else(|| "?".into());
            let version = of(info.server_version);
            let detail = format!("{version}, storage driver {}", of(info.driver));
            all.push(Check { name: "docker", ok: true, detail, needed: true });
            let security = info.security_options.unwrap_or_default();
            let has_seccomp = security.iter().any(|option| option.contains("seccomp"));
            let detail = if has_seccomp { "there" } else { "the daemon has none" };
            all.push(Check { name: "seccomp", ok: has_seccomp, detail: detail.into(), needed: true });
            let limits =
                [("memory", info.memory_limit), ("pids", info.pids_limit), ("cpu", info.cpu_cfs_quota)];
            let lacks: Vec<&str> =
                limits.iter().filter(|(_, has)| *has != Some(true)).map(|(name, _)| *name).collect();
            let ok = lacks.is_empty();
            let detail =
                if ok { "memory, pids, cpu".into() } else { format!("no limit of {}", lacks.join(", ")) };
            all.push(Check { name: "control groups", ok, detail, needed: true });
        }
        Err(error) => all.push(Check { name: "docker", ok: false, detail: said(&error), needed: true }),
    }
    all.push(image(&daemon, &backend.image));
    all.push(user());
    all
}

/// Whether an image is there and leaves nothing to write.
pub(super) fn image(daemon: &Daemon, image: &str) -> Check {
    let asked = image.to_owned();
    let (ok, detail) = match daemon.call(|docker| async move { docker.inspect_image(&asked).await }) {
        Err(error) if is_absent(&error) => (false, absent_image(image)),
        Err(error) => (false, said(&error)),
        Ok(found) => match found.config.and_then(|config| config.volumes).unwrap_or_default().as_slice() {
            [] => (true, found.id.unwrap_or_default()),
            volumes => {
                // They would be written to without any limit.
                (false, format!("image {image} has volumes: {}", volumes.join(", ")))
            }
        },
    };
    Check { name: "image", ok, detail, needed: true }
}

fn user() -> Check {
    let detail = format!("commands run as user {}", Docker::user());
    Check { name: "unprivileged user", ok: true, detail, needed: true }
}
