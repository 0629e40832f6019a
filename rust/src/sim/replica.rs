//! A continuous-batching replica with chunked prefill, paged KV and a prefix cache.
