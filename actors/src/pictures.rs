//! Images that screens have shown, in a folder of the run, each named by the SHA-256 of its bytes. What agents did is looked at
//! with them, and a judge that sees is shown them. The oldest go when the folder grows beyond its limit.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use openclaw_model::durable::{self, Access};
use sha2::{Digest, Sha256};

/// What a PNG begins with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// A screen is some hundred thousand bytes.
const MOST_IMAGE_BYTES: usize = 16 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub struct Pictures {
    dir: PathBuf,
    limit: u64,
    /// Bytes in it; none before it was looked at.
    used: Arc<Mutex<Option<u64>>>,
}

impl PartialEq for Pictures {
    fn eq(&self, other: &Self) -> bool {
        (&self.dir, self.limit) == (&other.dir, other.limit)
    }
}

/// Why an image is not kept.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It is not what it is said to be.
    #[error("an image is no PNG of at most {MOST_IMAGE_BYTES} bytes with the SHA-256 {0}")]
    Other(String),
    /// The disk.
    #[error("images cannot be kept in {dir}")]
    Disk {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PictureError {
    /// For the counter.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Other(_) => "not_an_image",
            Self::Disk { .. } => "disk",
        }
    }
}

impl Pictures {
    /// At most `limit` bytes in `dir`, which need not be there.
    pub fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, used: Arc::default() }
    }

    /// Keeps a PNG whose bytes have this SHA-256, in hexadecimal digits.
    pub fn keep(&self, sha256: &str, bytes: &[u8]) -> Result<(), PictureError> {
        if !bytes.starts_with(PNG) || bytes.len() > MOST_IMAGE_BYTES || sha256_of(bytes) != sha256 {
            return Err(PictureError::Other(sha256.chars().take(64).collect()));
        }
        let disk = |source| PictureError::Disk { dir: self.dir.clone(), source };
        // One at a time: whoever makes room must not take what another has just found to be there.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&self.dir).map_err(disk)?;
        let path = self.path(sha256);
        if path.exists() {
            // It counts as new: what is shown again stays.
            return fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).map_err(disk);
        }
        durable::write(&path, bytes, Access::Umask).map_err(disk)?;
        let now = match *used {
            Some(used) => used + bytes.len() as u64,
            None => listed(&self.dir).map_err(disk)?.iter().map(|(_, bytes, _)| bytes).sum(),
        };
        *used = Some(if now > self.limit { self.make_room().map_err(disk)? } else { now });
        Ok(())
    }

    /// The bytes of an image that is there.
    pub fn read(&self, sha256: &str) -> Option<Vec<u8>> {
        let is_name = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_name.then(|| fs::read(self.path(sha256)).ok()).flatten()
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}.png"))
    }

    /// Lets the oldest go, down to three quarters of the limit; returns what is left.
    fn make_room(&self) -> io::Result<u64> {
        let mut files = listed(&self.dir)?;
        files.sort();
        let mut left: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if left <= self.limit / 4 * 3 {
                break;
            }
            fs::remove_file(&path)?;
            left -= bytes;
            metrics::counter!("openclaw_agent_images_dropped_total", "reason" => "limit").increment(1);
        }
        Ok(left)
    }
}

fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn listed(dir: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let about = entry.metadata()?;
        Ok((about.modified()?, about.len(), entry.path()))
    };
    fs::read_dir(dir)?.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(of: u8) -> (String, Vec<u8>) {
        let bytes = [PNG, &[of; 1000]].concat();
        (sha256_of(&bytes), bytes)
    }

    #[test]
    fn images_are_found_by_what_they_are_and_the_oldest_make_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let pictures = Pictures::new(dir.path().join("images"), 4 * 1008);
        let images: Vec<_> = (0..5).map(image).collect();
        let old = |number: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
        for (number, (name, bytes)) in (1..).zip(&images[..4]) {
            pictures.keep(name, bytes).expect("kept");
            let file = fs::File::open(pictures.path(name)).expect("there");
            file.set_modified(old(number)).expect("dated");
        }
        // Shown again, the first is the newest.
        pictures.keep(&images[0].0, &images[0].1).expect("kept");
        pictures.keep(&images[4].0, &images[4].1).expect("kept");
        let kept: Vec<bool> = images.iter().map(|(name, _)| pictures.read(name).is_some()).collect();
        assert_eq!(kept, [true, false, false, true, true]);
        assert_eq!(pictures.read(&images[4].0).as_ref(), Some(&images[4].1));
        assert_eq!(
            Pictures::new(dir.path().join("images"), 1).read(&images[4].0).as_ref(),
            Some(&images[4].1)
        );
    }

    #[test]
    fn what_is_not_the_image_that_it_is_said_to_be_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let pictures = Pictures::new(dir.path().join("images"), 1 << 20);
        let (name, mut bytes) = image(1);
        bytes.push(0);
        assert_eq!(pictures.keep(&name, &bytes).expect_err("another").name(), "not_an_image");
        let script = b"<svg onload='alert(1)'/>".to_vec();
        assert_eq!(pictures.keep(&sha256_of(&script), &script).expect_err("no PNG").name(), "not_an_image");
        fs::write(dir.path().join("secret.png"), "s").expect("written");
        for name in ["../secret", "", "g".repeat(64).as_str(), &name] {
            assert!(pictures.read(name).is_none(), "{name}");
        }
    }
}
