//! What one process of a balancer leaves to the next.
//!
//! Two things go over: what was learned ([`state`]), and for a while the requests that the old process still
//! has at replicas ([`flight`]). Replicas and models go by their names, times as ages.
//!
//! | file | holds |
//! |---|---|
//! | `flight` | the requests of a predecessor that drains: they count at the gate like those of other balancers |
//! | `state` | what was learned: the tree, speeds, lengths, sessions, tenants' accounts |
//! | `file` | the form of a state: version, sections, checksum |

pub mod file;
pub mod flight;
pub mod state;
