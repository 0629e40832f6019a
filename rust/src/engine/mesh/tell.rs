//! What is sent to peers, and when.
//!
//! A message is built when it is sent: while one of a kind has not been written, the peer gets no other
//! of that kind. So what waits for a slow connection is bounded, and what goes out is never old.

use super::{Local, Mesh};
use crate::engine::effect::{Message, Tell};
use crate::engine::mesh::peer::Presence;
use crate::engine::tenants::{Sibling, Tenants};
use crate::id::{PeerId, PeerSlot};
use crate::time::{EARLY, Instant, Span};

/// Time between two looks at what peers should get, while there are requests.
const TELL_NS: Span = Span::from_ms(50);
/// The same for peers of our region, which learn what was pushed to common replicas.
const NEAR_TELL_NS: Span = Span::from_ms(20);
/// The same for all while there are no requests.
const IDLE_TELL_NS: Span = Span::from_ms(100);

/// The connection to a peer, as far as messages go; the default: there is none.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::engine) struct Link {
    /// Kinds of messages that it takes, as bits.
    takes: u8,
    /// Those sent and not yet written.
    unwritten: u8,
}

impl Link {
    fn stands(self) -> bool {
        self.takes != 0
    }

    pub(in crate::engine::mesh) fn takes(self, kind: Message) -> bool {
        self.takes & bit(kind) != 0
    }

    fn is_free(self, kind: Message) -> bool {
        self.takes & !self.unwritten & bit(kind) != 0
    }
}

fn bit(kind: Message) -> u8 {
    1 << kind as u8
}

/// Looks at the peers of our region, or at all others.
#[derive(Debug, Default)]
struct Rounds {
    /// Connections.
    links: usize,
    last_ns: Option<Instant>,
}

impl Rounds {
    fn next_ns(&self, pause_ns: Span) -> Option<Instant> {
        let next_ns = self.last_ns.map_or(Instant::ZERO, |at_ns| at_ns + pause_ns);
        (self.links > 0).then_some(next_ns)
    }

    fn begins(&mut self, pause_ns: Span, now: Instant) -> bool {
        let begins = self
            .next_ns(pause_ns)
            .is_some_and(|at_ns| at_ns <= now + EARLY);
        if begins {
            self.last_ns = Some(now);
        }
        begins
    }
}

/// When peers get something.
#[derive(Debug, Default)]
pub(in crate::engine) struct Telling {
    near: Rounds,
    far: Rounds,
}

impl Mesh {
    /// A connection to a peer stands, which takes these kinds of messages.
    pub(in crate::engine) fn connect(
        &mut self,
        (slot, peer): (PeerSlot, PeerId),
        kinds: &[Message],
    ) {
        self.disconnect(peer);
        self.take_kinds(peer, kinds);
        let rounds = if self.is_near(slot) {
            &mut self.telling.near
        } else {
            &mut self.telling.far
        };
        rounds.last_ns = None;
    }

    /// It takes these kinds as well.
    pub(in crate::engine) fn take_kinds(&mut self, peer: PeerId, kinds: &[Message]) {
        let takes = kinds.iter().fold(0, |takes, kind| takes | bit(*kind));
        self.change_link(peer, |link| link.takes |= takes);
        self.count_links();
    }

    /// There is none any more.
    pub(in crate::engine) fn disconnect(&mut self, peer: PeerId) {
        self.change_link(peer, |link| *link = Link::default());
        self.count_links();
    }

    /// A message has been written to the connection.
    pub(in crate::engine) fn written(&mut self, peer: PeerId, kind: Message) {
        self.change_link(peer, |link| link.unwritten &= !bit(kind));
    }

    fn change_link(&mut self, peer: PeerId, change: impl FnOnce(&mut Link)) {
        let mut remotes = self.remotes.iter_mut();
        if let Some((_, remote)) = remotes.find(|(_, remote)| remote.peer.id == peer) {
            change(&mut remote.link);
        }
    }

    /// Peers, their connections or their regions have changed.
    pub(super) fn count_links(&mut self) {
        let links = self.peers().filter(|(slot, _)| self.link(*slot).stands());
        let slots: Vec<PeerSlot> = links.map(|(slot, _)| slot).collect();
        let near = slots.iter().filter(|slot| self.is_near(**slot)).count();
        self.telling.near.links = near;
        self.telling.far.links = slots.len() - near;
    }

    fn link(&self, slot: PeerSlot) -> Link {
        self.remote(slot)
            .map_or_else(Link::default, |remote| remote.link)
    }

    /// The balancers among which limits are shared.
    pub(in crate::engine) fn siblings(&self) -> impl Iterator<Item = Sibling> {
        let listed = self
            .remotes
            .iter()
            .filter(|(_, remote)| !remote.peer.removed);
        listed.map(|(_, remote)| Sibling {
            peer: remote.peer.id,
            dead: remote.peer.presence == Presence::Dead,
            takes: (remote.link.stands()).then_some(remote.link.takes & bit(Message::Tenants) != 0),
        })
    }

    fn is_near(&self, slot: PeerSlot) -> bool {
        self.peer(slot)
            .is_some_and(|peer| peer.region == self.region)
    }

    /// When the next look is. `busy`: there are requests.
    pub(in crate::engine) fn next_tell_ns(&self, busy: bool) -> Option<Instant> {
        let near_ns = self.telling.near.next_ns(near_pause_ns(busy));
        let far_ns = self.telling.far.next_ns(pause_ns(busy));
        near_ns.into_iter().chain(far_ns).min()
    }

    /// What peers get now. It counts as told, so it is to be sent. `hold_age_ns`: how long the longest
    /// held request has waited.
    pub(in crate::engine) fn tell(
        &mut self,
        busy: bool,
        hold_age_ns: Span,
        local: &Local<'_>,
        tenants: &mut Tenants,
    ) -> Vec<Tell> {
        let near = self.telling.near.begins(near_pause_ns(busy), local.now);
        let far = self.telling.far.begins(pause_ns(busy), local.now);
        let mut tells = Vec::new();
        if !near && !far {
            return tells;
        }
        let peers: Vec<_> = self.peers().map(|(slot, peer)| (slot, peer.id)).collect();
        for (slot, peer) in peers {
            let looks = if self.is_near(slot) { near } else { far };
            for kind in Message::ALL {
                if !looks || !self.link(slot).is_free(kind) {
                    continue;
                }
                let payload = match kind {
                    Message::Summary if !self.summary_due(peer, local) => None,
                    Message::Summary => self.summary(slot, hold_age_ns, local),
                    Message::Digest if !self.hot_due(peer, local) => None,
                    Message::Digest => self.hot_digest(slot, local.config),
                    Message::Share => self.share(slot, local),
                    Message::Tenants => tenants.tell(peer, local.now),
                    Message::Cached => self.tell_cached(slot, local),
                };
                if let Some(payload) = payload {
                    self.change_link(peer, |link| link.unwritten |= bit(kind));
                    tells.push(Tell {
                        peer,
                        kind,
                        payload,
                    });
                }
            }
        }
        tells
    }
}

fn pause_ns(busy: bool) -> Span {
    if busy { TELL_NS } else { IDLE_TELL_NS }
}

fn near_pause_ns(busy: bool) -> Span {
    if busy { NEAR_TELL_NS } else { IDLE_TELL_NS }
}
