//! The options of bubblewrap for the three kinds of sandbox.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{APP, Exec, HOME, LOGS, Root, SandboxError, Spec, TMP, WORKSPACE};

/// Files of `/etc` that programs need and that tell nothing.
const ETC: [&str; 7] =
    ["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "ssl/certs"];
/// Top folders of a root file system that a session makes itself.
const OWN: [&str; 11] =
    ["app", "dev", "etc", "home", "logs", "proc", "run", "sys", "tmp", "workspace", "lost+found"];

/// Places in a session's folder on the host.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Where the base has the disk: `workspace`, `logs`, `home`, `tmp` and `shm`.
    pub(super) disk: PathBuf,
    /// Where the base has read-only folders, by number.
    pub(super) store: PathBuf,
    /// `passwd`, `group`, `hosts`.
    pub(super) etc: PathBuf,
}

impl Places {
    /// Makes the places on the host. What the base mounts is not seen there.
    pub(super) fn make(folder: &Path) -> io::Result<Self> {
        let places = Self { disk: folder.join("disk"), store: folder.join("store"), etc: folder.join("etc") };
        let everyone = || Permissions::from_mode(0o755);
        for path in [&places.disk, &places.store, &places.etc] {
            fs::create_dir(path)?;
            fs::set_permissions(path, everyone())?;
        }
        let texts = [
            (
                "passwd",
                "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            ),
            ("group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"),
            ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
        ];
        for (name, text) in texts {
            fs::write(places.etc.join(name), text)?;
            fs::set_permissions(places.etc.join(name), Permissions::from_mode(0o644))?;
        }
        fs::set_permissions(folder, everyone())?;
        Ok(places)
    }
}

/// Options, in the making.
#[derive(Default)]
struct Options(Vec<OsString>);

impl Options {
    fn add<const N: usize>(&mut self, words: [&dyn AsRef<OsStr>; N]) {
        self.0.extend(words.map(|word| word.as_ref().to_owned()));
    }

    fn isolated(&mut self) {
        self.add([
            &"--unshare-all",
            &"--unshare-user",
            &"--disable-userns",
            &"--uid",
            &"1000",
            &"--gid",
            &"1000",
        ]);
        self.add([
            &"--cap-drop",
            &"ALL",
            &"--die-with-parent",
            &"--new-session",
            &"--hostname",
            &"sandbox",
            &"--clearenv",
        ]);
    }

    /// The host's programs.
    fn host(&mut self) {
        self.add([&"--ro-bind", &"/usr", &"/usr"]);
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            self.top(Path::new("/"), name.as_ref());
        }
        for name in ETC {
            let path = Path::new("/etc").join(name);
            self.add([&"--ro-bind-try", &path, &path]);
        }
    }

    /// An entry of a root file system, as it is there.
    fn top(&mut self, root: &Path, name: &OsStr) {
        let (from, to) = (root.join(name), Path::new("/").join(name));
        match fs::read_link(&from) {
            Ok(target) => self.add([&"--symlink", &target, &to]),
            Err(_) if from.is_dir() => self.add([&"--ro-bind", &from, &to]),
            Err(_) => {}
        }
    }

    fn folder(&mut self, root: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            if !OWN.iter().any(|own| name == *own) {
                self.top(root, &name);
            }
        }
        // Files over its own need a place that can be written, so its entries come one by one.
        self.add([&"--dir", &"/etc"]);
        for entry in fs::read_dir(root.join("etc")).into_iter().flatten() {
            let name = entry?.file_name();
            if ["passwd", "group", "hosts", "resolv.conf", "shadow", "gshadow"].iter().any(|own| name == *own)
            {
                continue;
            }
            let (from, to) = (root.join("etc").join(&name), Path::new("/etc").join(&name));
            match fs::read_link(&from) {
                Ok(target) => self.add([&"--symlink", &target, &to]),
                Err(_) => self.add([&"--ro-bind-try", &from, &to]),
            }
        }
        Ok(())
    }

    fn env(&mut self, env: &BTreeMap<OsString, OsString>) {
        for (name, value) in env {
            self.add([&"--setenv", name, value]);
        }
    }
}

