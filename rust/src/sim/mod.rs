//! Models that run in virtual or real time alike.

pub mod replica;
