//! Request heads, strictly, and the chunked decoder.
