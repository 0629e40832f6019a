//! The queue of requests that wait for room.
//!
//! Requests are partitioned by what they may use, so that no head blocks requests that have other
//! replicas. Within a partition the order is strictly first come, first served, by the age a
//! request got when it was submitted: one that comes back after a failed attempt stands before all
//! that were submitted after it. Entering at the tail, leaving from anywhere and expiring cost
//! O(log n) for the deadline and O(1) for the place in line.

use std::collections::BTreeSet;
use std::iter;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slab::Slab;

use super::id::{ModelId, Nanos, ReplicaId, RequestId};

/// What a request may use: requests with equal partitions wait in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The model or adapter asked for.
    pub model: ModelId,
    /// The one replica that can serve it (`previous_response_id`), if only one can.
    pub bound: Option<ReplicaId>,
}

/// A place in the hold, valid until its request leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(usize);

#[derive(Debug)]
struct Entry {
    request: RequestId,
    partition: Partition,
    age: u64,
    deadline_ns: Nanos,
    older: Option<usize>,
    younger: Option<usize>,
}

#[derive(Debug)]
struct Line {
    oldest: usize,
    youngest: usize,
    len: usize,
}

/// The hold. See the module's text.
#[derive(Debug)]
pub struct Hold {
    entries: Slab<Entry>,
    lines: HashMap<Partition, Line, FixedState>,
    deadlines: BTreeSet<(Nanos, usize)>,
    len_max: usize,
}

