//! Writes what a peer of this region receives about shared replicas.

use std::collections::BTreeMap;

use super::message::{
    Began, ENTRIES_BYTES_MAX, ENTRY_BYTES, Entry, Page, Share, age_us, key, told,
};
use super::state::{Said, What};
use crate::engine::fleet::Fleet;
use crate::engine::fleet::replica::Own;
use crate::engine::mesh::{Local, Mesh};
use crate::id::{PeerSlot, ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// Least time between two messages.
const GAP_NS: Span = Span::from_ns(15_000_000);
/// The same when there is nothing but pages of idle replicas.
const IDLE_GAP_NS: Span = Span::from_ns(500_000_000);
/// Bytes per second told to one peer, at most.
const BYTES_PER_S_MAX: u64 = 24 << 10;

/// What is told of the replicas, by place.
#[derive(Default)]
struct Draft {
    entries: BTreeMap<u32, Entry>,
    /// Of all entries, as encoded, at most.
    bytes: usize,
    /// There is more than pages of idle replicas.
    urgent: bool,
}

impl Draft {
    /// Whether so much more may be told.
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= ENTRIES_BYTES_MAX
    }

    /// The entry of a replica, a new one if need be.
    fn entry(&mut self, place: u32) -> &mut Entry {
        let bytes = &mut self.bytes;
        self.entries.entry(place).or_insert_with(|| {
            *bytes += ENTRY_BYTES;
            Entry {
                place,
                ..Entry::default()
            }
        })
    }

    /// Changes an entry.
    fn change(&mut self, place: u32, change: impl FnOnce(&mut Entry)) {
        let entry = self.entry(place);
        let before = entry.bytes();
        change(entry);
        let after = entry.bytes();
        self.bytes = self.bytes + after - before;
    }
}

impl Mesh {
    /// What to tell a peer of our region now; `None` where there is nothing to tell it. It counts as
    /// told, so it is to be sent.
    pub(in crate::engine) fn share(
        &mut self,
        slot: PeerSlot,
        local: &Local<'_>,
    ) -> Option<Vec<u8>> {
        let now = local.now;
        if !self.shares(slot) {
            return self.retract(slot, now);
        }
        let sharer = &self.remote(slot)?.share;
        let asks = !sharer.heard;
        let since_ns = sharer.told_ns.map(|at_ns| now - at_ns);
        let gap_ns = sharer.told_bytes as u64 * Span::from_secs(1) / BYTES_PER_S_MAX;
        if since_ns.is_some_and(|since_ns| since_ns < gap_ns.max(GAP_NS)) {
            return None;
        }
        let first = self.sharing.first;
        let whole = sharer.cursor.is_none_or(|cursor| cursor < first);
        let list = !sharer.listed;
        let mut draft = Draft::default();
        if whole {
            self.draft_all(slot, local, &mut draft);
        } else {
            self.draft_events(slot, now, &mut draft);
        }
        // Where events did not fit, everything is told next time.
        let fits = whole || draft.has_room(0);
        let news = self.draft_news(slot, local, &mut draft);
        let waits = !whole && !list && !draft.urgent;
        if waits && (draft.entries.is_empty() || since_ns.is_some_and(|ns| ns < IDLE_GAP_NS)) {
            self.caught_up(slot);
            return None;
        }
        let share = Share {
            told_ns: now.ns(),
            whole,
            asks,
            listing: list.then(|| self.keys(local.fleet)),
            entries: draft.entries.into_values().collect(),
        };
        let bytes = share.encode()?;
        let next = self.sharing.next();
        let sharer = &mut self.remotes.get_mut(slot.index())?.share;
        sharer.said.extend(news);
        (sharer.listed, sharer.cursor) = (true, fits.then_some(next));
        (sharer.told_ns, sharer.told_bytes) = (Some(now), bytes.len());
        self.trim();
        Some(bytes)
    }

    /// The last word to a peer that an operator has isolated: it is to count nothing of ours any more.
    fn retract(&mut self, slot: PeerSlot, now: Instant) -> Option<Vec<u8>> {
        let sharer = &mut self.remotes.get_mut(slot.index())?.share;
        let nothing = Share {
            told_ns: now.ns(),
            whole: true,
            listing: Some(Vec::new()),
            ..Share::default()
        };
        let retracts = std::mem::take(&mut sharer.retracts);
        retracts.then(|| nothing.encode())?
    }

    /// None of the events so far concerns the peer.
    fn caught_up(&mut self, slot: PeerSlot) {
        let next = self.sharing.next();
        if let Some(remote) = self.remotes.get_mut(slot.index()) {
            remote.share.cursor = Some(next);
        }
        self.trim();
    }

    /// Drops events that everybody has been told.
    fn trim(&mut self) {
        let told = self.told_by_all().min(self.sharing.next());
        while self.sharing.first < told && self.sharing.events.pop_front().is_some() {
            self.sharing.first += 1;
        }
    }

    fn keys(&self, fleet: &Fleet) -> Vec<u64> {
        let members = self.sharing.listing.iter().map(|slot| fleet.member(*slot));
        members
            .map(|member| member.map_or(0, |member| key(member.name())))
            .collect()
    }

