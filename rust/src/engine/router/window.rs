//! Matching a window of held requests with the replicas, both ways.
//!
//! Under load one replica frees at a time. First come, first served, it takes whoever is oldest,
//! and the prefixes it caches are lost on others. So when a replica has room, the oldest
//! `hold_window` requests of a queue are compared over all replicas, the full ones too, by the time
//! to their first token: wait for room + what is not cached x time per token. Those for which a full
//! replica is better in spite of its wait let the room pass, for `affinity_wait_s` at most; of the
//! others the one that saves most by being here rather than at its next best replica takes it, the
//! oldest of equals.
//!
//! Whoever waits for a replica stands behind the older requests of the window that wait for it too:
//! one more request has to end before each of them.

use std::mem;

use super::Router;
use super::fleet::{Fleet, slot_of};
use super::member::Offer;
use super::request::{Lane, Request};
use crate::engine::config::{Config, Policy};
use crate::engine::hold::{Head, Ticket};
use crate::engine::radix::Radix;
use crate::engine::select::{NOT_A_CANDIDATE, Slot};
use crate::id::{Nanos, RequestId};

/// A replica that requests of one line may go to.
#[derive(Debug, Clone, Copy)]
struct Target {
    slot: Slot,
    room: bool,
    /// Until it computes the next request it gets.
    start_in_ns: u64,
    /// Between two ends of requests there.
    end_every_ns: u64,
    /// To compute one block of a prompt.
    ns_per_block: u64,
    /// Who waits for it before the request that is looked at.
    ahead: u64,
}

impl Target {
    fn compute_ns(&self, prompt_blocks: u32, match_blocks: u32) -> u64 {
        let blocks = prompt_blocks.saturating_sub(match_blocks);
        u64::from(blocks).saturating_mul(self.ns_per_block)
    }

    fn wait_ns(&self) -> u64 {
        let behind_ns = self.end_every_ns.saturating_mul(self.ahead);
        self.start_in_ns.saturating_add(behind_ns)
    }
}

/// What a request makes of the room at one replica.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    /// The full replica that is better than any with room, and by how many nanoseconds.
    wants: Option<(usize, u64)>,
    /// What it saves by being here rather than at its next best replica.
    saving_ns: i128,
}

/// Buffers used again from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    targets: Vec<Target>,
    /// By slot: the position in `targets`.
    positions: Vec<u32>,
    matches: Vec<(u32, u32)>,
    /// By slot: leading blocks that are cached there of the prompt that is looked at.
    match_blocks: Vec<u32>,
    /// Who would rather wait, and for which replica.
    waiting: Vec<(Ticket, Slot)>,
}

impl Scratch {
    fn position(&self, slot: Slot) -> Option<usize> {
        let position = *self.positions.get(slot as usize)?;
        (position != NOT_A_CANDIDATE).then_some(position as usize)
    }

    /// Looks at one request over all targets.
    fn judge(
        &mut self,
        tree: &mut Radix,
        request: &Request,
        here: usize,
        patient: bool,
    ) -> Verdict {
        self.matches.clear();
        if !request.blocks.is_empty() {
            tree.matches(&request.blocks, &mut self.matches);
        }
        self.match_blocks.fill(0);
        for &(owner, blocks) in &self.matches {
            if let Some(match_blocks) = self.match_blocks.get_mut(owner as usize) {
                *match_blocks = blocks;
            }
        }
        self.compare(request.prompt_blocks, here, patient)
    }

    fn compute_ns(&self, target: &Target, prompt_blocks: u32) -> u64 {
        let match_blocks = self.match_blocks.get(target.slot as usize);
        target.compute_ns(prompt_blocks, match_blocks.copied().unwrap_or(0))
    }

    fn compare(&self, prompt_blocks: u32, here: usize, patient: bool) -> Verdict {
        let (mut with_room, mut full, mut elsewhere) = (u64::MAX, (u64::MAX, 0), (u64::MAX, None));
        for (position, target) in self.targets.iter().enumerate() {
            let compute_ns = self.compute_ns(target, prompt_blocks);
            let first_token_ns = target.wait_ns().saturating_add(compute_ns);
            if target.room {
                with_room = with_room.min(first_token_ns);
            } else if first_token_ns < full.0 {
                full = (first_token_ns, position);
            }
            if position != here && first_token_ns < elsewhere.0 {
                elsewhere = (first_token_ns, Some(compute_ns));
            }
        }
        let here_ns = self.compute_ns(&self.targets[here], prompt_blocks);
        let elsewhere_ns = elsewhere.1.unwrap_or(here_ns);
        let better = patient && full.0 < with_room;
        Verdict {
            wants: better.then(|| (full.1, with_room - full.0)),
            saving_ns: i128::from(elsewhere_ns) - i128::from(here_ns),
        }
    }
}

