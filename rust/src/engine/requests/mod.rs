//! The requests that have not ended.

pub mod budget;
pub mod look;
pub mod recent;
pub mod request;
