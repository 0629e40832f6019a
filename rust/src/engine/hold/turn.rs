//! Which queue is served next.

use super::super::plant::Plant;
use super::{CLASSES, Class, Config, Entrant, Hold, Instant, Partition, Ticket};

/// A queue, as those who choose among queues see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The partition that it is in.
    pub partition: Partition,
    /// Its requests' class.
    pub class: Class,
    /// The class as which it competes.
    pub as_class: Class,
    /// Age of its oldest request.
    pub age: u64,
    /// Smaller is served sooner; see [`Hold::turns`].
    pub rank: u64,
}

impl Hold {
    /// Every partition with the age of its oldest request, in no particular order.
    pub fn heads(&self) -> impl Iterator<Item = (Partition, u64)> {
        self.partitions.iter().filter_map(|(partition, queues)| {
            let ages = queues.by_class.iter().flatten();
            let oldest = ages.map(|ends| self.entries[ends.oldest].of.age).min()?;
            Some((*partition, oldest))
        })
    }

    /// Fills `out` with the queues of the partitions that `serves` picks, those first whose turn it is.
    pub fn turns(
        &mut self,
        config: &Config,
        now: Instant,
        serves: impl Fn(Partition) -> bool,
        out: &mut Vec<Head>,
    ) {
        out.clear();
        let mut waiting = [false; CLASSES];
        for (partition, queues) in &self.partitions {
            let wanted = serves(*partition);
            for class in Class::ALL {
                let Some(ends) = queues.by_class[class as usize] else {
                    continue;
                };
                let oldest = &self.entries[ends.oldest].of;
                let as_class = class.raised(steps(oldest, config, now));
                waiting[as_class as usize] = true;
                if wanted {
                    out.push(Head {
                        partition: *partition,
                        class,
                        as_class,
                        age: oldest.age,
                        rank: 0,
                    });
                }
            }
        }
        self.served.settle(waiting);
        for head in out.iter_mut() {
            head.rank = self.served.rank(head.as_class, config);
        }
        out.sort_unstable_by_key(|head| (head.rank, head.age));
    }

    /// A request of a queue that competes as `class` was started; it needs so many tokens.
    pub fn charge(&mut self, class: Class, tokens: u32, config: &Config) {
        self.served.charge(class, tokens, config);
    }

    /// The next room that a request can use is its own: it has been passed over as often as
    /// allowed, or is too old.
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

/// How many classes a request has risen by waiting.
fn steps(of: &Entrant, config: &Config, now: Instant) -> u64 {
    (now - of.submitted_ns)
        .ns()
        .checked_div(config.class_age_ns.ns())
        .unwrap_or(0)
}
