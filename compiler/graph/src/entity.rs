//! Dense tables keyed by `u32` newtypes.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A `u32` newtype that indexes an [`EntityMap`].
pub trait EntityRef: Copy + Eq {
    /// The id of the entity at this place of its table.
    fn new(index: usize) -> Self;
    /// The place of the entity in its table.
    fn index(self) -> usize;
}

/// Declares an entity id with a one-letter prefix for printing.
#[macro_export]
macro_rules! entity_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $crate::entity::EntityRef for $name {
            fn new(index: usize) -> Self {
                $name(index as u32)
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

/// A table that owns its entities: ids are handed out by [`EntityMap::push`] and stay valid.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityMap<K, V> {
    items: Vec<V>,
    key: PhantomData<K>,
}

impl<K, V> Default for EntityMap<K, V> {
    fn default() -> Self {
        EntityMap {
            items: Vec::new(),
            key: PhantomData,
        }
    }
}

impl<K: EntityRef, V> EntityMap<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an entity at the end.
    pub fn push(&mut self, value: V) -> K {
        self.items.push(value);
        K::new(self.items.len() - 1)
    }
    /// How many entities have been added; none is ever removed.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// Whether none has been added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// The entity, if the id is of this table. Indexing panics where this is `None`.
    pub fn get(&self, key: K) -> Option<&V> {
        self.items.get(key.index())
    }
    /// All ids, in the order of adding.
    pub fn keys(&self) -> impl Iterator<Item = K> + use<K, V> {
        (0..self.items.len()).map(K::new)
    }
    /// All entities, in the order of adding.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.items.iter()
    }
    /// Ids with their entities, in the order of adding.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.items.iter().enumerate().map(|(i, v)| (K::new(i), v))
    }
}

impl<K: EntityRef, V> Index<K> for EntityMap<K, V> {
    type Output = V;
    fn index(&self, key: K) -> &V {
        &self.items[key.index()]
    }
}

impl<K: EntityRef, V> IndexMut<K> for EntityMap<K, V> {
    fn index_mut(&mut self, key: K) -> &mut V {
        &mut self.items[key.index()]
    }
}
