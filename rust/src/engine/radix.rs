//! Path-compressed radix tree over block hashes, with owners.
