//! The bytes of what worlds have shown, by their content, as long as a lease that has shown them lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use openclaw_environments::world::ImageRef;

use crate::meters;

/// The images of all leases.
pub struct Images {
    /// Of one lease.
    most_bytes: usize,
    held: BTreeMap<String, Held>,
    /// What each lease has shown, the oldest first.
    shown: BTreeMap<String, Vec<(String, usize)>>,
}

struct Held {
    bytes: Bytes,
    media_type: Arc<str>,
    leases: BTreeSet<String>,
}

impl Images {
    /// None yet; of each lease that many bytes are kept.
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, held: BTreeMap::new(), shown: BTreeMap::new() }
    }

    /// Keeps one. Where it is too much for its lease, the oldest go.
    pub fn keep(&mut self, lease_id: &str, image: &ImageRef, bytes: Vec<u8>) {
        let size = bytes.len();
        if size > self.most_bytes {
            meters::images_dropped(1);
            return;
        }
        let held = self.held.entry(image.sha256.clone()).or_insert_with(|| Held {
            bytes: bytes.into(),
            media_type: image.media_type.as_str().into(),
            leases: BTreeSet::new(),
        });
        if !held.leases.insert(lease_id.to_owned()) {
            return;
        }
        let shown = self.shown.entry(lease_id.to_owned()).or_default();
        shown.push((image.sha256.clone(), size));
        let mut total: usize = shown.iter().map(|(_, size)| size).sum();
        let mut gone = Vec::new();
        while total > self.most_bytes {
            let (sha256, size) = shown.remove(0);
            total -= size;
            gone.push(sha256);
        }
        meters::images_dropped(gone.len());
        for sha256 in gone {
            self.let_go(lease_id, &sha256);
        }
    }

    /// One by its content, and what it is.
    pub fn get(&self, sha256: &str) -> Option<(Bytes, Arc<str>)> {
        self.held.get(sha256).map(|held| (held.bytes.clone(), held.media_type.clone()))
    }

    /// A lease is over.
    pub fn release(&mut self, lease_id: &str) {
        for (sha256, _) in self.shown.remove(lease_id).unwrap_or_default() {
            self.let_go(lease_id, &sha256);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    fn let_go(&mut self, lease_id: &str, sha256: &str) {
        let Some(held) = self.held.get_mut(sha256) else { return };
        held.leases.remove(lease_id);
        if held.leases.is_empty() {
            self.held.remove(sha256);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> ImageRef {
        ImageRef { sha256: name.to_owned(), width: 1, height: 1, media_type: "image/png".into() }
    }

    #[test]
    fn images_live_as_long_as_a_lease_that_has_shown_them_and_are_bounded() {
        let mut images = Images::new(10);
        images.keep("a", &image("1"), vec![1; 6]);
        images.keep("b", &image("1"), vec![1; 6]);
        images.release("a");
        assert_eq!(images.get("1").map(|(bytes, _)| bytes.len()), Some(6));
        images.keep("b", &image("2"), vec![2; 6]);
        assert!(images.get("1").is_none() && images.get("2").is_some(), "the oldest goes");
        images.keep("b", &image("3"), vec![3; 11]);
        assert!(images.get("3").is_none(), "it is too large by itself");
        images.release("b");
        assert_eq!((images.count(), images.shown.len()), (0, 0));
    }
}