/// Of the base, which runs nothing untrusted and sees the host: it holds the session's mounts.
pub(super) fn base(places: &Places, spec: &Spec) -> Vec<OsString> {
    let mut options = Options::default();
    options.add([&"--unshare-user", &"--unshare-pid", &"--unshare-ipc", &"--unshare-net"]);
    options.add([&"--cap-drop", &"ALL", &"--die-with-parent", &"--new-session", &"--dev-bind", &"/", &"/"]);
    let size = spec.limits.disk_bytes.to_string();
    options.add([&"--perms", &"0700", &"--size", &size, &"--tmpfs", &places.disk]);
    options.add([&"--perms", &"0700", &"--tmpfs", &places.store]);
    options.0
}

/// Of the programs that carry files: the host's, with the whole disk. `furnishing` opens the read-only folders, too, as
/// long as nothing untrusted has run.
pub(super) fn porter(places: &Places, furnishing: bool) -> Vec<OsString> {
    let mut options = Options::default();
    options.isolated();
    options.host();
    options.add([&"--proc", &"/proc", &"--dev", &"/dev"]);
    options.add([&"--bind", &places.disk, &"/disk"]);
    if furnishing {
        options.add([&"--bind", &places.store, &"/store"]);
    }
    options.add([&"--remount-ro", &"/dev", &"--remount-ro", &"/", &"--chdir", &"/disk"]);
    options.add([&"--setenv", &"PATH", &super::PATH, &"--setenv", &"LC_ALL", &"C"]);
    options.0
}

/// Of commands.
pub(super) fn command(
    places: &Places,
    spec: &Spec,
    exec: Option<&Exec>,
) -> Result<Vec<OsString>, SandboxError> {
    let mut options = Options::default();
    options.isolated();
    match &spec.root {
        Root::Host => options.host(),
        Root::Folder(root) => {
            options.folder(root).map_err(|source| SandboxError::io("read the root file system", source))?;
        }
        Root::Image(image) => {
            return Err(SandboxError::path(Path::new(image), "is an image, which bubblewrap does not have"));
        }
    }
    for name in ["passwd", "group", "hosts"] {
        options.add([&"--ro-bind", &places.etc.join(name), &Path::new("/etc").join(name)]);
    }
    options.add([&"--proc", &"/proc", &"--dev", &"/dev"]);
    let disk = [("workspace", WORKSPACE), ("logs", LOGS), ("home", HOME), ("tmp", TMP), ("shm", "/dev/shm")];
    for (from, to) in disk {
        options.add([&"--bind", &places.disk.join(from), &to]);
    }
    options.add([&"--symlink", &WORKSPACE, &APP]);
    for alias in &spec.aliases {
        options.add([&"--bind", &places.disk.join("workspace"), alias]);
    }
    for (number, at) in spec.read_only.keys().enumerate() {
        options.add([&"--ro-bind", &places.store.join(number.to_string()), at]);
    }
    // What is left to write is limited: these two are not.
    options.add([&"--remount-ro", &"/dev", &"--remount-ro", &"/"]);
    let own = [
        ("PATH", super::PATH),
        ("HOME", HOME),
        ("USER", "agent"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("TMPDIR", TMP),
    ];
    let mut env: BTreeMap<OsString, OsString> = own.map(|(name, value)| (name.into(), value.into())).into();
    env.extend(spec.env.clone());
    let mut cwd = PathBuf::from(WORKSPACE);
    if let Some(exec) = exec {
        env.extend(exec.env.clone());
        // An empty part would leave a slash at the end.
        cwd.extend(exec.cwd.components());
    }
    options.env(&env);
    options.add([&"--chdir", &cwd]);
    let zero = options.0.iter().find(|word| word.as_encoded_bytes().contains(&0));
    match zero {
        Some(word) => Err(SandboxError::path(Path::new(word), "has a zero byte")),
        None => Ok(options.0),
    }
}
