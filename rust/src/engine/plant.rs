//! Bugs that the simulator's tests plant, to show that its checks find them.
//!
//! Each point asks [`Config::planted`](super::config::Config::planted), which outside of tests is
//! the constant `false`: nothing of this is in a release.

/// A bug on purpose, at one place each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A client that leaves keeps its place at the replica.
    SlotLostOnCancel,
    /// What is evicted may be in flight.
    PinnedEvicted,
    /// A response's head counts as its first body byte.
    CreditFromTheHead,
    /// The window never ends the wait of a request it passes over.
    Starved,
    /// A request whose replica crashes is forgotten.
    LostOnCrash,
    /// A retry is pushed twice.
    PushedTwice,
    /// A request that ends keeps its debit.
    DebitForever,
    /// Held requests are never expired.
    DeadlineIgnored,
    /// A request may go to replicas that serve another model.
    WrongModel,
    /// Attempts are not counted.
    AttemptsUnlimited,
    /// Draining replicas get new requests.
    DrainingIgnored,
    /// What came from a peer is sent on to another.
    CrossedTwice,
    /// Peers are chosen without a look at the rules of residency.
    ResidencyForgotten,
    /// What a peer told counts for ever.
    StaleBelieved,
    /// A forward that says it has crossed before is let in.
    HopIgnored,
    /// A forward that fails is forgotten.
    LostAway,
    /// Every balancer takes a shared replica's turn.
    TurnsIgnored,
    /// A shared replica's turn is anybody's but ours.
    TurnsKept,
    /// Requests of a balancer that is gone are counted for ever.
    DeadRemembered,
    /// The end of a shared replica's request is not told.
    EndsUntold,
    /// Room that an end gives is left to the next probe.
    RoomForgotten,
    /// A client that leaves leaves its tenant charged for what it did not get.
    ChargeKept,
    /// Tenants are not charged for what they are served.
    TenantUncharged,
}
