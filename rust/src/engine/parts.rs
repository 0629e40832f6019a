//! The packages of the engine, for what explains its decisions: to be read, not to be changed.

use super::cache::Cache;
use super::choose::Chooser;
use super::config::Config;
use super::fleet::Fleet;
use super::hold::Hold;
use super::mesh::Mesh;
use super::requests::Requests;
use crate::engine::counters::Counters;
use crate::prompt::DigestConfig;
use crate::time::Instant;

/// All of them. See the module's text.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Parts<'a> {
    pub(in crate::engine) config: &'a Config,
    pub(in crate::engine) digest: &'a DigestConfig,
    pub(in crate::engine) fleet: &'a Fleet,
    pub(in crate::engine) cache: &'a Cache,
    pub(in crate::engine) chooser: &'a Chooser,
    pub(in crate::engine) hold: &'a Hold,
    pub(in crate::engine) mesh: &'a Mesh,
    pub(in crate::engine) requests: &'a Requests,
    pub(in crate::engine) counters: &'a Counters,
    /// When the last call came.
    pub(in crate::engine) now: Instant,
}
