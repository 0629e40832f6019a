//! Which queue is served next.

use super::super::plant::Plant;
use super::queue::{Lane, Queue};
use super::{CLASSES, Class, Config, Hold, Instant, Partition, RequestId, Ticket};

/// A queue, as those who choose among queues see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The partition that it is in.
    pub partition: Partition,
    /// Its requests' class.
    pub class: Class,
    /// The class as which it competes.
    pub as_class: Class,
    /// What the tenant whose turn it is has been served beyond others that wait; 0 where there is one.
    pub ahead: u64,
    /// Age of that tenant's oldest request.
    pub age: u64,
    /// Smaller is served sooner; see [`Hold::turns`].
    pub rank: u64,
}

impl Hold {
    /// Every partition in which requests wait, in no particular order.
    pub fn lines(&self) -> impl Iterator<Item = Partition> {
        self.partitions.keys().copied()
    }

    /// Fills `out` with the queues of the partitions that `serves` picks, those first whose turn it is.
    ///
    /// Where tenants share the room, a queue stands for the tenant in it that has been served least.
    pub fn turns(
        &mut self,
        config: &Config,
        now: Instant,
        serves: impl Fn(Partition) -> bool,
        out: &mut Vec<Head>,
    ) {
        out.clear();
        let mut waiting = [false; CLASSES];
        let shares = self.shares(config);
        for (partition, queues) in &self.partitions {
            let wanted = serves(*partition);
            for (class, queue) in Class::ALL.into_iter().zip(&queues.by_class) {
                let Some((account, lane)) = queue.first() else {
                    continue;
                };
                let unserved = self.unserved_ns(self.unspared(queue, lane, config, now), shares);
                let as_class = class.raised(steps(unserved, config, now));
                waiting[as_class as usize] = true;
                if wanted {
                    out.push(Head {
                        partition: *partition,
                        class,
                        as_class,
                        ahead: if shares {
                            self.accounts.ahead(account)
                        } else {
                            0
                        },
                        age: self.entries[lane.oldest].of.age,
                        rank: 0,
                    });
                }
            }
        }
        self.served.settle(waiting);
        for head in out.iter_mut() {
            head.rank = self.served.rank(head.as_class, config);
        }
        out.sort_unstable_by_key(|head| (head.rank, head.ahead, head.age));
    }

    /// The first lane whose tenant does not ask for far more than its part, if there is one, else this one.
    fn unspared<'a>(
        &self,
        queue: &'a Queue,
        first: &'a Lane,
        config: &Config,
        now: Instant,
    ) -> &'a Lane {
        let mut lanes = queue.turns();
        let free = lanes.find(|(account, _)| !self.over(*account, false, config, now));
        let free = free.and_then(|(account, _)| queue.lane(account));
        free.unwrap_or(first)
    }

    /// Since when the tenant of a lane waits: its oldest request, and where tenants share the room, the tenant
    /// itself, which has been served nothing since.
    fn unserved_ns(&self, lane: &Lane, shares: bool) -> Instant {
        let oldest = &self.entries[lane.oldest];
        let submitted_ns = oldest.of.submitted_ns;
        if shares {
            submitted_ns.max(self.accounts.served_ns(oldest.account))
        } else {
            submitted_ns
        }
    }

    /// The requests of a queue to which the next room is owed, oldest first: those that are due. Where tenants
    /// share the room, that is settled between them, so that no backlog is owed anything. Then it is those of a
    /// tenant that has been served nothing for as long as a request may wait.
    pub fn owed(
        &self,
        head: &Head,
        config: &Config,
        now: Instant,
    ) -> impl Iterator<Item = (Ticket, RequestId)> {
        let front = self.front(head.partition, head.class);
        let shares = self.shares(config);
        let front = front.filter(|front| !shares || self.is_owed(front.ticket, config, now));
        // Those who are too old stand before the others; who has been passed over may stand behind
        // one that came back.
        let anywhere = shares || self.any_passed_out();
        let is_due = move |ticket: &Ticket| self.is_due(*ticket, config, now);
        let lane = front.into_iter().flat_map(|front| self.lane(front));
        lane.take_while(move |(ticket, _)| anywhere || is_due(ticket))
            .filter(move |(ticket, _)| shares || is_due(ticket))
    }

    /// The next room that a request can use is its own.
    #[must_use]
    pub fn is_owed(&self, ticket: Ticket, config: &Config, now: Instant) -> bool {
        if self.shares(config) {
            self.is_unserved(ticket, config, now)
        } else {
            self.is_due(ticket, config, now)
        }
    }

    /// Its tenant has been served nothing for as long as a request may wait.
    #[must_use]
    pub fn is_unserved(&self, ticket: Ticket, config: &Config, now: Instant) -> bool {
        let Some(entry) = self
            .entry(ticket)
            .filter(|_| !config.planted(Plant::Starved))
        else {
            return false;
        };
        let lane = self
            .queue_of(entry.of.partition, entry.of.class)
            .and_then(|queue| queue.lane(entry.account));
        lane.is_some_and(|lane| now >= self.unserved_ns(lane, true) + config.due_after_ns())
    }

    /// A request of a queue that competes as `class` was started; it needs so many tokens.
    pub fn charge(&mut self, class: Class, tokens: u32, config: &Config) {
        self.served.charge(class, tokens, config);
    }

    /// It has been passed over as often as allowed, or is too old: of its tenant's requests it is next.
    #[must_use]
    pub fn is_due(&self, ticket: Ticket, config: &Config, now: Instant) -> bool {
        if config.planted(Plant::Starved) {
            return false;
        }
        self.entry(ticket).is_some_and(|entry| {
            let overdue_ns = entry.of.submitted_ns + config.due_after_ns();
            entry.passes >= config.hold_passes_max || now >= overdue_ns
        })
    }

    /// Some request has been passed over as often as allowed.
    #[must_use]
    pub fn any_passed_out(&self) -> bool {
        self.passed_out > 0
    }

    /// A younger request of its queue took room that this one could have used. True when that may
    /// not happen again.
    pub fn pass_over(&mut self, ticket: Ticket, config: &Config) -> bool {
        let Some(entry) = self.entry_mut(ticket) else {
            return false;
        };
        entry.passes += 1;
        let last = entry.passes >= config.hold_passes_max && !entry.passed_out;
        if last {
            entry.passed_out = true;
            self.passed_out += 1;
            self.opened |= self.choice(ticket).is_some();
            self.open(ticket);
        }
        last
    }
}

/// How many classes a request has risen by waiting since then.
fn steps(since_ns: Instant, config: &Config, now: Instant) -> u64 {
    (now - since_ns)
        .ns()
        .checked_div(config.class_age_ns.ns())
        .unwrap_or(0)
}
