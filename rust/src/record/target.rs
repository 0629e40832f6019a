//! The target of an attempt.

/// Where an attempt goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A replica, by name.
    Replica(Box<str>),
    /// A peer, by name.
    Peer(Box<str>),
}
