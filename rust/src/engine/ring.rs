//! Consistent-hash ring with virtual nodes and bounded load.
