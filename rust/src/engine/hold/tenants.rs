//! What each tenant has in the hold.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::super::config::Config;
use crate::id::Nanos;

/// How long a request with a credential is remembered.
const NAMED_NS: Nanos = 600_000_000_000;

/// Whose request it is: a keyed hash of its tenant's name, else of its credential; `None` of requests
/// with neither.
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
pub(super) struct Tenants {
    used: HashMap<Tenant, Use, FixedState>,
    /// When a request came last that says whose it is.
    named_ns: Option<Nanos>,
}

impl Tenants {
    pub(super) fn new() -> Self {
        Self {
            used: HashMap::with_hasher(FixedState::default()),
            named_ns: None,
        }
    }

    /// A request of this tenant came.
    pub(super) fn saw(&mut self, tenant: Tenant, now_ns: Nanos) {
        if tenant.is_some() {
            self.named_ns = Some(now_ns);
        }
    }

    /// Requests and bytes that a tenant may have in the hold at this moment.
    ///
    /// Requests that say nothing of whose they are count as one tenant's. Where nobody says it, there
    /// is nobody to keep room for, and by default they may have all.
    pub(super) fn bounds(&self, tenant: Tenant, config: &Config, now_ns: Nanos) -> (usize, u64) {
        let (len_max, bytes_max) = config.hold_of_tenant_max();
        let named = |at_ns: Nanos| now_ns.saturating_sub(at_ns) < NAMED_NS;
        if tenant.is_some() || self.named_ns.is_some_and(named) {
            return (len_max, bytes_max);
        }
        (
            config.hold_tenant_len_max.unwrap_or(config.hold_len_max),
            config
                .hold_tenant_bytes_max
                .unwrap_or(config.hold_bytes_max),
        )
    }

    pub(super) fn of(&self, tenant: Tenant) -> Use {
        self.used.get(&tenant).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, tenant: Tenant, bytes: u64) {
        self.used.entry(tenant).or_default().add(bytes);
    }

    pub(super) fn take(&mut self, tenant: Tenant, bytes: u64) {
        if let Some(used) = self.used.get_mut(&tenant) {
            used.take(bytes);
            if used.requests == 0 {
                self.used.remove(&tenant);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len()
    }
}
