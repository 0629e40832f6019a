//! What one probe of an engine said, read by a scanner.

/// Whose metric names a page uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// vLLM, old and new names.
    Vllm,
    /// `SGLang`.
    Sglang,
}

/// What one `/metrics` page said. `None` is unknown, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Requests in the batch, over all engines (data-parallel ranks) of the replica.
    pub running: Option<u32>,
    /// Requests that wait for room, without `deferred` where the engine tells them apart.
    pub waiting: Option<u32>,
    /// Requests that wait for something else than room.
    pub deferred: Option<u32>,
    /// Share of KV blocks in use, 0 to 1: that of the fullest engine.
    pub kv_usage: Option<f64>,
    /// KV capacity in tokens, over all engines.
    pub kv_tokens: Option<u64>,
    /// Tokens per KV block.
    pub block_size: Option<u32>,
    /// Prefix-cache queries since the engine started, in tokens.
    pub cache_queries: Option<u64>,
    /// Prefix-cache hits since the engine started, in tokens.
    pub cache_hits: Option<u64>,
    /// Preemptions since the engine started.
    pub preemptions: Option<u64>,
    /// The engine sleeps: nothing may be sent.
    pub sleeping: bool,
    /// `LoRA` adapters in the running batch.
    pub loras_running: Vec<String>,
}

impl Snapshot {
    /// Both counters the gate needs are known.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.running.is_some() && self.waiting.is_some()
    }
}

/// Reads a Prometheus page, looking only for the names it needs.
#[must_use]
pub fn scan(_page: &[u8], _dialect: Dialect) -> Snapshot {
    Snapshot::default()
}

