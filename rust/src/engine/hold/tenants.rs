//! What each tenant has in the hold.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Whose request it is: a keyed hash of its credential; `None` of requests without one.
pub type Tenant = Option<u64>;

/// Requests and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) requests: usize,
    pub(super) bytes: u64,
}

impl Use {
    /// One request more stays within the bounds. The first fits whatever its size.
    pub(super) fn fits(self, bytes: u64, requests_max: usize, bytes_max: u64) -> bool {
        self.requests < requests_max
            && (self.requests == 0 || self.bytes.saturating_add(bytes) <= bytes_max)
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}

/// By tenant; those with nothing in the hold are not kept.
#[derive(Debug)]
pub(super) struct Tenants(HashMap<Tenant, Use, FixedState>);

impl Tenants {
    pub(super) fn new() -> Self {
        Self(HashMap::with_hasher(FixedState::default()))
    }

    pub(super) fn of(&self, tenant: Tenant) -> Use {
        self.0.get(&tenant).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, tenant: Tenant, bytes: u64) {
        self.0.entry(tenant).or_default().add(bytes);
    }

    pub(super) fn take(&mut self, tenant: Tenant, bytes: u64) {
        if let Some(used) = self.0.get_mut(&tenant) {
            used.take(bytes);
            if used.requests == 0 {
                self.0.remove(&tenant);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
