//! How one engine names its metrics.

use super::totals::Totals;

/// One engine's metrics. To add one, write a file like `vllm.rs`, and a row in
/// [`DIALECTS`](super::DIALECTS).
#[derive(Debug)]
pub struct Dialect {
    /// For logs and `/state`.
    pub name: &'static str,
    /// What the names of its metrics begin with, and no other engine's.
    pub prefix: &'static str,
    /// The names of all metrics that are read, to ask an engine for no others.
    pub names: &'static [&'static str],
    /// Takes a line without its prefix.
    pub(super) take: fn(&mut Totals, &[u8]),
    /// Ends a page.
    pub(super) finish: fn(&mut Totals),
}