impl Hold {
    /// An empty hold for at most `len_max` requests.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Self {
            entries: Slab::new(),
            lines: HashMap::with_hasher(FixedState::default()),
            deadlines: BTreeSet::new(),
            len_max,
        }
    }

    /// Requests held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lines with at least one request.
    #[must_use]
    pub fn partitions_len(&self) -> usize {
        self.lines.len()
    }

    /// Requests held in one line.
    #[must_use]
    pub fn line_len(&self, partition: Partition) -> usize {
        self.lines.get(&partition).map_or(0, |line| line.len)
    }

    /// Puts a request into its line by age; `None` when the hold is full.
    ///
    /// A fresh request is younger than all others and goes to the tail in O(1). One that returns is
    /// placed from the head on, behind the returned requests that are older.
    pub fn enter(
        &mut self,
        partition: Partition,
        request: RequestId,
        age: u64,
        deadline_ns: Nanos,
    ) -> Option<Ticket> {
        if self.entries.len() >= self.len_max {
            return None;
        }
        let older = self.place_after(partition, age);
        let younger = match older {
            Some(older) => self.entries[older].younger,
            None => self.lines.get(&partition).map(|line| line.oldest),
        };
        let entry = Entry {
            request,
            partition,
            age,
            deadline_ns,
            older,
            younger,
        };
        let slot = self.entries.insert(entry);
        if let Some(older) = older {
            self.entries[older].younger = Some(slot);
        }
        if let Some(younger) = younger {
            self.entries[younger].older = Some(slot);
        }
        let line = self.lines.entry(partition).or_insert(Line {
            oldest: slot,
            youngest: slot,
            len: 0,
        });
        line.len += 1;
        if older.is_none() {
            line.oldest = slot;
        }
        if younger.is_none() {
            line.youngest = slot;
        }
        self.deadlines.insert((deadline_ns, slot));
        Some(Ticket(slot))
    }

    /// The entry behind which a request of this age stands; `None` at the head.
    fn place_after(&self, partition: Partition, age: u64) -> Option<usize> {
        let line = self.lines.get(&partition)?;
        if self.entries[line.youngest].age <= age {
            return Some(line.youngest);
        }
        let mut after = None;
        let mut next = Some(line.oldest);
        while let Some(slot) = next.filter(|&slot| self.entries[slot].age <= age) {
            after = Some(slot);
            next = self.entries[slot].younger;
        }
        after
    }

    /// Takes a request out, wherever it stands; `None` when the ticket is not valid any more.
    pub fn leave(&mut self, ticket: Ticket) -> Option<RequestId> {
        let entry = self.entries.try_remove(ticket.0)?;
        self.deadlines.remove(&(entry.deadline_ns, ticket.0));
        if let Some(older) = entry.older {
            self.entries[older].younger = entry.younger;
        }
        if let Some(younger) = entry.younger {
            self.entries[younger].older = entry.older;
        }
        if let Some(line) = self.lines.get_mut(&entry.partition) {
            line.len -= 1;
            match (entry.older, entry.younger) {
                (None, None) => drop(self.lines.remove(&entry.partition)),
                (None, Some(younger)) => line.oldest = younger,
                (Some(older), None) => line.youngest = older,
                (Some(_), Some(_)) => {}
            }
        }
        Some(entry.request)
    }

    /// Every line with the age of its oldest request, in no particular order.
    pub fn heads(&self) -> impl Iterator<Item = (Partition, u64)> {
        self.lines
            .iter()
            .map(|(partition, line)| (*partition, self.entries[line.oldest].age))
    }

    /// The oldest request of one line.
    #[must_use]
    pub fn oldest(&self, partition: Partition) -> Option<(Ticket, RequestId)> {
        let line = self.lines.get(&partition)?;
        Some((Ticket(line.oldest), self.entries[line.oldest].request))
    }

    /// The requests of one line, oldest first. A caller that matches requests with room over a
    /// window takes as many as its window is wide.
    pub fn line(&self, partition: Partition) -> impl Iterator<Item = (Ticket, RequestId)> {
        iter::successors(self.oldest(partition), |(ticket, _)| self.after(*ticket))
    }

    /// The next younger request of the same line.
    #[must_use]
    pub fn after(&self, ticket: Ticket) -> Option<(Ticket, RequestId)> {
        let younger = self.entries.get(ticket.0)?.younger?;
        Some((Ticket(younger), self.entries[younger].request))
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// Takes out the request with the earliest deadline, if that is not after `now_ns`.
    pub fn expire(&mut self, now_ns: Nanos) -> Option<RequestId> {
        let (_, slot) = *self
            .deadlines
            .first()
            .filter(|(deadline_ns, _)| *deadline_ns <= now_ns)?;
        self.leave(Ticket(slot))
    }

    /// Checks the structure.
    ///
    /// # Errors
    ///
    /// The name of the broken invariant.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        if self.entries.len() > self.len_max {
            return Err("hold_len_at_most_max");
        }
        if self.deadlines.len() != self.entries.len() {
            return Err("hold_one_deadline_per_entry");
        }
        let mut linked_len = 0;
        for (partition, line) in &self.lines {
            let mut older = None;
            let mut len = 0;
            for (Ticket(slot), _) in self.line(*partition) {
                let entry = &self.entries[slot];
                if entry.older != older || entry.partition != *partition {
                    return Err("hold_links_agree");
                }
                if older.is_some_and(|older: usize| self.entries[older].age > entry.age) {
                    return Err("hold_lines_by_age");
                }
                if !self.deadlines.contains(&(entry.deadline_ns, slot)) {
                    return Err("hold_one_deadline_per_entry");
                }
                older = Some(slot);
                len += 1;
            }
            if older != Some(line.youngest) || len != line.len {
                return Err("hold_line_ends_agree");
            }
            linked_len += len;
        }
        if linked_len != self.entries.len() {
            return Err("hold_every_entry_in_a_line");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LEN_MAX: usize = 12;

    /// What is written down about a held request, in plain queues searched from end to end.
    #[derive(Debug, Clone, PartialEq)]
    struct Held {
        request: RequestId,
        age: u64,
        deadline_ns: Nanos,
        ticket: Ticket,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter {
            line: u32,
            wait_ns: u64,
        },
        /// The n-th held request is taken out and comes back with its age.
        Return {
            nth: usize,
            wait_ns: u64,
        },
        Leave {
            nth: usize,
        },
        Expire {
            ns: u64,
        },
    }

    fn histories() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3_u32, 1..50_u64).prop_map(|(line, wait_ns)| Step::Enter { line, wait_ns }),
            2 => (any::<usize>(), 1..50_u64).prop_map(|(nth, wait_ns)| Step::Return { nth, wait_ns }),
            2 => any::<usize>().prop_map(|nth| Step::Leave { nth }),
            1 => (1..20_u64).prop_map(|ns| Step::Expire { ns }),
        ];
        prop::collection::vec(step, 0..120)
    }

    fn partition(line: u32) -> Partition {
        Partition {
            model: ModelId(line),
            bound: (line == 2).then_some(ReplicaId(7)),
        }
    }

    #[derive(Default)]
    struct Oracle {
        lines: [VecDeque<Held>; 3],
        away: Vec<(u32, RequestId, u64)>,
        now_ns: Nanos,
        ages: u64,
    }

    impl Oracle {
        fn len(&self) -> usize {
            self.lines.iter().map(VecDeque::len).sum()
        }

        fn nth(&self, nth: usize) -> Option<(usize, usize)> {
            let all: Vec<_> = (0..3)
                .flat_map(|line| (0..self.lines[line].len()).map(move |at| (line, at)))
                .collect();
            (!all.is_empty()).then(|| all[nth % all.len()])
        }

        fn enter(
            &mut self,
            hold: &mut Hold,
            line: u32,
            request: RequestId,
            age: u64,
            wait_ns: u64,
        ) {
            let deadline_ns = self.now_ns + wait_ns;
            let ticket = hold.enter(partition(line), request, age, deadline_ns);
            assert_eq!(
                ticket.is_some(),
                self.len() < LEN_MAX,
                "refused exactly when full"
            );
            if let Some(ticket) = ticket {
                let waiting = Held {
                    request,
                    age,
                    deadline_ns,
                    ticket,
                };
                let queue = &mut self.lines[line as usize];
                let at = queue
                    .iter()
                    .position(|other| other.age > age)
                    .unwrap_or(queue.len());
                queue.insert(at, waiting);
            }
        }

        fn take(&mut self, hold: &mut Hold, nth: usize) -> Option<(u32, Held)> {
            let (line, at) = self.nth(nth)?;
            let waiting = self.lines[line].remove(at)?;
            assert_eq!(hold.leave(waiting.ticket), Some(waiting.request));
            Some((u32::try_from(line).unwrap(), waiting))
        }

        fn step(&mut self, hold: &mut Hold, step: &Step) {
            match *step {
                Step::Enter { line, wait_ns } => {
                    self.ages += 1;
                    self.enter(hold, line, RequestId(self.ages), self.ages, wait_ns);
                }
                Step::Return { nth, wait_ns } => {
                    if let Some((line, waiting)) = self.take(hold, nth) {
                        self.away.push((line, waiting.request, waiting.age));
                    }
                    if self.away.len() > 2 {
                        let (line, request, age) = self.away.remove(nth % 3);
                        self.enter(hold, line, request, age, wait_ns);
                    }
                }
                Step::Leave { nth } => {
                    if let Some((_, waiting)) = self.take(hold, nth) {
                        assert_eq!(hold.leave(waiting.ticket), None, "a ticket is valid once");
                    }
                }
                Step::Expire { ns } => {
                    self.now_ns += ns;
                    let mut gone: Vec<_> = iter::from_fn(|| hold.expire(self.now_ns)).collect();
                    let mut expected: Vec<_> = Vec::new();
                    for queue in &mut self.lines {
                        expected.extend(
                            queue
                                .iter()
                                .filter(|h| h.deadline_ns <= self.now_ns)
                                .cloned(),
                        );
                        queue.retain(|h| h.deadline_ns > self.now_ns);
                    }
                    gone.sort_unstable();
                    let mut expected: Vec<_> =
                        expected.iter().map(|waiting| waiting.request).collect();
                    expected.sort_unstable();
                    assert_eq!(gone, expected);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_line_is_served_as_a_plain_queue_would(history in histories()) {
            let mut hold = Hold::new(LEN_MAX);
            let mut oracle = Oracle::default();
            for step in &history {
                oracle.step(&mut hold, step);
                prop_assert_eq!(hold.check_invariants(), Ok(()));
                prop_assert_eq!(hold.len(), oracle.len());
                for line in 0..3 {
                    let queue = &oracle.lines[line as usize];
                    let requests: Vec<_> = hold.line(partition(line)).collect();
                    let expected: Vec<_> = queue.iter().map(|h| (h.ticket, h.request)).collect();
                    prop_assert_eq!(requests, expected);
                    prop_assert_eq!(hold.line_len(partition(line)), queue.len());
                }
                let mut heads: Vec<_> = hold.heads().collect();
                heads.sort_unstable();
                let expected: Vec<_> = (0..3)
                    .filter_map(|line| {
                        oracle.lines[line as usize].front().map(|waiting| (partition(line), waiting.age))
                    })
                    .collect();
                prop_assert_eq!(heads, expected);
                let next = oracle.lines.iter().flatten().map(|waiting| waiting.deadline_ns).min();
                prop_assert_eq!(hold.next_deadline_ns(), next);
            }
        }
    }

    #[test]
    fn deadlines_expire_in_order_and_not_before_their_time() {
        let mut hold = Hold::new(8);
        for (request, deadline_ns) in [(1, 30), (2, 10), (3, 20)] {
            hold.enter(partition(0), RequestId(request), request, deadline_ns);
        }
        assert_eq!(hold.expire(9), None);
        assert_eq!(hold.expire(20), Some(RequestId(2)));
        assert_eq!(hold.expire(20), Some(RequestId(3)));
        assert_eq!(hold.expire(20), None);
        assert_eq!(
            hold.line(partition(0))
                .map(|(_, request)| request)
                .collect::<Vec<_>>(),
            [RequestId(1)]
        );
    }

    #[test]
    fn a_hold_of_no_length_takes_nothing() {
        let mut hold = Hold::new(0);
        assert_eq!(hold.enter(partition(0), RequestId(1), 1, 5), None);
        assert!(hold.is_empty());
    }
}
