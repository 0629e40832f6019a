//! What a peer of our region tells.

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::engine::choose::policy::Slot;
use crate::engine::effect::Effect;
use crate::engine::fleet::Probed;
use crate::engine::fleet::gate;
use crate::engine::fleet::replica::{Need, Own, theirs};
use crate::engine::mesh::region::message::{Began, Entry, Page, Share, ShareError};
use crate::engine::router::Router;
use crate::id::{Nanos, PeerId, RequestId};

impl Router {
    /// What a peer of our region told. `ahead_ns`: how far our clock is ahead of its clock.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the peer is not of our region: nothing happened.
    pub fn merge_share(
        &mut self,
        peer: PeerId,
        bytes: &[u8],
        ahead_ns: i64,
        now_ns: Nanos,
        out: &mut Vec<Effect>,
    ) -> Result<(), ShareError> {
        let now_ns = self.advance(now_ns);
        let slot = self.known_peer(peer).ok_or(ShareError::Stranger)?;
        let region = self.mesh.peer(slot).map(|peer| &peer.region);
        if region != Some(&self.mesh.region) {
            return Err(ShareError::Stranger);
        }
        if !self.mesh.shares(slot) {
            return Ok(()); // an operator has isolated it
        }
        let share = Share::decode(bytes).inspect_err(|_| self.counters.shares_refused += 1)?;
        self.counters.shares_merged += 1;
        let told_ns = share.told_ns.saturating_add_signed(ahead_ns).min(now_ns);
        if let Some(remote) = self.mesh.remotes.get_mut(slot as usize) {
            let sharer = &mut remote.share;
            if share.asks {
                (sharer.listed, sharer.cursor) = (false, None);
            }
            if let Some(listing) = share.listing {
                (sharer.listing, sharer.heard) = (listing, true);
                sharer.find(&self.sharing.by_key);
                self.forget_unlisted(slot, peer);
            }
        }
        if share.whole {
            self.keep_only(slot, peer, &share.entries);
        }
        let mut touched = Vec::new();
        let mut changed = share.whole;
        for entry in share.entries {
            let place = self.mesh.remote(slot).map(|remote| &remote.share.places);
            let place = place.and_then(|places| *places.get(entry.place as usize)?);
            if let Some(replica) = place {
                changed |= self.take(slot, peer, replica, entry, told_ns, now_ns);
                touched.push(replica);
            }
        }
        if changed {
            self.review_sharing();
        }
        for replica in &touched {
            self.review_split(*replica, now_ns);
            changed |= self.review(*replica, now_ns, out);
        }
        if changed {
            self.dispatch_all(now_ns, out);
        } else {
            for replica in touched {
                self.dispatch(replica, now_ns, out);
            }
        }
        Ok(())
    }

    /// Forgets a peer's requests at replicas that it no longer lists.
    fn forget_unlisted(&mut self, slot: Slot, peer: PeerId) {
        let remote = self.mesh.remote(slot);
        let listed: HashSet<Slot, FixedState> =
            remote.map_or_else(HashSet::default, |remote| remote.share.listed().collect());
        self.keep_theirs(peer, |replica, _| listed.contains(&replica));
    }

    /// Forgets a peer's requests but those that are told.
    fn keep_only(&mut self, slot: Slot, peer: PeerId, entries: &[Entry]) {
        let told = entries.iter().flat_map(|entry| &entry.began);
        let told: HashSet<RequestId, FixedState> =
            told.map(|began| theirs(peer, began.number)).collect();
        self.keep_theirs(peer, |_, id| told.contains(&id));
        if let Some(remote) = self.mesh.remotes.get_mut(slot as usize) {
            for line in remote.share.reported.values_mut() {
                line.ready = false;
            }
        }
    }

    /// Takes over what is told of one replica; true when more than room there may have changed.
    fn take(
        &mut self,
        slot: Slot,
        peer: PeerId,
        replica: Slot,
        entry: Entry,
        told_ns: Nanos,
        now_ns: Nanos,
    ) -> bool {
        let ago = |age_us: u32| told_ns.saturating_sub(u64::from(age_us) * 1_000);
        let in_flight_max = self.config.in_flight_max;
        let remote = self.mesh.remotes.get_mut(slot as usize);
        let line = remote.and_then(|remote| remote.share.reported.get_mut(&replica));
        let (Some(line), Some(member)) = (line, self.fleet.member_mut(replica)) else {
            return false;
        };
        let mut changed = line.ready != entry.ready;
        (line.wants, line.ready) = (entry.wants, entry.ready);
        for began in &entry.began {
            let own = own_of(peer, began, &ago);
            line.pushed_ns = line.pushed_ns.max(own.pushed_ns);
            member.replica.push_theirs(own, in_flight_max, now_ns);
        }
        for (number, age_us) in entry.started {
            member.replica.first_byte(theirs(peer, number), ago(age_us));
        }
        let page = match entry.page {
            Page::None => None,
            Page::Same { age_us } => line.page.clone().map(|page| (page, age_us)),
            Page::New { age_us, snapshot } => {
                line.page = Some((*snapshot).clone());
                Some((*snapshot, age_us))
            }
        };
        // One that is looked for is looked at from here: it may be up for others only.
        let page = page.filter(|_| !gate::looked_for(&member.replica));
        if let Some((page, age_us)) = page {
            member.shared.heard_ns = now_ns;
            self.counters.pages_heard += 1;
            changed |= self.observed(replica, page, (ago(age_us), Probed::Elsewhere), now_ns);
        }
        if let Some(member) = self.fleet.member_mut_if(replica, !entry.ended.is_empty()) {
            for number in entry.ended {
                member.replica.complete_theirs(theirs(peer, number));
            }
        }
        changed
    }
}

fn own_of(peer: PeerId, began: &Began, ago: &impl Fn(u32) -> Nanos) -> Own {
    Own {
        id: theirs(peer, began.number),
        pushed_ns: ago(began.age_us),
        first_byte_ns: began.started_us.map(ago),
        need: Need {
            prefill: began.prefill,
            kv: began.kv,
        },
    }
}
