//! Balancers whose process ends, and their successors.

use super::queue::{Event, News};
use super::region::state::{JUDGE_NS, SILENT_NS};
use super::scenario::Group;
use super::simulator::Simulator;
use super::workload::small;
use crate::engine::fleet::failure::Failure;
use crate::engine::mesh::peer::Presence;
use crate::id::{PeerId, RequestId};
use crate::time::Instant;

impl Simulator {
    /// A balancer's process ends. Its clients' requests end with it.
    pub(super) fn kill(&mut self, gone: u32, silent: bool) {
        if !self.balancers[gone as usize].up {
            return;
        }
        self.balancers[gone as usize].up = false;
        self.rooms.gone(gone, Some(self.queue.now_ns()));
        self.hang_up(gone, silent);
        let live = self.live.iter();
        let touched: Vec<RequestId> = live
            .filter(|(_, live)| live.order > 0)
            .filter(|(_, live)| live.balancer == gone || live.away == Some(gone))
            .map(|(id, _)| id)
            .collect();
        for id in touched {
            self.orphan(id, gone, silent);
        }
        self.renew(gone);
        let now_ns = self.queue.now_ns();
        let notice_ns = if silent { SILENT_NS } else { JUDGE_NS };
        self.balancers[gone as usize].missed_ns = now_ns + notice_ns;
    }

    /// The balancer that had this request is gone.
    fn orphan(&mut self, id: RequestId, gone: u32, silent: bool) {
        let now_ns = self.queue.now_ns();
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        if live.balancer == gone {
            let (there, replica) = (live.there, live.replica);
            if there {
                self.abandon(id);
            } else if let Some(replica) = replica.filter(|_| !silent) {
                self.abort_later(id, replica, gone);
            }
            self.finish(id, Err("balancer_died"), now_ns);
            return;
        }
        if !live.there {
            return; // it arrives at nobody
        }
        let replica = live.replica.take();
        live.leave_hold(now_ns);
        live.there = false;
        live.at_replica = false;
        if let Some(replica) = replica.filter(|_| !silent) {
            self.abort_later(id, replica, gone);
        }
        self.tell_home(id, News::Failed(Failure::Reset));
    }

    /// A new process answers in the place of the one before.
    pub(super) fn revive(&mut self, number: u32) {
        if self.balancers[number as usize].up {
            return;
        }
        self.renew(number);
        self.balancers[number as usize].up = true;
        self.rooms.gone(number, None);
        self.introduce_again(number);
        self.connect_far(number);
        for replica in 0..small(self.replicas.len()) {
            let of = &self.replicas[replica as usize];
            if of.draining && of.region == self.balancers[number as usize].region {
                let now_ns = self.queue.now_ns();
                let mut out = std::mem::take(&mut self.out);
                self.balancers[number as usize].drain(replica, true, now_ns, &mut out);
                self.act(number, out);
            }
        }
        self.arm(number);
    }

    /// An engine that knows nothing.
    fn renew(&mut self, number: u32) {
        let now_ns = self.queue.now_ns();
        let seed = self.chance.next_u64();
        let region = self.balancers[number as usize].region;
        let own = fleet_of(&self.scenario.regions, region);
        self.balancers[number as usize].restart(&self.config, seed, &own, now_ns);
    }

    fn introduce_again(&mut self, number: u32) {
        let again = self.introduce_at(number);
        let again = again.and_then(|()| self.settle_rules_at(number as usize));
        self.broke(again.map_err(|error| error.to_string()));
    }

    /// What a balancer finds out about those of other regions.
    pub(super) fn judge_regions(&mut self, at: u32) {
        let now_ns = self.queue.now_ns();
        for of in self.exchange.peers_of(at).to_vec() {
            let other = &self.balancers[of as usize];
            let presence = match (other.up, now_ns < other.missed_ns) {
                (true, _) => Presence::Alive,
                (false, true) => continue,
                (false, false) => Presence::Unreachable,
            };
            let (process, incarnation) = (other.process, other.incarnation(of));
            let known = std::mem::replace(self.exchange.presence(at, of), (presence, process));
            if known == (presence, process) {
                continue;
            }
            if presence == Presence::Alive {
                let balancer = &mut self.balancers[at as usize];
                let clock_ns = balancer.at(now_ns);
                if let Some(router) = balancer.router_mut() {
                    router.peer_started(PeerId(of), incarnation, Instant::from_ns(clock_ns));
                }
            }
            self.enter(at, of, presence);
        }
    }

    /// A balancer of the region that answers, the one named if it does.
    pub(super) fn answering(&self, region: u32, number: usize) -> Option<u32> {
        let serving = &self.serving[region as usize];
        let turn = (0..serving.len()).map(|step| serving[(number + step) % serving.len()]);
        let mut up = turn.filter(|balancer| self.balancers[*balancer as usize].up);
        up.next()
    }

    /// Looks for peers that are gone, where balancers can go.
    pub(super) fn begin_judging(&mut self) {
        if self.shares()
            || !self
                .scenario
                .faults
                .iter()
                .any(super::fault::Fault::of_balancers)
        {
            return;
        }
        for balancer in 0..small(self.balancers.len()) {
            self.queue.put(JUDGE_NS, Event::Judge(balancer));
        }
    }
}

/// The replicas of a region, with their numbers.
pub(super) fn fleet_of(regions: &[super::scenario::Region], region: u32) -> Vec<(u32, &Group)> {
    let groups = (0_u32..).zip(regions);
    let each = groups.flat_map(|(at, of)| of.replicas.iter().map(move |group| (at, group)));
    let all = each.flat_map(|(at, group)| (0..group.count).map(move |_| (at, group)));
    (0..)
        .zip(all)
        .filter(|(_, (at, _))| *at == region)
        .map(|(number, (_, group))| (number, group))
        .collect()
}
