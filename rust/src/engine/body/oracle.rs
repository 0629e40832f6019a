//! A second, slow way to the same stream, over a parsed tree: what the tests compare with.
