//! The replicas that a request may go to.

use super::Fleet;
use super::forecast::assumed_line;
use super::member::{Member, Offer};
use crate::engine::config::{Config, PushRule};
use crate::engine::demand::Demand;
use crate::id::{ModelId, ReplicaId, ReplicaSlot};
use crate::time::Instant;

/// Steps of the engine that prompts of a tenant with more than its part may take at once, where they are short.
const SPARED_STEPS: u32 = 1;

/// Prompts are computed there, as far as first bytes tell, or the time that they should take: an answer that comes
/// whole has its first byte at its end.
fn computes(member: &Member, config: &Config, now: Instant) -> bool {
    let line = member.speed.line_near(member.replica.load());
    let pace = line.unwrap_or_else(|| assumed_line(config)).pace();
    !member.replica.backlog().ahead_ns(pace, now).is_zero()
}

impl Fleet {
    /// A replica has enough free that a tenant with more than its part may take so many KV tokens: a part of its KV
    /// cache and of its batch stays free until all that runs has ended, and no prompt is pending or computed
    /// there, but for some that take a step together. Of a replica without figures nothing is known.
    pub(in crate::engine) fn spares(
        &self,
        slot: ReplicaSlot,
        kv: u32,
        config: &Config,
        now: Instant,
    ) -> bool {
        let gated = config.push == PushRule::Pending && config.tenant_headroom_ratio > 0.0;
        let Some(member) = self.member(slot).filter(|_| gated) else {
            return true;
        };
        let (replica, in_flight) = (member.replica(), member.all_in_flight());
        if in_flight == 0 || replica.blind(config, now) {
            return true;
        }
        let used = replica.kv_used_tokens(config).max(replica.active_tokens());
        #[expect(clippy::cast_precision_loss, reason = "tokens of one replica")]
        let (used, all) = (
            (used + u64::from(kv)) as f64,
            replica.kv_tokens(config) as f64,
        );
        let batch = replica.knee().map_or(f64::INFINITY, f64::from);
        let left = 1.0 - config.tenant_headroom_ratio;
        let free = used <= all * left && f64::from(in_flight) < batch * left;
        let clear = replica.pending() == 0 && !computes(member, config, now);
        free && (clear || replica.within_steps(SPARED_STEPS, config))
    }

    /// Fills `open` with the replicas that a request may go to, and whether they have room; the best that
    /// the ready ones offer. `full`: those without room too. Replicas on which it failed are left out
    /// while another is ready. As of the last [`Fleet::refresh`].
    pub(in crate::engine) fn collect(
        &self,
        demand: &Demand,
        full: bool,
        open: &mut Vec<(ReplicaSlot, bool)>,
    ) -> Offer {
        let untried = self.collect_from(demand, full, false, open);
        if untried == Offer::None && !demand.tried.is_empty() {
            return self.collect_from(demand, full, true, open);
        }
        untried
    }

    fn collect_from(
        &self,
        demand: &Demand,
        full: bool,
        tried: bool,
        open: &mut Vec<(ReplicaSlot, bool)>,
    ) -> Offer {
        open.clear();
        let bound = demand.bound.and_then(|id| self.slot(id));
        let excludes = !tried && !demand.tried.is_empty();
        let mut best = Offer::None;
        let (mut answering, mut silent) = (false, false);
        for &slot in self.servants(demand, bound.as_ref()) {
            let Some(offers) = self.offers(slot) else {
                continue;
            };
            if !demand.may_use(offers.region_bit) || (excludes && demand.tried.contains(&offers.id))
            {
                continue;
            }
            let offer = offers.offer(demand.lane);
            if offer == Offer::Room || (full && offer == Offer::Later) {
                open.push((slot, offer == Offer::Room));
            }
            if offer == Offer::Room {
                answering |= !offers.silent;
                silent |= offers.silent;
            }
            best = best.max(offer);
        }
        if silent && answering {
            // Room at a replica that has not answered its last probe is for those who find no other.
            let answers = |slot| self.offers(slot).is_some_and(|offers| !offers.silent);
            open.retain(|&(slot, _)| answers(slot));
        }
        best
    }

    /// Calls `note` with each replica that serves the request's model and was no candidate, and with the reason.
    pub(in crate::engine) fn closed_to(
        &self,
        demand: &Demand,
        is_candidate: impl Fn(ReplicaSlot) -> bool,
        config: &Config,
        now: Instant,
        mut note: impl FnMut((ReplicaSlot, ReplicaId), &'static str),
    ) {
        let bound = demand.bound.and_then(|id| self.slot(id));
        for &slot in self.servants(demand, bound.as_ref()) {
            let Some(member) = self.member(slot).filter(|_| !is_candidate(slot)) else {
                continue;
            };
            let why = if !demand.may_use(member.region_bit) {
                "residency"
            } else if demand.tried.contains(&member.id) {
                "tried"
            } else {
                member.closed_to(demand.lane, config, now)
            };
            note((slot, member.id), why);
        }
    }

    /// The replicas that could serve a request: all that serve its model, or the one that it is
    /// bound to.
    fn servants<'a>(
        &'a self,
        demand: &Demand,
        bound: Option<&'a ReplicaSlot>,
    ) -> &'a [ReplicaSlot] {
        let model = self.model_of(demand.model);
        match (bound, demand.bound, model) {
            (Some(slot), _, Some(model)) if !model.serving.contains(slot) => &[],
            (Some(slot), ..) => std::slice::from_ref(slot),
            (None, None, Some(model)) => &model.serving,
            _ => &[],
        }
    }

    /// A replica whose list does not have this model was asked for it, and another one could be.
    pub(in crate::engine) fn guessed(
        &self,
        model: ModelId,
        (asked, demand): (ReplicaSlot, &Demand),
        config: &Config,
        now: Instant,
    ) -> bool {
        let mut others = self.serving(Some(model)).iter();
        !self.lists(asked, model)
            && others.any(|slot| {
                let member = self.member(*slot).filter(|_| *slot != asked);
                member.is_some_and(|member| {
                    !demand.tried.contains(&member.id)
                        && demand.may_use(member.region_bit)
                        && member.ready(config, now)
                })
            })
    }

    /// How many replicas could serve a request.
    pub(in crate::engine) fn servants_len(&self, demand: &Demand) -> usize {
        let bound = demand.bound.and_then(|id| self.slot(id));
        self.servants(demand, bound.as_ref()).len()
    }

    /// A replica that the request has not been tried on is ready for it.
    pub(in crate::engine) fn any_untried(
        &mut self,
        demand: &Demand,
        config: &Config,
        now: Instant,
    ) -> bool {
        self.refresh(config, now);
        let mut open = Vec::new();
        self.collect_from(demand, false, false, &mut open) != Offer::None
    }

    /// The request may go to this replica: it has not failed there, or nowhere else is one ready.
    pub(in crate::engine) fn fits(
        &self,
        demand: &Demand,
        slot: ReplicaSlot,
        config: &Config,
        now: Instant,
    ) -> bool {
        let Some(member) = self.member(slot) else {
            return false;
        };
        if !demand.may_use(member.region_bit) {
            return false;
        }
        if !demand.tried.contains(&member.id) {
            return true;
        }
        let untried = self.serving(demand.model).iter();
        !untried
            .filter_map(|&slot| self.member(slot))
            .filter(|member| demand.bound.is_none_or(|bound| bound == member.id))
            .filter(|member| demand.may_use(member.region_bit))
            .filter(|member| !demand.tried.contains(&member.id))
            .any(|member| member.offer(demand.lane, config, now) != Offer::None)
    }
}
