//! The simulator: a fleet in virtual time. Its decisions are made by the engine of `skylb serve`.
//!
//! [`Simulator`] reads a [`scenario`] and a [`workload`], runs event after event, and reports a
//! [`result`]. Each balancer is an [`engine::router::Router`](crate::engine::router::Router) behind
//! a simulated network, each replica a [`replica::ReplicaModel`], the one that `skylb mock` runs in
//! real time.
//!
//! | file | holds |
//! |---|---|
//! | `scenario`, `fault`, `check`, `workload`, `result` | what goes in and comes out, as JSON |
//! | `queue` | events in order of time |
//! | `network` | delays, loss, slow start, cuts |
//! | `prompt` | prompts as hashes of token blocks |
//! | `clients` | users and their sessions |
//! | `balancer`, `oracle` | what decides: the engine, or an oracle |
//! | `fleet`, `replica` | replicas with their faults |
//! | `live` | requests under way |
//! | `exchange`, `forwards` | what balancers of different regions send each other, and forwards between them |
//! | `region` | what balancers of one region send each other about its replicas |
//! | `process` | balancers that end and begin anew |
//! | `simulator`, `requests`, `answers`, `control` | what happens at each event |
//! | `measure`, `stats` | figures |
//! | `invariants`, `room` | what must hold of every run, and of shared replicas |

mod answers;
mod balancer;
mod calm;
mod check;
mod clients;
mod control;
mod exchange;
pub mod fault;
mod fleet;
mod forwards;
mod invariants;
mod ledger;
mod live;
mod mail;
mod measure;
mod network;
mod oracle;
mod process;
mod prompt;
mod queue;
mod region;
pub mod replica;
mod reporting;
mod requests;
pub mod result;
mod room;
pub mod scenario;
mod simulator;
mod stats;
#[cfg(test)]
mod tests;
pub mod workload;

pub use simulator::{Broken, Simulator};
