//! What the engine asks its driver to do.
