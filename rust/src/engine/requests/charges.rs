//! What requests are charged to their tenants.

use super::Requests;
use super::request::Request;
use crate::engine::ask::{Ask, Report};
use crate::engine::config::Config;
use crate::engine::demand::Lane;
use crate::engine::effect::Outcome;
use crate::engine::fleet::Fleet;
use crate::engine::plant::Plant;
use crate::engine::refusal::Refusal;
use crate::engine::tenants::{Delivery, Predicted, Progress, Spent};
use crate::prompt::Digest;
use crate::time::Instant;

impl Requests {
    /// Why a request of our own clients may not use its model, if it may not.
    pub(in crate::engine) fn refuses_model(
        &mut self,
        ask: &Ask<'_>,
        model: &str,
    ) -> Option<Refusal> {
        let batch = Lane::of(ask.route) == Lane::Batch;
        let may = ask.forwarded.is_some() || self.tenants.allows(ask.tenant, model, batch);
        (!may).then(|| self.tenants.refuse_model(ask.tenant, model))
    }

    /// Charges a request of our own clients to its tenant. What a forward costs is charged at its origin. `known`:
    /// somebody serves its model; another name is the client's to choose.
    ///
    /// # Errors
    ///
    /// It would pass one of the tenant's limits: nothing is charged.
    pub(in crate::engine) fn charge(
        &mut self,
        (request, known): (&mut Request, bool),
        (ask, digest): (&Ask<'_>, &Digest),
        (fleet, config): (&Fleet, &Config),
        now: Instant,
    ) -> Result<(), Refusal> {
        if ask.forwarded.is_some() || !self.tenants.counts(ask.tenant) {
            return Ok(());
        }
        let asked = asked_for(request, (ask, digest), (fleet, config));
        let after_s = config.retry_after_s;
        let charged = self
            .tenants
            .charge(ask.tenant, (&digest.model, known), asked, after_s, now);
        request.charge = charged?;
        Ok(())
    }

    /// Charges a request that is under way already, over its tenant's limits or not. `true`: it passes one of them.
    pub(in crate::engine) fn charge_late(
        &mut self,
        request: &mut Request,
        (ask, digest): (&Ask<'_>, &Digest),
        (fleet, config): (&Fleet, &Config),
        now: Instant,
    ) -> bool {
        if !self.tenants.counts(ask.tenant) {
            return false;
        }
        let asked = asked_for(request, (ask, digest), (fleet, config));
        let model = (&*digest.model, true);
        let (charge, over) = self.tenants.charge_late(ask.tenant, model, asked, now);
        request.charge = charge;
        over
    }

    /// A request has ended: its tenant is charged what it used.
    pub(in crate::engine) fn settle(
        &mut self,
        request: &mut Request,
        outcome: Outcome,
        report: &Report<'_>,
        config: &Config,
        now: Instant,
    ) {
        if config.planted(Plant::ChargeKept) && outcome.is_unwanted() {
            request.charge = None;
        }
        if let Some(charge) = request.charge.take() {
            let spent = Spent::of(charge, request.progress(), outcome, report);
            self.tenants.settle(charge, spent, now);
        }
    }

    /// A request is over that has not been settled: nothing of it was computed, or no replica goes on with it. If
    /// nothing of it was tried either, it was refused: then it does not count as a request.
    pub(in crate::engine) fn release(&mut self, request: &Request, now: Instant) {
        if let Some(charge) = request.charge {
            if let Some(given) = request.given {
                let spent = Spent::of(
                    charge,
                    Progress::Started,
                    Outcome::ReplicaFailed,
                    &given.report(),
                );
                self.tenants.settle(charge, spent, now);
                return;
            }
            self.tenants.settle(charge, Spent::NOTHING, now);
            if request.attempts == 0 {
                self.tenants.give_back(charge, now);
            }
        }
    }
}

/// The tokens that a request should use, and how its answer comes.
fn asked_for(
    request: &Request,
    (ask, digest): (&Ask<'_>, &Digest),
    (fleet, config): (&Fleet, &Config),
) -> (Predicted, Delivery) {
    let expected = fleet.expected(&request.demand, config);
    let predicted = expected.charged(ask.route, digest.choices, digest.max_tokens);
    let delivery = Delivery {
        stream: digest.stream,
        event_tokens: digest.event_tokens,
        tokens_max: digest.max_tokens,
    };
    (predicted, delivery)
}
