//! The target of an attempt.

/// Where an attempt goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A replica, by name.
    Replica(Box<str>),
    /// A peer, by name.
    Peer(Box<str>),
}

impl Target {
    /// The name of the replica or peer.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Replica(name) | Self::Peer(name) => name,
        }
    }
}
