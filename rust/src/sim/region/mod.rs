//! Balancers of one region as peers of each other: connections, pings, and messages.
//!
//! Times and rules are those of `skylb.mesh`. In each pair the balancer that comes first dials. A side that
//! has received nothing for [`SILENT_NS`] gives the connection up. Ages in messages are converted by the
//! offset of the clocks, which the pings have shown. Messages of one connection keep their order; those on
//! their way when it ends are lost.

pub(super) mod rooms;
pub(super) mod state;

use self::state::{JUDGE_NS, Letter, SILENT_NS, Said, keep};
use super::queue::Event;
use super::scenario::Topology;
use super::simulator::Simulator;
use super::workload::small;
use crate::engine::effect::{Message, Tell};
use crate::engine::mesh::peer::Presence;
use crate::engine::mesh::region::message::{Share, key};
use crate::id::{Nanos, PeerId};
use crate::time::{Instant, Span};

/// Time between two looks at whom to ping.
const TALK_NS: Nanos = 100_000_000;
const PING_NS: Nanos = 1_000_000_000;
/// A balancer that nobody has heard for so long is dead.
const DEAD_NS: Nanos = 2_000_000_000;
/// Time before a peer is dialled again.
const REDIAL_NS: Nanos = 1_000_000_000;
/// Bytes of a ping and of a handshake's message.
const PING_BYTES: u64 = 64;

impl Simulator {
    /// Balancers of one region share its replicas.
    pub(super) fn shares(&self) -> bool {
        self.scenario.topology == Topology::Skylb && !self.sharing.peers.is_empty()
    }

    /// Puts the first events of balancers that share into the queue.
    pub(super) fn begin_sharing(&mut self) {
        if !self.shares() {
            return;
        }
        for balancer in 0..small(self.balancers.len()) {
            // They do not look at the same moment.
            let first_ns = TALK_NS * u64::from(balancer % 8 + 1) / 8;
            self.queue.put(first_ns, Event::Talk(balancer));
            self.queue.put(first_ns / 4, Event::Judge(balancer));
        }
    }

    // ------------------------------------------------------------------ connections

    /// A balancer looks whom it hears: it gives up those that are silent, and dials.
    pub(super) fn judge(&mut self, at: u32) {
        let now_ns = self.queue.now_ns();
        self.queue.put(now_ns + JUDGE_NS, Event::Judge(at));
        if !self.balancers[at as usize].up {
            return;
        }
        self.judge_regions(at);
        for of in self.sharing.peers[at as usize].clone() {
            let view = self.sharing.view(at, of);
            let silent = now_ns.saturating_sub(view.heard_ns) > SILENT_NS;
            if let Some(connection) = view.connection.filter(|_| silent) {
                self.say(at, of, connection, Said::Close);
                self.close(at, of);
            }
            let view = self.sharing.view(at, of);
            let late = view.connection.is_none() && now_ns > view.lost_ns + DEAD_NS;
            if late && !view.dead && !self.witnessed(at, of) {
                self.sharing.view(at, of).dead = true;
                self.enter(at, of, Presence::Dead);
            }
            if at < of && !self.sharing.hears(at, of) {
                self.dial(at, of);
            }
        }
    }

    /// A third balancer hears it and is heard.
    fn witnessed(&self, at: u32, of: u32) -> bool {
        let mut others = self.sharing.peers[at as usize].iter();
        others.any(|third| {
            *third != of && self.sharing.hears(at, *third) && self.sharing.hears(*third, of)
        })
    }

    fn dial(&mut self, low: u32, high: u32) {
        let now_ns = self.queue.now_ns();
        let due = self.sharing.dials_ns[low as usize][high as usize] <= now_ns;
        let cut = self.sharing.part_until(low, high, now_ns).is_some()
            || self.sharing.part_until(high, low, now_ns).is_some();
        if !due || cut || !self.balancers[high as usize].up {
            return;
        }
        self.sharing.dials_ns[low as usize][high as usize] = now_ns + REDIAL_NS;
        self.sharing.connections += 1;
        // Nothing waits for what an earlier connection still holds up.
        self.sharing.view(low, high).arrives_ns = now_ns;
        self.sharing.view(high, low).arrives_ns = now_ns;
        let connection = self.sharing.connections;
        let region = self.balancers[low as usize].region;
        let mut at_ns = now_ns;
        // Connect and both hellos; the listening side is the first to know.
        for _ in 0..3 {
            at_ns = self.network.deliver(region, region, PING_BYTES, at_ns);
        }
        self.deliver_at(low, high, connection, Said::Open, at_ns);
        at_ns = self.network.deliver(region, region, PING_BYTES, at_ns);
        self.deliver_at(high, low, connection, Said::Open, at_ns);
    }

