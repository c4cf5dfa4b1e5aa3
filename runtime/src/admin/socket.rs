//! The socket file: made so that only its owner can ever connect, taken over from a dead process, never from a
//! live one.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// The socket's name in the run's folder.
pub const SOCKET_FILE: &str = "admin.sock";

/// A socket address holds 108 bytes, and the last one is 0.
const LONGEST_PATH_BYTES: usize = 107;

/// A way to a socket that fits into a socket address; keep it for as long as the way is gone.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    /// The way to `folder/name`.
    pub fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= LONGEST_PATH_BYTES {
            return Ok(Self { path, _folder: None });
        }
        let opened = File::open(folder)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        if !short.exists() {
            let message =
                format!("{} is longer than the {LONGEST_PATH_BYTES} bytes of a socket", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self { path: short.join(name), _folder: Some(opened) })
    }

    /// The path to hand to the system.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

/// Whether a process answers at the socket of a run's folder. `Err` when it cannot be known.
pub fn is_live(run_dir: &Path) -> io::Result<bool> {
    if !run_dir.join(SOCKET_FILE).exists() {
        return Ok(false);
    }
    match UnixStream::connect(SocketPath::new(run_dir, SOCKET_FILE)?.as_path()) {
        Ok(_) => Ok(true),
        // What a process leaves that did not end in order.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Listens at the socket of a run's folder, in place of a dead process's.
pub fn bind(run_dir: &Path) -> io::Result<UnixListener> {
    // Bound where nobody else can enter, and moved once its mode is right: a mode set in place would be late.
    let private = run_dir.join(format!(".admin-{}", std::process::id()));
    if private.exists() {
        fs::remove_dir_all(&private)?;
    }
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = (|| {
        let listener = UnixListener::bind(SocketPath::new(&private, SOCKET_FILE)?.as_path())?;
        listener.set_nonblocking(true)?;
        let file = private.join(SOCKET_FILE);
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        fs::rename(&file, run_dir.join(SOCKET_FILE))?;
        Ok(listener)
    })();
    fs::remove_dir_all(&private)?;
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_its_owners_alone_and_replaces_one_that_nobody_reads() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_live(dir.path()).unwrap());
        let first = bind(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(is_live(dir.path()).unwrap());
        drop(first);
        assert!(dir.path().join(SOCKET_FILE).exists() && !is_live(dir.path()).unwrap());
        let _second = bind(dir.path()).unwrap();
        assert!(is_live(dir.path()).unwrap());
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [SOCKET_FILE]);
    }

    #[test]
    fn a_folder_whose_name_is_longer_than_a_socket_address_works_too() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let _listener = bind(&deep).unwrap();
        assert!(is_live(&deep).unwrap());
    }
}
