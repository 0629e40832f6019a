//! What one process of a balancer leaves to the next.
//!
//! Two things go over: what was learned ([`state`]), and for a while the requests that the old process still
//! has at replicas ([`flight`]). Replicas and models go by their names, times as ages.
//!
//! | file | holds |
//! |---|---|
//! | `flight` | the requests of a predecessor that drains: they count at the gate like those of other balancers |

pub mod flight;
