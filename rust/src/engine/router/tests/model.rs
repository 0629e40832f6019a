//! The whole router against an oracle.