impl Router {
    /// The request of a queue that is to have the room of `slot`; none when all would rather wait,
    /// which they then do by choice.
    pub(super) fn match_window(
        &mut self,
        slot: Slot,
        head: &Head,
        now_ns: Nanos,
    ) -> Option<(Ticket, RequestId)> {
        let (_, oldest) = self.hold.queue(head.partition, head.class).next()?;
        self.fleet.refresh(&self.config, now_ns);
        let mut scratch = mem::take(&mut self.window);
        self.fill_targets(self.requests.get(&oldest), now_ns, &mut scratch);
        self.window = scratch;
        let here = self.window.position(slot)?;
        let patient = self.config.waits_for_owners();
        let (hold, config, scratch) = (&self.hold, &self.config, &mut self.window);
        let mut best: Option<(i128, Ticket, RequestId)> = None;
        let mut least: Option<(u64, Ticket, RequestId)> = None;
        let mut compared = 0;
        scratch.waiting.clear();
        for (ticket, id) in hold.queue(head.partition, head.class) {
            let Some(request) = self.requests.get(&id) else {
                continue;
            };
            if !fits(&self.fleet, config, request, slot, now_ns) {
                continue;
            }
            if compared == config.hold_window {
                break;
            }
            compared += 1;
            let first = request.attempts == 0;
            let may_wait = patient && first && hold.may_choose(ticket, config, now_ns);
            let verdict = scratch.judge(&mut self.tree, request, here, may_wait);
            if let Some((position, loss_ns)) = verdict.wants {
                let target = &mut scratch.targets[position];
                target.ahead += 1;
                let replica = target.slot;
                scratch.waiting.push((ticket, replica));
                if least.is_none_or(|least| loss_ns < least.0) {
                    least = Some((loss_ns, ticket, id));
                }
            } else if best.is_none_or(|best| verdict.saving_ns > best.0) {
                best = Some((verdict.saving_ns, ticket, id));
            }
        }
        if let Some((_, ticket, id)) = best {
            return Some((ticket, id));
        }
        // Room is never left idle before a full window: there may be others behind it.
        if let Some((_, ticket, id)) = least.filter(|_| compared == config.hold_window) {
            return Some((ticket, id));
        }
        for &(ticket, replica) in &scratch.waiting {
            let waits = self.hold.choose(ticket, replica, config, now_ns);
            self.counters.affinity_waits += u64::from(waits);
        }
        None
    }

    /// The full replica that a request had better wait for than go to `slot`, where so many blocks
    /// match: that has just been chosen among those with room.
    pub(super) fn worth_waiting_for(
        &mut self,
        request: &Request,
        slot: Slot,
        match_blocks: u32,
        now_ns: Nanos,
    ) -> Option<Slot> {
        let config = &self.config;
        // Under `predictive` the choice itself was among the full ones too.
        if config.policy == Policy::Predictive
            || !config.waits_for_owners()
            || match_blocks >= request.prompt_blocks
            || !self.may_hold_by_choice(request)
        {
            return None;
        }
        self.fleet.refresh(&self.config, now_ns);
        let model = self.fleet.models.get(request.model?.0 as usize)?;
        if self.scratch.candidates.len() == model.serving.len() {
            return None;
        }
        let mut scratch = mem::take(&mut self.window);
        self.fill_targets(Some(request), now_ns, &mut scratch);
        self.window = scratch;
        let here = self.window.position(slot)?;
        if self.window.targets.iter().all(|target| target.room) {
            return None;
        }
        for target in &mut self.window.targets {
            target.ahead = u64::from(self.hold.chosen_before(target.slot, None));
        }
        let verdict = self.window.judge(&mut self.tree, request, here, true);
        let (position, _) = verdict.wants?;
        let wanted = self.window.targets.get(position)?.slot;
        fits(&self.fleet, &self.config, request, wanted, now_ns).then_some(wanted)
    }

    /// Fills the targets of a request's line. The wait for room is that of this request.
    fn fill_targets(&self, request: Option<&Request>, now_ns: Nanos, scratch: &mut Scratch) {
        scratch.targets.clear();
        scratch.positions.clear();
        scratch
            .positions
            .resize(self.fleet.slots_end(), NOT_A_CANDIDATE);
        scratch.match_blocks.clear();
        scratch.match_blocks.resize(self.fleet.slots_end(), 0);
        let Some(request) = request else {
            return;
        };
        let model = request
            .model
            .and_then(|id| self.fleet.models.get(id.0 as usize));
        let expected = self.expected(request);
        let need = expected.need_unmatched();
        for &slot in model.map_or(&[][..], |model| &model.serving) {
            let (Some(door), Some(card)) = (self.fleet.door(slot), self.fleet.card(slot)) else {
                continue;
            };
            let offer = door.offer(Lane::Batch);
            let bound = request.bound.is_none_or(|bound| bound == door.id);
            let allowed = bound && request.may_use(door.region_bit);
            if offer == Offer::None || !allowed {
                continue;
            }
            let (pace, stay_ns) = (expected.pace(card), expected.stay_ns(card));
            let start_in_ns = card.backlog.start_in_ns(need, 0, pace, stay_ns, now_ns);
            scratch.positions[slot as usize] = slot_of(scratch.targets.len());
            scratch.targets.push(Target {
                slot,
                room: offer == Offer::Room,
                start_in_ns: start_in_ns.saturating_add(pace.base_ns),
                end_every_ns: stay_ns / u64::from(card.backlog.load.max(1)),
                ns_per_block: expected.block_ns(pace),
                ahead: 0,
            });
        }
    }
}

/// The request may go to this replica: it has not failed there, or nowhere else is one ready, and it
/// does not wait for a peer's room.
pub(super) fn fits(
    fleet: &Fleet,
    config: &Config,
    request: &Request,
    slot: Slot,
    now_ns: Nanos,
) -> bool {
    let Some(member) = fleet.member(slot) else {
        return false;
    };
    if !request.may_use(member.region_bit) || request.is_leaving(now_ns) {
        return false;
    }
    if !request.tried.contains(&member.id) {
        return true;
    }
    let model = request.model.and_then(|id| fleet.models.get(id.0 as usize));
    let serving = model.map_or(&[][..], |model| &model.serving);
    let untried = serving.iter().filter_map(|&slot| fleet.member(slot));
    !untried
        .filter(|member| request.bound.is_none_or(|bound| bound == member.id))
        .filter(|member| request.may_use(member.region_bit))
        .filter(|member| !request.tried.contains(&member.id))
        .any(|member| member.offer(request.lane, config, now_ns) != Offer::None)
}
