//! What the control plane and the mesh report: facts about replicas and peers, operators' wishes, time.
//!
//! The files beside this package are a request's life. A fact changes what the router knows. Then it starts
//! what may start now.

mod adopt;
mod cached;
mod keep;
mod peers;
mod replicas;

pub use adopt::Adopted;
