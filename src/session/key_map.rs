//! A small map from keys to what is said about them, sorted, without an allocation for the first one.

use smallvec::SmallVec;

/// Keys in order, each once. Most requests change one value: a tree would allocate more than that takes to store.
#[derive(Clone)]
pub(super) struct KeyMap<T> {
    entries: SmallVec<[(String, T); 1]>,
}

impl<T> KeyMap<T> {
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        let (_, value) = self.entries.get(self.position(key).ok()?)?;
        Some(value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        let at = self.position(key).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// Puts `value` in the place of what was there, and returns that.
    pub(super) fn insert(&mut self, key: &str, value: T) -> Option<T> {
        match self.position(key) {
            Ok(at) => {
                let (_, present) = self.entries.get_mut(at)?;
                Some(std::mem::replace(present, value))
            }
            Err(at) => {
                self.entries.insert(at, (key.to_owned(), value));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<T> {
        let at = self.position(key).ok()?;
        Some(self.entries.remove(at).1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(present, _)| present.as_str().cmp(key))
    }
}

impl<T> IntoIterator for KeyMap<T> {
    type Item = (String, T);
    type IntoIter = smallvec::IntoIter<[(String, T); 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<T> Default for KeyMap<T> {
    fn default() -> Self {
        Self { entries: SmallVec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_what_a_tree_does(deeds in proptest::collection::vec(("[a-d]{0,2}", 0..4_u8, 0..9_u8), 0..60)) {
            let (mut map, mut tree) = (KeyMap::default(), BTreeMap::new());
            for (key, deed, value) in deeds {
                match deed {
                    0 => prop_assert_eq!(map.remove(&key), tree.remove(&key)),
                    1 => prop_assert_eq!(map.get_mut(&key).map(|old| *old = value), tree.get_mut(&key).map(|old| *old = value)),
                    _ => prop_assert_eq!(map.insert(&key, value), tree.insert(key.clone(), value)),
                }
                prop_assert_eq!(map.get(&key), tree.get(&key));
                prop_assert_eq!(map.is_empty(), tree.is_empty());
                prop_assert!(map.iter().eq(tree.iter().map(|(key, value)| (key.as_str(), value))));
            }
            prop_assert!(map.into_iter().eq(tree));
        }
    }
}
