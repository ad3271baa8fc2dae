//! A sorted map from keys to values, without an allocation for the first key.

use std::collections::{BTreeMap, btree_map};

use smallvec::SmallVec;

/// Keys in order, each once. Most requests change one value, and a tree would allocate more than that value needs.
#[derive(Clone)]
pub(super) struct KeyMap<T> {
    few: SmallVec<[(String, T); 1]>,
    /// All keys, if there are more than [`FEW`]. Inserting into an array takes time that is linear in its length.
    many: BTreeMap<String, T>,
}

const FEW: usize = 32;

impl<T> KeyMap<T> {
    pub(super) fn get(&self, key: &str) -> Option<&T> {
        match self.position(key) {
            Ok(at) => self.few.get(at).map(|(_, value)| value),
            Err(_) => self.many.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        match self.position(key) {
            Ok(at) => self.few.get_mut(at).map(|(_, value)| value),
            Err(_) => self.many.get_mut(key),
        }
    }

    /// Sets the value of `key`, and returns the previous one.
    pub(super) fn insert(&mut self, key: &str, value: T) -> Option<T> {
        match self.position(key) {
            Ok(at) => {
                let (_, present) = self.few.get_mut(at)?;
                Some(std::mem::replace(present, value))
            }
            Err(at) if self.many.is_empty() && self.few.len() < FEW => {
                self.few.insert(at, (key.to_owned(), value));
                None
            }
            Err(_) => {
                self.many.extend(self.few.drain(..));
                self.many.insert(key.to_owned(), value)
            }
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<T> {
        match self.position(key) {
            Ok(at) => Some(self.few.remove(at).1),
            Err(_) => self.many.remove(key),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let few = self.few.iter().map(|(key, value)| (key.as_str(), value));
        few.chain(self.many.iter().map(|(key, value)| (key.as_str(), value)))
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.few.binary_search_by(|(present, _)| present.as_str().cmp(key))
    }
}

impl<T> IntoIterator for KeyMap<T> {
    type Item = (String, T);
    type IntoIter = std::iter::Chain<smallvec::IntoIter<[(String, T); 1]>, btree_map::IntoIter<String, T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.few.into_iter().chain(self.many)
    }
}

impl<T> Default for KeyMap<T> {
    fn default() -> Self {
        Self { few: SmallVec::new(), many: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    // Forty thousand keys in descending order took a second, because each was inserted at the front of an array.
    #[test]
    fn many_keys_are_not_in_an_array() {
        let mut map = KeyMap::default();
        for n in (0..40_000).rev() {
            map.insert(&format!("{n:05}"), n);
            assert!(map.few.len() <= FEW);
        }
        assert!(map.few.is_empty() && map.many.len() == 40_000);
        assert!(map.iter().map(|(_, n)| *n).eq(0..40_000));
    }

    proptest! {
        #[test]
        fn does_what_a_tree_does(deeds in proptest::collection::vec(("[a-h]{0,2}", 0..6_u8, 0..9_u8), 0..200)) {
            let (mut map, mut tree) = (KeyMap::default(), BTreeMap::new());
            for (key, deed, value) in deeds {
                match deed {
                    0 => prop_assert_eq!(map.remove(&key), tree.remove(&key)),
                    1 => prop_assert_eq!(map.get_mut(&key).map(|old| *old = value), tree.get_mut(&key).map(|old| *old = value)),
                    _ => prop_assert_eq!(map.insert(&key, value), tree.insert(key.clone(), value)),
                }
                prop_assert_eq!(map.get(&key), tree.get(&key));
                prop_assert!(map.iter().eq(tree.iter().map(|(key, value)| (key.as_str(), value))));
            }
            prop_assert!(map.clone().into_iter().eq(tree));
        }
    }
}
