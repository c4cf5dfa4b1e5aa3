//! Files of a workspace, read from outside. The names are those of untrusted code: the kernel resolves each beneath the
//! workspace's own descriptor, nothing that is opened blocks, and what counts is the opened file, not what its name
//! meant before.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
            net::UnixStream,
        },
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat},
    io::Errno,
};

use crate::SandboxError;

/// Entries that one listing has.
const LISTED: usize = 10_000;
/// Entries that one copy looks at, and how deep.
const COPIED: u64 = 200_000;
const DEPTH: usize = 64;

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By name; at most 10,000.
    pub entries: Vec<Entry>,
    /// There are more.
    pub cut: bool,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Not always UTF-8, and it may have line ends.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
    /// Of a file.
    pub bytes: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe or a socket.
    Other,
}

/// What a copy has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Regular files.
    pub files: u64,
    /// In them.
    pub bytes: u64,
    /// Links, pipes, sockets, what lies 64 folders deep, and what is too much.
    pub skipped: u64,
}

/// A regular file of at most `limit` bytes.
pub(crate) fn read(workspace: &OwnedFd, path: &Path, limit: u64) -> Result<Vec<u8>, SandboxError> {
    let file = File::from(open(workspace, path, OFlags::empty())?);
    let failed = |error: io::Error| SandboxError::path(path, format!("cannot be read: {error}"));
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(SandboxError::path(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    // It may grow.
    let length = match about.len() {
        length if length > limit => length,
        _ => file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)? as u64,
    };
    if length > limit {
        return Err(SandboxError::TooLarge { path: path.into(), bytes: length, limit });
    }
    Ok(bytes)
}

/// What is in a folder.
pub(crate) fn list(workspace: &OwnedFd, path: &Path) -> Result<Listing, SandboxError> {
    let failed = |errno: Errno| SandboxError::path(path, format!("cannot be read: {errno}"));
    let folder = open(workspace, path, OFlags::DIRECTORY)?;
    let mut listing = Listing::default();
    for name in names(&folder).map_err(failed)? {
        if listing.entries.len() == LISTED {
            listing.cut = true;
            break;
        }
        let Ok(about) = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let (kind, bytes) = kind(&about);
        listing.entries.push(Entry { name, kind, bytes });
    }
    listing.entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(listing)
}

/// Copies folders and regular files of at most `limit` bytes together.
pub(crate) fn copy_out(
    workspace: &OwnedFd,
    path: &Path,
    to: &Path,
    limit: u64,
) -> Result<Copied, SandboxError> {
    let folder = open(workspace, path, OFlags::DIRECTORY)?;
    let mut copy = Copy { copied: Copied::default(), looked: 0, limit };
    copy.folder(&folder, to, DEPTH).map_err(|source| SandboxError::io("copy out of a workspace", source))?;
    Ok(copy.copied)
}

/// The folder and the name of a file that may be written: no part of them is a link now.
pub(crate) fn place(workspace: &OwnedFd, path: &Path) -> Result<(PathBuf, OsString), SandboxError> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), plain) else {
        return Err(SandboxError::path(path, "is not a path of a file in the workspace"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    for ancestor in parent.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        match openat2(workspace, ancestor, flags, Mode::empty(), beneath) {
            // All above it are, too.
            Ok(_) => break,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(path, errno)),
        }
    }
    match openat2(workspace, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath) {
        Ok(_) | Err(Errno::NOENT) => Ok((parent.into(), name.into())),
        Err(errno) => Err(refused(path, errno)),
    }
}

/// A stream to a socket. No part of `path` may be a link.
pub(crate) fn connect(folder: &OwnedFd, path: &Path) -> Result<UnixStream, String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let socket = openat2(folder, path, flags, Mode::empty(), beneath).map_err(|errno| match errno {
        Errno::NOENT => "does not exist".to_owned(),
        errno => format!("cannot be opened: {errno}"),
    })?;
    let about = fstat(&socket).map_err(|errno| format!("cannot be opened: {errno}"))?;
    if FileType::from_raw_mode(about.st_mode) != FileType::Socket {
        return Err("is not a socket".to_owned());
    }
    // By the descriptor: what the name means may have changed.
    let at = format!("/proc/self/fd/{}", socket.as_raw_fd());
    UnixStream::connect(at).map_err(|error| format!("cannot be connected to: {error}"))
}

struct Copy {
    copied: Copied,
    looked: u64,
    limit: u64,
}

impl Copy {
    fn folder(&mut self, from: &OwnedFd, to: &Path, depth: usize) -> io::Result<()> {
        fs::create_dir(to)?;
        for name in names(from)? {
            self.looked += 1;
            if self.looked > COPIED {
                self.copied.skipped += 1;
                return Ok(());
            }
            // Without waiting for whoever is at the other end of a pipe.
            let flags =
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let Ok(entry) = openat(from, &name, flags, Mode::empty()).map(File::from) else {
                self.copied.skipped += 1;
                continue;
            };
            let about = entry.metadata()?;
            let to = to.join(&name);
            let done = if about.is_dir() && depth > 0 {
                self.folder(&entry.into(), &to, depth - 1)
            } else if about.is_file() && about.len() <= self.limit - self.copied.bytes {
                self.file(entry, &to, about.mode())
            } else {
                self.copied.skipped += 1;
                Ok(())
            };
            match done {
                // Names inside may be longer in all than names on the host.
                Err(error) if error.kind() == io::ErrorKind::InvalidFilename => self.copied.skipped += 1,
                done => done?,
            }
        }
        Ok(())
    }

    fn file(&mut self, from: File, to: &Path, mode: u32) -> io::Result<()> {
        let executable = mode & 0o111;
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o644 | executable).open(to)?;
        // It may grow.
        let left = self.limit - self.copied.bytes;
        self.copied.bytes += io::copy(&mut from.take(left), &mut copy)?;
        self.copied.files += 1;
        Ok(())
    }
}

fn open(workspace: &OwnedFd, path: &Path, more: OFlags) -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    let path_or_all = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(workspace, path_or_all, flags, Mode::empty(), beneath).map_err(|errno| refused(path, errno))
}

fn refused(path: &Path, errno: Errno) -> SandboxError {
    let why = match errno {
        Errno::NOENT => "does not exist".into(),
        Errno::XDEV => "leads out of the workspace".into(),
        Errno::LOOP => "goes through a link".into(),
        Errno::NXIO => "is not a regular file".into(),
        errno => format!("cannot be opened: {errno}"),
    };
    SandboxError::path(path, why)
}

/// Without the two that every folder has.
fn names(folder: &OwnedFd) -> Result<impl Iterator<Item = OsString>, Errno> {
    let names = Dir::read_from(folder.as_fd())?
        .map_while(Result::ok)
        .map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
        .filter(|name| name != "." && name != "..");
    Ok(names)
}

fn kind(about: &Stat) -> (Kind, u64) {
    match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => (Kind::File, u64::try_from(about.st_size).unwrap_or(0)),
        FileType::Directory => (Kind::Folder, 0),
        FileType::Symlink => (Kind::Link, 0),
        _ => (Kind::Other, 0),
    }
}
