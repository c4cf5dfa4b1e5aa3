//! A map that knows which entry was left alone the longest, so that a limit evicts that one.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// See the file's header.
#[derive(Debug)]
pub struct RecencyMap<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    clock: u64,
}

impl<K: Clone + Eq + Hash, V> Default for RecencyMap<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), clock: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> RecencyMap<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts `value` under `key` as the most recent entry; the former value is dropped.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(key, (self.clock, value));
    }

    /// Whether `key` is there.
    pub fn contains<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(key)
    }

    /// Looks without making the entry recent.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// Looks and makes the entry the most recent one.
    pub fn touch(&mut self, key: &K) -> Option<&mut V> {
        let (tick, value) = self.entries.get_mut(key)?;
        self.order.remove(tick);
        self.clock += 1;
        *tick = self.clock;
        self.order.insert(self.clock, key.clone());
        Some(value)
    }

    /// Takes the entry out.
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (tick, value) = self.entries.remove(key)?;
        self.order.remove(&tick);
        Some(value)
    }

    /// Takes out the entry left alone the longest.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        let (_, value) = self.entries.remove(&key).expect("order and entries hold the same keys");
        Some((key, value))
    }

    /// All entries, the one left alone the longest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.values().map(|key| (key, &self.entries[key].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_left_alone_the_longest_goes_first() {
        let mut map = RecencyMap::default();
        for key in ["a", "b", "c"] {
            map.insert(key, key.len());
        }
        map.touch(&"a");
        map.insert("b", 9);
        assert_eq!(map.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["c", "a", "b"]);
        assert_eq!(map.pop_oldest(), Some(("c", 1)));
        assert_eq!(map.remove("a"), Some(1));
        assert_eq!(map.pop_oldest(), Some(("b", 9)));
        assert_eq!((map.len(), map.pop_oldest()), (0, None));
    }
}