    fn opened(&mut self, at: u32, of: u32, connection: u64) {
        let now_ns = self.queue.now_ns();
        let replicas = self.replicas.len();
        let incarnation = self.balancers[of as usize].incarnation(of);
        self.sharing.view(at, of).open(connection, now_ns, replicas);
        let mut out = std::mem::take(&mut self.out);
        let balancer = &mut self.balancers[at as usize];
        let clock_ns = balancer.at(now_ns);
        if let Some(router) = balancer.router_mut() {
            let now = Instant::from_ns(clock_ns);
            router.peer_connected(PeerId(of), &Message::ALL, now, &mut out);
            router.peer_started(PeerId(of), incarnation, now);
        }
        self.ping(at, of, connection);
        self.act(at, out);
        self.enter(at, of, Presence::Alive);
    }

    /// A balancer hears another no more.
    fn close(&mut self, at: u32, of: u32) {
        let now_ns = self.queue.now_ns();
        self.sharing.view(at, of).close(now_ns);
        if let Some(router) = self.balancers[at as usize].router_mut() {
            router.peer_disconnected(PeerId(of));
        }
        self.enter(at, of, Presence::Unreachable);
    }

    /// A balancer finds out about a peer.
    pub(super) fn enter(&mut self, at: u32, of: u32, presence: Presence) {
        let now_ns = self.queue.now_ns();
        let mut out = std::mem::take(&mut self.out);
        let balancer = &mut self.balancers[at as usize];
        let clock_ns = balancer.at(now_ns);
        if let Some(router) = balancer.router_mut() {
            router.peer_state(PeerId(of), presence, Instant::from_ns(clock_ns), &mut out);
        }
        self.act(at, out);
    }

    /// A balancer's process has ended: its connections end too, which others learn unless its
    /// machine has gone with it.
    pub(super) fn hang_up(&mut self, gone: u32, silent: bool) {
        let now_ns = self.queue.now_ns();
        let peers = self.sharing.peers.get(gone as usize).cloned();
        for of in peers.unwrap_or_default() {
            let connection = self.sharing.view(gone, of).connection;
            if let Some(connection) = connection.filter(|_| !silent) {
                self.say(gone, of, connection, Said::Close);
            }
            self.sharing.view(gone, of).close(now_ns);
        }
    }

    // ------------------------------------------------------------------ messages

    /// A message of a connection sets out. A part holds it up; it is lost if the connection ends
    /// before it arrives, and in no other way.
    fn say(&mut self, from: u32, to: u32, connection: u64, said: Said) {
        let now_ns = self.queue.now_ns();
        let region = self.balancers[from as usize].region;
        let cut_ns = self.network.cut_until(region, region, now_ns);
        let part_ns = self.sharing.part_until(from, to, now_ns);
        let start_ns = cut_ns.max(part_ns).unwrap_or(now_ns);
        let bytes = match &said {
            Said::Open | Said::Close | Said::Ping(_) | Said::Pong(_) => PING_BYTES,
            Said::Summary(bytes)
            | Said::Digest(bytes)
            | Said::Tenants(bytes)
            | Said::Cached(bytes)
            | Said::Share(bytes, _) => bytes.len() as u64,
        };
        let at_ns = self.network.deliver(region, region, bytes, start_ns);
        self.deliver_at(from, to, connection, said, at_ns);
    }

    fn deliver_at(&mut self, from: u32, to: u32, connection: u64, said: Said, at_ns: Nanos) {
        let last_ns = &mut self.sharing.view(from, to).arrives_ns;
        let at_ns = at_ns.max(*last_ns);
        *last_ns = at_ns;
        let letter = self.sharing.letters.insert(Letter {
            from,
            to,
            connection,
            process: self.balancers[from as usize].process,
            sent_ns: self.queue.now_ns(),
            said,
        });
        self.queue.put(at_ns, Event::Heard(small(letter)));
    }

    /// A balancer pings those of its region whom it is connected to, if it is time.
    pub(super) fn talk(&mut self, from: u32) {
        let now_ns = self.queue.now_ns();
        self.queue.put(now_ns + TALK_NS, Event::Talk(from));
        if !self.balancers[from as usize].up {
            return;
        }
        for to in self.sharing.peers[from as usize].clone() {
            let view = self.sharing.view(from, to);
            let due = view.pinged_ns.is_none_or(|at_ns| now_ns >= at_ns + PING_NS);
            if let Some(connection) = view.connection.filter(|_| due) {
                self.ping(from, to, connection);
            }
        }
    }

    fn ping(&mut self, from: u32, to: u32, connection: u64) {
        let now_ns = self.queue.now_ns();
        self.sharing.view(from, to).pinged_ns = Some(now_ns);
        let clock_ns = self.balancers[from as usize].at(now_ns);
        self.say(from, to, connection, Said::Ping(clock_ns));
    }

