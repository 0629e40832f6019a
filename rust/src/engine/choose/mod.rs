//! Which replica, or which peer, gets a request.

pub mod candidates;
pub mod peer;
pub mod policy;
