//! Prompt bytes to chained, keyed block hashes.
