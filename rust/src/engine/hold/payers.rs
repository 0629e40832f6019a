//! The tenants and credentials that held requests count for, and how much each of them has in the hold.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::super::config::Config;
use crate::prompt::DigestConfig;
use crate::prompt::isolation::Owner;
use crate::time::{Instant, Span};

/// How long a request with a tenant or a credential is remembered.
const NAMED_NS: Span = Span::from_ns(600_000_000_000);

/// Whom a held request counts for: a keyed hash of its tenant's name, else of its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Requests with neither: they count as one.
    Anonymous,
    /// A tenant.
    Tenant(u64),
    /// A credential without a tenant. It may be spelled like a tenant's name and counts apart.
    Credential(u64),
}

impl Payer {
    /// The payer of an owner's requests.
    pub(in crate::engine) fn of(owner: Owner<'_>, config: &DigestConfig) -> Self {
        match owner {
            Owner::Tenant(name) => Self::Tenant(config.key_of(name.as_bytes())),
            Owner::Credential(credential) => Self::Credential(config.key_of(credential)),
            Owner::Nobody => Self::Anonymous,
        }
    }

    /// Whose stored responses its requests may ask for: a tenant's own, and where owners are isolated
    /// a credential's own. All others have theirs in common.
    pub(in crate::engine) fn keeper(self, isolates: bool) -> u64 {
        match self {
            Self::Tenant(tenant) => tenant,
            Self::Credential(credential) if isolates => !credential,
            Self::Credential(_) | Self::Anonymous => 0,
        }
    }
}

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

/// By payer; those with nothing in the hold are not kept.
#[derive(Debug)]
pub(super) struct Payers {
    used: HashMap<Payer, Use, FixedState>,
    /// When a request came last that has a tenant or a credential.
    named_ns: Option<Instant>,
    /// Those whose name and weight are known.
    terms: HashMap<Payer, (Box<str>, u32), FixedState>,
}

impl Payers {
    pub(super) fn new() -> Self {
        Self {
            used: HashMap::with_hasher(FixedState::default()),
            named_ns: None,
            terms: HashMap::with_hasher(FixedState::default()),
        }
    }

    pub(super) fn set_terms(&mut self, terms: impl IntoIterator<Item = (Payer, Box<str>, u32)>) {
        let terms = terms.into_iter();
        let terms = terms.map(|(payer, name, weight)| (payer, (name, weight)));
        self.terms = terms.collect();
    }

    /// The share of the room that a payer's requests have.
    pub(super) fn weight(&self, payer: Payer) -> u32 {
        if self.terms.is_empty() {
            return 1;
        }
        self.terms.get(&payer).map_or(1, |(_, weight)| *weight)
    }

    /// What operators call a payer: its name where that is known, else a number that stands for it here.
    pub(super) fn called(&self, payer: Payer) -> String {
        match (self.terms.get(&payer), payer) {
            (Some((name, _)), _) => name.to_string(),
            (None, Payer::Anonymous) => "(anonymous)".to_owned(),
            (None, Payer::Tenant(key)) => format!("(tenant {key:016x})"),
            (None, Payer::Credential(key)) => format!("(credential {key:016x})"),
        }
    }

    /// A request of this payer came.
    pub(super) fn saw(&mut self, payer: Payer, now: Instant) {
        if payer != Payer::Anonymous {
            self.named_ns = Some(now);
        }
    }

    /// Requests and bytes that a payer may have in the hold at this moment.
    ///
    /// Where all requests are anonymous, there is nobody to keep room for: by default they may have all.
    pub(super) fn bounds(&self, payer: Payer, config: &Config, now: Instant) -> (usize, u64) {
        let (len_max, bytes_max) = config.hold_of_tenant_max();
        let named = |at_ns: Instant| now - at_ns < NAMED_NS;
        if payer != Payer::Anonymous || self.named_ns.is_some_and(named) {
            return (len_max, bytes_max);
        }
        (
            config.hold_tenant_len_max.unwrap_or(config.hold_len_max),
            config
                .hold_tenant_bytes_max
                .unwrap_or(config.hold_bytes_max),
        )
    }

    pub(super) fn of(&self, payer: Payer) -> Use {
        self.used.get(&payer).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, payer: Payer, bytes: u64) {
        self.used.entry(payer).or_default().add(bytes);
    }

    pub(super) fn take(&mut self, payer: Payer, bytes: u64) {
        if let Some(used) = self.used.get_mut(&payer) {
            used.take(bytes);
            if used.requests == 0 {
                self.used.remove(&payer);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.used.len()
    }
}
