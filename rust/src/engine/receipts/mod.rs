//! Why the last requests went where they went.
//!
//! The [`Chooser`](crate::engine::choose) notes what it looks at while it chooses. The effects of a call say what
//! was decided. A [`Receipt`] has both, and what came of it. Nothing here decides: with receipts or without, the
//! engine does the same.
//!
//! A receipt has no text of a prompt, no hash of one, and no key. Names come from settings and from the model that
//! the request names.

pub mod decision;
pub mod search;

use std::collections::VecDeque;
use std::mem;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use self::decision::{Came, Decision, Held, Peers};
use self::search::Search;
use super::ask::Usage;
use super::effect::{Effect, Outcome};
use crate::id::{PeerId, RequestId};
use crate::prompt::class::Class;
use crate::tenant::Tenant;
use crate::time::{Instant, Span};

/// Decisions kept of one request: of more, the last ones replace each other.
pub const DECISIONS_MAX: usize = 8;

/// What a request asks for, as its receipt says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The client's name for the request, or ours.
    pub name: Box<str>,
    /// The route's template.
    pub route: &'static str,
    /// The model that it names.
    pub model: Box<str>,
    /// Its class, as it counts here.
    pub class: Class,
    /// Its tenant.
    pub tenant: Tenant<Box<str>>,
    /// The peer that forwarded it.
    pub origin: Option<PeerId>,
    /// It came from a peer.
    pub forwarded: bool,
    /// Bytes of its prompt, and hashed blocks.
    pub prompt_bytes: usize,
    /// The blocks.
    pub prompt_blocks: usize,
    /// It belongs to a session.
    pub session: bool,
    /// Its answer is a stream.
    pub stream: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at_ns: Instant,
    /// How.
    pub outcome: Outcome,
    /// Status of the answer; 0: none came.
    pub status: u16,
    /// What the engine reported.
    pub usage: Usage,
}

/// What is kept of one request.
#[derive(Debug)]
pub struct Receipt {
    pub(in crate::engine) id: RequestId,
    pub(in crate::engine) age: u64,
    pub(in crate::engine) submitted_ns: Instant,
    pub(in crate::engine) asked: Asked,
    pub(in crate::engine) decisions: Vec<Decision>,
    /// Decisions that later ones have replaced.
    pub(in crate::engine) left_out: u32,
    pub(in crate::engine) first_byte_ns: Option<Instant>,
    pub(in crate::engine) end: Option<End>,
    /// What was looked at since the last decision.
    search: Option<Search>,
    peers: Option<Peers>,
    held: Option<Held>,
    /// Time in the hold, the stay under way left out.
    held_ns: Span,
}

impl Receipt {
    fn new(id: RequestId, age: u64, asked: Asked, now: Instant) -> Self {
        Self {
            id,
            age,
            submitted_ns: now,
            asked,
            decisions: Vec::new(),
            left_out: 0,
            first_byte_ns: None,
            end: None,
            search: None,
            peers: None,
            held: None,
            held_ns: Span::ZERO,
        }
    }

    /// No more comes: it has ended, or it was refused.
    pub(in crate::engine) fn is_over(&self) -> bool {
        let last = self.decisions.last();
        self.end.is_some() || last.is_some_and(|last| last.came.ends())
    }

    /// Time in the hold until now, or until its end.
    pub(in crate::engine) fn held_ns(&self, now: Instant) -> Span {
        let until = self.end.map_or(now, |end| end.at_ns);
        self.held_ns + self.stay_ns(until)
    }

    /// How long the stay in the hold has lasted that the last decision has begun.
    fn stay_ns(&self, until: Instant) -> Span {
        let last = self.decisions.last();
        let stay = last.filter(|last| last.came == Came::Held);
        stay.map_or(Span::ZERO, |stay| until - stay.at_ns)
    }

    /// The decision that began the last attempt. That it was given up is a decision too.
    fn attempt(&mut self) -> Option<&mut Decision> {
        let mut decisions = self.decisions.iter_mut().rev();
        decisions.find(|decision| decision.came.begins())
    }

    fn decide(&mut self, came: Came, now: Instant) {
        self.held_ns += self.stay_ns(now);
        let decision = Decision {
            at_ns: now,
            came,
            held: self.held.take().filter(|_| came == Came::Held),
            search: self.search.take(),
            peers: self.peers.take(),
            first_byte_ns: None,
            failed: None,
        };
        if self.decisions.len() == DECISIONS_MAX {
            self.left_out += 1;
            self.decisions.pop();
        }
        self.decisions.push(decision);
    }
}

/// The receipts of the last requests, in the order in which they came.
#[derive(Debug)]
pub struct Receipts {
    max: usize,
    /// Ascending by age.
    kept: VecDeque<Receipt>,
    /// Which of them is a request's, by its age.
    ages: HashMap<RequestId, u64, FixedState>,
    /// The search under way. Its buffers are used again.
    search: Search,
    /// Receipts that have made room for others.
    dropped: u64,
    /// Of them, those of requests that had not ended.
    dropped_open: u64,
}

