//! A daemon of docker for one test binary. It ends with the binary, however that ends, and leaves nothing.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use bollard::query_parameters::{CreateImageOptions, KillContainerOptions, ListContainersOptions};
use futures::StreamExt;

use super::{eventually, image};

/// Of programs of this machine.
pub const IMAGE: &str = "openclaw-test";

/// Its data, its programs and its log are in one folder, which goes with it. A signal to all of a terminal's, or of a
/// timeout's, is an end like any other. Groups go a moment after what was in them.
const KEEP: &str = r#"dir=$1 groups=$2; shift 2
trap : HUP INT TERM
"$@" >"$dir/log" 2>&1 </dev/null & daemon=$!
read line
kill $daemon; wait $daemon
find_groups() { find /sys/fs/cgroup -depth -type d -path "*/$groups*"; }
tries=100
while [ $tries -gt 0 ] && [ -n "$(find_groups)" ]; do
  find_groups | xargs rmdir 2>/dev/null || sleep 0.1
  tries=$((tries - 1))
done
rm -rf --one-file-system "$dir""#;

struct Daemon {
    socket: PathBuf,
    /// It lives as long as its input is open.
    _keeper: Child,
}

static DAEMON: OnceLock<Result<Daemon, String>> = OnceLock::new();

/// Of the daemon, which is started by whoever asks first.
pub fn socket() -> Result<PathBuf, String> {
    let daemon = DAEMON.get_or_init(start).as_ref();
    daemon.map(|daemon| daemon.socket.clone()).map_err(Clone::clone)
}

/// How many containers there are, whether they run or not. None without a daemon.
pub fn containers() -> usize {
    let Some(Ok(daemon)) = DAEMON.get() else { return 0 };
    let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let asked = wait(async { client(&daemon.socket).await?.list_containers(Some(options)).await });
    asked.map_or(usize::MAX, |all| all.len())
}

#[allow(clippy::zombie_processes, reason = "it ends after this process does")]
fn start() -> Result<Daemon, String> {
    let folder = env::var_os("OPENCLAW_DOCKERD").map(PathBuf::from);
    let parts =
        folder.iter().flat_map(|root| ["usr/sbin", "usr/bin", "sbin", "bin", ""].map(|part| root.join(part)));
    let own = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = parts.chain(env::split_paths(&own)).collect();
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    for name in ["dockerd", "containerd", "runc"] {
        find(name).ok_or_else(|| format!("{name} is not installed: install docker.io"))?;
    }
    let dir = tempfile::tempdir().unwrap().keep();
    let groups = format!("openclaw-test-{}", std::process::id());
    let socket = dir.join("socket");
    let path: OsString = env::join_paths(&folders).unwrap();
    fs::write(dir.join("config"), "{}").unwrap();
    let keeper = Command::new("sh")
        .args(["-c", KEEP, "sh"])
        .arg(&dir)
        .arg(&groups)
        .arg(find("dockerd").unwrap())
        .args(
            "--bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false".split(' '),
        )
        .args(["--userland-proxy=false", "--cgroup-parent", &format!("/{groups}")])
        .arg("--config-file")
        .arg(dir.join("config"))
        .arg("--host")
        .arg(format!("unix://{}", socket.display()))
        .arg("--data-root")
        .arg(dir.join("data"))
        .arg("--exec-root")
        .arg(dir.join("exec"))
        .arg("--pidfile")
        .arg(dir.join("pid"))
        .env("PATH", path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
    let mut lives = true;
    eventually("the daemon answers", || {
        lives = !log().contains("failed to start daemon");
        !lives || wait(async { client(&socket).await?.ping().await }).is_ok()
    });
    if !lives {
        return Err(format!("no daemon can run here: {}", log().lines().last().unwrap_or_default()));
    }
    let root = dir.join("root");
    image::make(&root);
    import(&socket, &root);
    Ok(Daemon { socket, _keeper: keeper })
}

fn import(socket: &Path, root: &Path) {
    let packed = Command::new("tar").arg("-C").arg(root).args(["-c", "."]).output().unwrap();
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(IMAGE.into()),
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(packed.stdout.into());
    let made = wait(async {
        let client = client(socket).await?;
        let said: Vec<_> = client.create_image(Some(options), Some(body), None).collect().await;
        said.into_iter().collect::<Result<Vec<_>, _>>()
    });
    made.unwrap();
}

async fn client(socket: &Path) -> Result<bollard::Docker, bollard::errors::Error> {
    let path = socket.to_str().unwrap();
    bollard::Docker::connect_with_unix(path, 60, bollard::API_DEFAULT_VERSION)?.negotiate_version().await
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Kills the first process of every container that runs.
pub fn kill_all() {
    let Some(Ok(daemon)) = DAEMON.get() else { return };
    wait(async {
        let client = client(&daemon.socket).await.unwrap();
        for container in client.list_containers(None::<ListContainersOptions>).await.unwrap() {
            // One may have ended with another.
            let _ = client.kill_container(&container.id.unwrap(), None::<KillContainerOptions>).await;
        }
    });
}
