//! The limits of tenants: what each may use, what it has used, and which part of it is ours.

use super::{Ask, Router};
use crate::engine::tenants::message::MessageError;
use crate::engine::tenants::standing::Standing;
use crate::engine::tenants::terms::TermsError;
use crate::id::PeerId;
use crate::prompt::class::Class;
use crate::tenant::Tenant;
use crate::time::Instant;

impl Router {
    /// Sets the terms of all tenants, as JSON, for requests placed from now on.
    ///
    /// # Errors
    ///
    /// They cannot be read, or a value is out of its range: the old terms stay.
    pub fn set_tenants(&mut self, terms: &[u8], now: Instant) -> Result<(), TermsError> {
        let now = self.advance(now);
        self.requests.tenants_mut().set(terms, now)?;
        let weights = self.requests.tenants().weights();
        let shares = weights.map(|(name, weight)| (self.tenant(name), name.into(), weight));
        let shares: Vec<_> = shares.collect();
        self.hold.set_terms(shares);
        self.share_limits(true, now);
        Ok(())
    }

    /// What tenants have used, as JSON for operators.
    ///
    /// # Errors
    ///
    /// None in practice: every value has a form in JSON.
    pub fn tenant_usage(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.requests.tenants().usage()
    }

    /// The most urgent class that a tenant's requests may have, if it has a bound.
    #[must_use]
    pub fn highest_class(&self, tenant: Tenant<&str>) -> Option<Class> {
        self.requests.tenants().highest_class(tenant)
    }

    /// Whether a tenant's streams may go on elsewhere, where streams do.
    #[must_use]
    pub fn continues(&self, tenant: Tenant<&str>) -> bool {
        self.requests.tenants().continues(tenant)
    }

    /// The class of a request whose body says this one, as it counts here.
    #[must_use]
    pub fn class_of(&self, ask: &Ask<'_>, said: Class) -> Class {
        let class = ask.class_of(said, self.believes(ask));
        self.requests.tenants().class(ask.tenant, class)
    }

    /// The refusal of a request of one of our own clients whose body has not been read, if its tenant is over a
    /// limit whatever the body says: message, and when to come back in seconds. It is counted.
    pub fn over_limit(&mut self, tenant: Tenant<&str>, now: Instant) -> Option<(String, u32)> {
        let now = self.advance(now);
        let assumed_s = self.config.retry_after_s;
        let tenants = self.requests.tenants_mut();
        let refusal = tenants.look(tenant, assumed_s, now)?;
        self.counters.count_refusal(refusal.code);
        Some((refusal.message, refusal.retry_after_s.unwrap_or(assumed_s)))
    }

    /// How a tenant stands with its limits per minute, if it has any.
    pub fn standing(&mut self, tenant: Tenant<&str>) -> Option<Standing> {
        let now = self.clock.now;
        self.requests.tenants_mut().standing(tenant, now)
    }

    /// What a peer told of its tenants.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not newer than what it told before: nothing happened.
    pub fn merge_tenants(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), MessageError> {
        let now = self.advance(now);
        self.known_peer(peer).ok_or(MessageError::Unknown)?;
        let siblings = self.mesh.siblings();
        let heard = self.requests.tenants_mut().hear(peer, bytes, siblings);
        self.counters.tenants_refused += u64::from(heard.is_err());
        heard?;
        self.counters.tenants_merged += 1;
        self.share_limits(false, now);
        Ok(())
    }

    /// Looks at this balancer's parts of the limits; `at_once`: without regard to when that was done last.
    pub(super) fn share_limits(&mut self, at_once: bool, now: Instant) {
        let tenants = self.requests.tenants_mut();
        if tenants.shared() {
            tenants.review(self.mesh.siblings(), at_once, now);
        }
    }
}
