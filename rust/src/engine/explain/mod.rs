//! What operators see of the engine, and ask of it: its state, and why requests went where they went.
//!
//! | file | holds |
//! |---|---|
//! | `state` | replicas, hold, tree and peers at one moment |
//! | `keep` | receipts: what is kept of a request |
//! | `receipt` | a receipt as JSON |
//! | `rehearse` | what would be decided now, without doing it |
//! | `reckoned` | what a policy reckons for a candidate, part by part |

mod keep;
mod receipt;
mod reckoned;
mod rehearse;
mod state;