    /// Our place of a replica that the peer lists too.
    fn place_told(&self, peer: PeerSlot, slot: ReplicaSlot) -> Option<u32> {
        let lists = self.remote(peer)?.share.lists(slot);
        self.sharing.places.get(&slot).copied().filter(|_| lists)
    }

    /// All that is in flight.
    fn draft_all(&self, peer: PeerSlot, local: &Local<'_>, draft: &mut Draft) {
        for slot in &self.sharing.listing {
            let (Some(place), Some(member)) =
                (self.place_told(peer, *slot), local.fleet.member(*slot))
            else {
                continue;
            };
            draft.entry(place);
            for own in member.replica().own() {
                if !draft.has_room(0) {
                    break;
                }
                draft.change(place, |entry| entry.began.push(began(&own, local.now)));
            }
        }
    }

    /// What has happened since the peer was told something.
    fn draft_events(&self, peer: PeerSlot, now: Instant, draft: &mut Draft) {
        let Some(remote) = self.remote(peer) else {
            return;
        };
        let first = self.sharing.first;
        let behind = remote.share.cursor.unwrap_or(first).saturating_sub(first);
        for (slot, what) in self
            .sharing
            .events
            .iter()
            .skip(usize::try_from(behind).unwrap_or(0))
        {
            let Some(place) = self.place_told(peer, *slot) else {
                continue;
            };
            draft.change(place, |entry| note(entry, *what, now));
            draft.urgent = true;
            if !draft.has_room(0) {
                return;
            }
        }
    }

    /// What has changed of each replica beside requests; what the peer will have been told.
    fn draft_news(
        &self,
        peer: PeerSlot,
        local: &Local<'_>,
        draft: &mut Draft,
    ) -> Vec<(ReplicaSlot, Said)> {
        let mut news = Vec::new();
        let Some(remote) = self.remote(peer) else {
            return news;
        };
        let wanted = wanted(local);
        for (place, slot) in (0..).zip(&self.sharing.listing) {
            let Some(member) = local
                .fleet
                .member(*slot)
                .filter(|_| remote.share.lists(*slot))
            else {
                continue;
            };
            let said = remote.share.said.get(slot).copied().unwrap_or_default();
            let Some(shared) = self.sharing.replicas.get(slot.index()) else {
                continue;
            };
            let mut current = Said {
                wants: wanted.get(slot.index()).copied().unwrap_or(false) && !member.declined(),
                ready: member.ready(local.config, local.now),
                ..said
            };
            let age_us = age_us(shared.page_ns, local.now);
            let page = match shared.page.as_ref() {
                _ if shared.page_ns <= said.page_ns => Page::None,
                _ if shared.pages == said.pages => Page::Same { age_us },
                Some(page) => Page::New {
                    age_us,
                    snapshot: Box::new(told(page)),
                },
                None => Page::None,
            };
            let page = Some(page).filter(|page| draft.has_room(ENTRY_BYTES + page.bytes()));
            let page = page.filter(|_| shared.page_ns > said.page_ns);
            if page.is_some() {
                (current.page_ns, current.pages) = (shared.page_ns, shared.pages);
            }
            let begun = draft.entries.contains_key(&place);
            if !begun && (current == said || !draft.has_room(ENTRY_BYTES)) {
                continue;
            }
            let busy =
                member.replica().in_flight() > 0 || current.wants || self.wanted_elsewhere(*slot);
            let paged = page.is_some();
            draft.urgent |=
                (current.wants, current.ready) != (said.wants, said.ready) || (paged && busy);
            draft.change(place, |entry| {
                (entry.wants, entry.ready) = (current.wants, current.ready);
                entry.page = page.unwrap_or_default();
            });
            news.push((*slot, current));
        }
        news
    }
}

/// By slot: whether something waits here that may go there, and does not wait for another.
pub(in crate::engine) fn wanted(local: &Local<'_>) -> Vec<bool> {
    let mut wanted = vec![false; local.fleet.slots_end()];
    for partition in local.hold.lines() {
        let bound = partition.bound.and_then(|id| local.fleet.slot(id));
        let serving = local.fleet.serving(Some(partition.model));
        let open = local.hold.open_len(partition) > 0;
        for slot in serving {
            wanted[slot.index()] |= open && (partition.bound.is_none() || bound == Some(*slot));
        }
    }
    wanted
}

/// A request as it is told.
pub(in crate::engine) fn began(own: &Own, now: Instant) -> Began {
    Began {
        number: own.id.0,
        age_us: age_us(own.pushed_ns, now),
        prefill: own.need.prefill,
        kv: own.need.kv,
        started_us: own.first_byte_ns.map(|at_ns| age_us(at_ns, now)),
    }
}

/// Adds an event to an entry. What has begun and ended since the last message is not told at all.
fn note(entry: &mut Entry, what: What, now: Instant) {
    let find = |entry: &Entry, id: RequestId| entry.began.iter().position(|b| b.number == id.0);
    match what {
        What::Began(own) => entry.began.push(began(&own, now)),
        What::Started(id, at_ns) => match find(entry, id) {
            Some(index) => entry.began[index].started_us = Some(age_us(at_ns, now)),
            None => entry.started.push((id.0, age_us(at_ns, now))),
        },
        What::Ended(id) => match find(entry, id) {
            Some(index) => {
                entry.began.swap_remove(index);
            }
            None => entry.ended.push(id.0),
        },
    }
}
