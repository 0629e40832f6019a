//! Identifiers. Plain numbers, given by the driver unless they say otherwise.

use serde::{Deserialize, Serialize};

/// A request, unique within one process for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A replica, unique within one engine; never reused for another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u32);

/// A peer, unique within one engine; never reused for another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u32);

/// A model or adapter, as the router interned its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u32);

/// A dense number of a replica inside the engine. Used again after removal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaSlot(u32);

/// A dense number of a peer inside the engine. Used again after removal.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSlot(u32);

macro_rules! slot {
    ($name:ident) => {
        impl $name {
            /// The slot at a place of a table.
            #[must_use]
            #[inline]
            pub fn new(index: usize) -> Self {
                Self(count(index))
            }

            /// Its place in tables by slot.
            #[must_use]
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }

            /// The same as a plain number, for structures that replicas and peers share.
            #[must_use]
            #[inline]
            pub fn number(self) -> u32 {
                self.0
            }
        }

        impl From<u32> for $name {
            #[inline]
            fn from(number: u32) -> Self {
                Self(number)
            }
        }
    };
}

slot!(ReplicaSlot);
slot!(PeerSlot);

/// A length or index as the 32 bits that counters and slots have; tables stay far below.
#[must_use]
#[inline]
pub fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Virtual time of the simulator, and lengths of it, in nanoseconds.
pub type Nanos = u64;
