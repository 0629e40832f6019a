//! Takes in what a peer of this region reports about shared replicas.

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::message::{Began, Entry, Page, Share};
use crate::engine::config::Config;
use crate::engine::fleet::member::Member;
use crate::engine::fleet::replica::{Need, Own, theirs};
use crate::engine::fleet::snapshot::Snapshot;
use crate::engine::fleet::{Fleet, gate};
use crate::engine::mesh::Mesh;
use crate::id::{PeerId, PeerSlot, ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// A page of a replica's metrics that a peer passed on.
#[derive(Debug)]
pub(in crate::engine) struct Passed {
    pub(in crate::engine) slot: ReplicaSlot,
    pub(in crate::engine) page: Snapshot,
    /// When it was asked for, by our clock.
    pub(in crate::engine) sent_ns: Instant,
}

/// What a message has changed.
#[derive(Debug, Default)]
pub(in crate::engine) struct Changes {
    /// More than the room at some replicas.
    pub(in crate::engine) more: bool,
    /// The replicas that it is about.
    pub(in crate::engine) replicas: Vec<ReplicaSlot>,
}

impl Mesh {
    /// Takes over a message of a peer of our region, sent at `told_ns` of our time. `observe` takes over
    /// the pages that it passes on; true when more than room may have changed.
    pub(in crate::engine) fn take_share(
        &mut self,
        (slot, peer): (PeerSlot, PeerId),
        share: Share,
        told_ns: Instant,
        fleet: &mut Fleet,
        (config, now): (&Config, Instant),
        mut observe: impl FnMut(&mut Fleet, Passed) -> bool,
    ) -> Changes {
        fleet.probes_mut().soon();
        // What a peer no longer lists is no longer shared: there may be room for us.
        let more = share.whole || share.listing.is_some();
        self.take_listing((slot, peer), share.asks, share.listing, fleet);
        if share.whole {
            self.keep_only((slot, peer), &share.entries, fleet);
        }
        let mut changes = Changes {
            more,
            replicas: Vec::new(),
        };
        for entry in share.entries {
            let places = self.remote(slot).map(|remote| &remote.share.places);
            let replica = places.and_then(|places| *places.get(entry.place as usize)?);
            let Some(replica) = replica else {
                continue;
            };
            let began: Vec<Own> = entry
                .began
                .iter()
                .map(|began| own_of(peer, began, told_ns))
                .collect();
            let page = self.take_entry(slot, replica, &entry, &began, fleet);
            let Some((ready_changed, page)) = page else {
                changes.replicas.push(replica);
                continue;
            };
            fleet.push_theirs(replica, began, config, now);
            for (number, age_us) in entry.started {
                fleet.first_byte_theirs(replica, theirs(peer, number), ago(told_ns, age_us));
            }
            changes.more |= ready_changed;
            // One that is looked for is looked at from here: it may be up for others only.
            let looked_for = |member: &Member| gate::looked_for(member.replica());
            if let Some((page, age_us)) = page
                && !fleet.member(replica).is_some_and(looked_for)
            {
                if let Some(shared) = self.sharing.replicas.get_mut(replica.index()) {
                    shared.heard_ns = now;
                }
                changes.more |= observe(
                    fleet,
                    Passed {
                        slot: replica,
                        page,
                        sent_ns: ago(told_ns, age_us),
                    },
                );
            }
            let ended = entry.ended.into_iter().map(|number| theirs(peer, number));
            fleet.complete_theirs(replica, ended);
            changes.replicas.push(replica);
        }
        changes
    }

    /// The peer asks to be told everything, or has told its list of replicas.
    fn take_listing(
        &mut self,
        (slot, peer): (PeerSlot, PeerId),
        asks: bool,
        listing: Option<Vec<u64>>,
        fleet: &mut Fleet,
    ) {
        if let Some(remote) = self.remotes.get_mut(slot.index()) {
            let sharer = &mut remote.share;
            if asks {
                (sharer.listed, sharer.cursor) = (false, None);
            }
            if let Some(listing) = listing {
                (sharer.listing, sharer.heard) = (listing, true);
                sharer.find(&self.sharing.by_key);
                let listed: HashSet<ReplicaSlot, FixedState> = sharer.listed().collect();
                fleet.keep_theirs(peer, |replica, _| listed.contains(&replica));
            }
        }
    }

    /// Forgets a peer's requests but those that are told, where they are told: one that is tried again is
    /// at another replica by the same number.
    fn keep_only(
        &mut self,
        (slot, peer): (PeerSlot, PeerId),
        entries: &[Entry],
        fleet: &mut Fleet,
    ) {
        let places = self.remote(slot).map(|remote| &remote.share.places);
        let mut told: HashSet<(ReplicaSlot, RequestId), FixedState> = HashSet::default();
        for entry in entries {
            let replica = places.and_then(|places| *places.get(entry.place as usize)?);
            if let Some(replica) = replica {
                let began = entry.began.iter();
                told.extend(began.map(|began| (replica, theirs(peer, began.number))));
            }
        }
        fleet.keep_theirs(peer, |replica, id| told.contains(&(replica, id)));
        if let Some(remote) = self.remotes.get_mut(slot.index()) {
            for reported in remote.share.reported.values_mut() {
                reported.ready = false;
            }
        }
    }

    /// Takes over what is told of one replica but its requests; whether it has become ready or the
    /// opposite, and its page. `None` for a replica that is not there.
    fn take_entry(
        &mut self,
        peer: PeerSlot,
        replica: ReplicaSlot,
        entry: &Entry,
        began: &[Own],
        fleet: &Fleet,
    ) -> Option<(bool, Option<(Snapshot, u32)>)> {
        let remote = self.remotes.get_mut(peer.index());
        let reported = remote.and_then(|remote| remote.share.reported.get_mut(&replica))?;
        fleet.member(replica)?;
        let changed = reported.ready != entry.ready;
        (reported.told, reported.wants, reported.ready) = (true, entry.wants, entry.ready);
        for own in began {
            reported.pushed_ns = reported.pushed_ns.max(own.pushed_ns);
        }
        let page = match &entry.page {
            Page::None => None,
            Page::Same { age_us } => reported.page.clone().map(|page| (page, *age_us)),
            Page::New { age_us, snapshot } => {
                reported.page = Some((**snapshot).clone());
                Some(((**snapshot).clone(), *age_us))
            }
        };
        Some((changed, page))
    }
}

fn ago(told_ns: Instant, age_us: u32) -> Instant {
    told_ns - Span::from_ns(u64::from(age_us) * 1_000)
}

fn own_of(peer: PeerId, began: &Began, told_ns: Instant) -> Own {
    Own {
        id: theirs(peer, began.number),
        pushed_ns: ago(told_ns, began.age_us),
        first_byte_ns: began.started_us.map(|age_us| ago(told_ns, age_us)),
        need: Need {
            prefill: began.prefill,
            kv: began.kv,
        },
    }
}