impl Receipts {
    /// Keeps so many, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            kept: VecDeque::new(),
            ages: HashMap::with_hasher(FixedState::default()),
            search: Search::default(),
            dropped: 0,
            dropped_open: 0,
        }
    }

    // ------------------------------------------------------------------ what is kept

    /// The most that are kept.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Receipts that have made room for others, and how many of their requests had not ended.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64) {
        (self.dropped, self.dropped_open)
    }

    /// All of them, the newest first.
    #[must_use]
    pub fn newest(&self) -> impl ExactSizeIterator<Item = &Receipt> {
        self.kept.iter().rev()
    }

    /// The newest of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Receipt> {
        self.newest().find(|receipt| &*receipt.asked.name == name)
    }

    // ------------------------------------------------------------------ a request's course

    /// A request is placed now; `age`: what it gets if it is not refused at once.
    pub(in crate::engine) fn begin(&mut self, id: RequestId, age: u64, asked: Asked, now: Instant) {
        if self.ages.contains_key(&id) {
            return;
        }
        if self.kept.len() == self.max
            && let Some(oldest) = self.kept.pop_front()
        {
            self.ages.remove(&oldest.id);
            self.dropped += 1;
            self.dropped_open += u64::from(!oldest.is_over());
        }
        self.ages.insert(id, age);
        self.kept.push_back(Receipt::new(id, age, asked, now));
    }

    /// What a call of the engine has yielded.
    pub(in crate::engine) fn note_effects(&mut self, effects: &[Effect], now: Instant) {
        for effect in effects {
            if let Some(came) = Came::of(effect)
                && let Some(receipt) = effect.request().and_then(|id| self.of(id))
            {
                receipt.decide(came, now);
            }
        }
    }

    /// The first byte of its answer has come.
    pub(in crate::engine) fn note_first_byte(&mut self, id: RequestId, now: Instant) {
        if let Some(receipt) = self.of(id) {
            receipt.first_byte_ns.get_or_insert(now);
            if let Some(attempt) = receipt.attempt() {
                attempt.first_byte_ns.get_or_insert(now);
            }
        }
    }

    /// Its attempt has failed so.
    pub(in crate::engine) fn note_failure(
        &mut self,
        id: RequestId,
        failure: &'static str,
        now: Instant,
    ) {
        if let Some(attempt) = self.of(id).and_then(Receipt::attempt) {
            attempt.failed = Some((failure, now));
        }
    }

    /// It has ended.
    pub(in crate::engine) fn note_end(&mut self, id: RequestId, end: End) {
        if let Some(receipt) = self.of(id) {
            receipt.end = Some(end);
        }
    }

    // ------------------------------------------------------------------ what is looked at

    /// A search for a replica begins.
    pub(in crate::engine) fn search(&mut self) -> &mut Search {
        &mut self.search
    }

    /// That search was for the request of this age.
    pub(in crate::engine) fn searched(&mut self, age: u64) {
        let Some(position) = self.position(age) else {
            return;
        };
        let before = self.kept[position].search.take().unwrap_or_default();
        self.kept[position].search = Some(mem::replace(&mut self.search, before));
    }

    /// Peers were looked at for the request of this age.
    pub(in crate::engine) fn looked_at_peers(&mut self, age: u64, peers: Peers) {
        if let Some(position) = self.position(age) {
            self.kept[position].peers = Some(peers);
        }
    }

    /// The request of this age is held, for this reason.
    pub(in crate::engine) fn note_held(&mut self, age: u64, why: Held) {
        if let Some(position) = self.position(age) {
            self.kept[position].held = Some(why);
        }
    }

    /// With the forecast of a replica here its peers were compared.
    pub(in crate::engine) fn compared(&mut self, age: u64, here: decision::Compared) {
        if let Some(position) = self.position(age)
            && let Some(peers) = &mut self.kept[position].peers
        {
            peers.compared = Some(here);
        }
    }

    /// What was looked at for the request of this age since the last decision.
    pub(in crate::engine) fn take_looked_at(
        &mut self,
        age: u64,
    ) -> (Option<Search>, Option<Peers>) {
        let Some(position) = self.position(age) else {
            return (None, None);
        };
        let receipt = &mut self.kept[position];
        (receipt.search.take(), receipt.peers.take())
    }

    fn of(&mut self, id: RequestId) -> Option<&mut Receipt> {
        let position = self.position(*self.ages.get(&id)?)?;
        self.kept.get_mut(position)
    }

    /// The newest of this age: a request that was refused at once has the age of the next.
    fn position(&self, age: u64) -> Option<usize> {
        let last = self.kept.partition_point(|receipt| receipt.age <= age);
        let position = last.checked_sub(1)?;
        (self.kept[position].age == age).then_some(position)
    }
}

#[cfg(test)]
mod tests;
