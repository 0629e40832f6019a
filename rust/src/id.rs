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

/// A dense number of a replica, or of a peer, inside the engine. Used again after removal.
pub type Slot = u32;

/// Monotonic time in nanoseconds, from the driver's clock.
pub type Nanos = u64;