    /// A balancer sends a message to one of its region.
    pub(super) fn tell_near(&mut self, from: u32, to: u32, tell: Tell) {
        let view = self.sharing.view(from, to);
        let informs = !view.listing.is_empty();
        let Some(connection) = view.connection else {
            return;
        };
        let bytes = tell.payload;
        let said = match tell.kind {
            Message::Summary => Said::Summary(bytes),
            Message::Digest => Said::Digest(bytes),
            Message::Tenants => Said::Tenants(bytes),
            Message::Cached => {
                self.sharing.counts.cached_bytes += bytes.len() as u64;
                Said::Cached(bytes)
            }
            Message::Share => {
                self.sharing.counts.messages += 1;
                self.sharing.counts.bytes += bytes.len() as u64;
                self.sharing.bytes_by_link[from as usize][to as usize] += bytes.len() as u64;
                Said::Share(bytes, informs)
            }
        };
        self.say(from, to, connection, said);
    }

    /// A message arrives.
    pub(super) fn heard(&mut self, letter: u32) {
        let Some(letter) = self.sharing.letters.try_remove(letter as usize) else {
            return;
        };
        let Letter {
            from,
            to,
            connection,
            process,
            sent_ns,
            said,
        } = letter;
        // What a process has said goes with it, but for the end of its connections.
        let teller = &self.balancers[from as usize];
        let gone = !teller.up || teller.process != process;
        if gone && !matches!(said, Said::Close) {
            return;
        }
        let now_ns = self.queue.now_ns();
        if !self.balancers[to as usize].up {
            return;
        }
        if matches!(said, Said::Open) {
            // One that ended before it began is found out by silence.
            return self.opened(to, from, connection);
        }
        let view = self.sharing.view(to, from);
        if view.connection != Some(connection) {
            return;
        }
        view.heard_ns = now_ns;
        let clock_ns = self.balancers[to as usize].at(now_ns);
        let clock = Instant::from_ns(clock_ns);
        match said {
            Said::Open => {}
            Said::Close => self.close(to, from),
            Said::Ping(theirs_ns) => {
                view.hear_clock(clock_ns, theirs_ns);
                self.say(to, from, connection, Said::Pong(sent_ns));
            }
            Said::Pong(pinged_ns) => {
                keep(&mut view.round_trips_ns, now_ns - pinged_ns);
                if let Some(router) = self.balancers[to as usize].router_mut() {
                    router.peer_rtt(PeerId(from), Span::from_ns(now_ns - pinged_ns), clock);
                }
            }
            Said::Summary(bytes) => {
                let mut out = std::mem::take(&mut self.out);
                if let Some(router) = self.balancers[to as usize].router_mut() {
                    // One that says nothing new is counted there.
                    let _ = router.merge_peer(PeerId(from), &bytes, clock, &mut out);
                }
                self.act(to, out);
            }
            Said::Digest(bytes) => self.merge_news(Message::Digest, from, to, &bytes),
            Said::Tenants(bytes) => self.merge_news(Message::Tenants, from, to, &bytes),
            Said::Cached(bytes) => self.merge_news(Message::Cached, from, to, &bytes),
            Said::Share(bytes, informs) => {
                let told_ns = informs.then_some(sent_ns);
                self.merge_share(from, to, &bytes, told_ns);
            }
        }
    }

    fn merge_share(&mut self, from: u32, to: u32, bytes: &[u8], told_ns: Option<Nanos>) {
        let now_ns = self.queue.now_ns();
        let view = self.sharing.view(to, from);
        let Some(ahead_ns) = view.ahead_ns() else {
            return self.broke(Err("a_connection_begins_with_a_ping".to_owned()));
        };
        let mut out = std::mem::take(&mut self.out);
        let balancer = &mut self.balancers[to as usize];
        let clock_ns = balancer.at(now_ns);
        let merged = balancer.router_mut().map_or(Ok(()), |router| {
            router.merge_share(
                PeerId(from),
                bytes,
                ahead_ns,
                Instant::from_ns(clock_ns),
                &mut out,
            )
        });
        if let Err(error) = merged {
            self.broke(Err(format!("shares_are_understood: {error}")));
        }
        self.note_share(from, to, bytes, told_ns);
        self.act(to, out);
    }

    /// What a message has said, for the invariants.
    fn note_share(&mut self, from: u32, to: u32, bytes: &[u8], told_ns: Option<Nanos>) {
        let Ok(share) = Share::decode(bytes) else {
            return;
        };
        let names = |key_of: &u64| {
            let mut numbers = 0..small(self.replicas.len());
            numbers.find(|number| key(&format!("replica-{number}")) == *key_of)
        };
        let listing: Option<Vec<_>> = share.listing.map(|keys| keys.iter().map(names).collect());
        let view = self.sharing.view(to, from);
        if let Some(listing) = listing {
            view.listing = listing;
        }
        for entry in &share.entries {
            let place = view.listing.get(entry.place as usize).copied().flatten();
            if let Some(wants) = place.and_then(|number| view.wants.get_mut(number as usize)) {
                *wants = entry.wants;
            }
        }
        view.told_ns = view.told_ns.max(told_ns);
    }
}
