//! HTTP as bytes: heads, bodies that come in chunks, the paths that are served, and refusals.
//!
//! Bytes go in, values come out. Nothing here decides where a request goes, reads a clock, or opens
//! anything.

pub mod error;
pub mod errors;
pub mod request;
pub mod route;
pub mod steer;
