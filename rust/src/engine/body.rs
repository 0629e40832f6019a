//! Strict scan of an inference request's body, without building a tree.
