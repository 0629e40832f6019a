//! What tenants were served while they waited: the service gap between any two of them.
//!
//! Two tenants of a class are compared over every interval in which requests of both wait at one balancer, and
//! neither lets room pass. What each was served is what its started requests came to in the end, in tokens over
//! its weight. It is kept beside the engine, which knows only what it predicted.

use hashbrown::HashMap;

use super::result::Fairness;
use crate::engine::hold::Tokens;
use crate::id::RequestId;
use crate::prompt::class::{CLASSES, Class};

/// Tenants that are compared; of more nothing is kept.
pub const TENANTS_MAX: usize = 64;
/// Tenths of a token in one.
const TENTHS: f64 = 10.0;

/// Something that changes who waits, or what was served.
#[derive(Debug, Clone, Copy)]
enum Entry {
    /// A tenant begins or ceases to wait for what comes.
    Waits(u32, bool),
    /// A request is started, or ends.
    Starts(u32),
    Ends(u32),
}

#[derive(Debug, Clone, Copy)]
struct Item {
    tenant: u32,
    /// In tenths of a token, as the engine charged it, and as it was.
    predicted: u64,
    real: u64,
}

/// What happened at one balancer to requests of one class.
#[derive(Debug, Clone, Default)]
struct Book {
    entries: Vec<Entry>,
    waits: Vec<bool>,
    items: Vec<Item>,
}

/// What happened at one balancer.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    books: [Book; CLASSES],
    open: HashMap<RequestId, (usize, u32)>,
}

impl Ledger {
    /// A tenant waits for what comes, or does not.
    pub fn waits(&mut self, class: Class, tenant: u32, waits: bool) {
        let book = &mut self.books[class as usize];
        let place = tenant as usize;
        if book.waits.len() <= place {
            book.waits.resize(place + 1, false);
        }
        if book.waits[place] != waits {
            book.waits[place] = waits;
            book.entries.push(Entry::Waits(tenant, waits));
        }
    }

    /// A request is started, and its tenant charged so much.
    pub fn starts(&mut self, id: RequestId, class: Class, tenant: u32, predicted: u64) {
        let book = &mut self.books[class as usize];
        let item = u32::try_from(book.items.len()).unwrap_or(u32::MAX);
        book.items.push(Item {
            tenant,
            predicted,
            real: predicted,
        });
        book.entries.push(Entry::Starts(item));
        self.open.insert(id, (class as usize, item));
    }

    /// It has ended; `real`: what it took, where that is known.
    pub fn ends(&mut self, id: RequestId, real: Option<Tokens>) {
        let Some((class, item)) = self.open.remove(&id) else {
            return;
        };
        let book = &mut self.books[class];
        if let Some(real) = real {
            book.items[item as usize].real = real.cost();
        }
        book.entries.push(Entry::Ends(item));
    }

    /// The figures of all classes together.
    pub fn fairness(&self, weights: &[u32]) -> Fairness {
        let mut found = Fairness::default();
        for book in &self.books {
            book.read(weights, &mut found);
        }
        found
    }
}

impl Book {
    fn read(&self, weights: &[u32], found: &mut Fairness) {
        let len = weights.len();
        let share =
            |tenths: f64, tenant: u32| tenths / TENTHS / f64::from(weights[tenant as usize]);
        let (mut served, mut error) = (vec![0.0; len], vec![0.0; len]);
        let mut waits = vec![false; len];
        // By pair: least and most of the difference since both wait.
        let mut ranges: HashMap<(usize, usize), (f64, f64)> = HashMap::new();
        for entry in &self.entries {
            let tenant = match *entry {
                Entry::Waits(tenant, _) => tenant,
                Entry::Starts(item) | Entry::Ends(item) => self.items[item as usize].tenant,
            };
            let own = tenant as usize;
            match *entry {
                Entry::Waits(_, begins) => waits[own] = begins,
                Entry::Starts(item) => {
                    let of = self.items[item as usize];
                    let real = share(as_f64(of.real), tenant);
                    served[own] += real;
                    error[own] += share(as_f64(of.predicted), tenant) - real;
                    found.request_tokens = found
                        .request_tokens
                        .max(real)
                        .max(share(as_f64(of.predicted), tenant));
                }
                Entry::Ends(item) => {
                    let of = self.items[item as usize];
                    error[own] -= share(as_f64(of.predicted) - as_f64(of.real), tenant);
                }
            }
            found.error_tokens = found.error_tokens.max(f64::abs(error[own]));
            for other in (0..len).filter(|other| *other != own) {
                let pair = (own.min(other), own.max(other));
                if !(waits[own] && waits[other]) {
                    ranges.remove(&pair);
                    continue;
                }
                let between = served[pair.0] - served[pair.1];
                let range = ranges.entry(pair).or_insert((between, between));
                *range = (range.0.min(between), range.1.max(between));
                found.gap_tokens = found.gap_tokens.max(range.1 - range.0);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn as_f64(tenths: u64) -> f64 {
    tenths as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(uncached: u32) -> Tokens {
        Tokens {
            uncached,
            ..Tokens::default()
        }
    }

    #[test]
    fn a_gap_counts_only_while_both_wait_and_by_what_requests_came_to() {
        let mut ledger = Ledger::default();
        let class = Class::Normal;
        let start = |ledger: &mut Ledger, id: u64, tenant, real| {
            ledger.starts(RequestId(id), class, tenant, 100);
            ledger.ends(RequestId(id), Some(tokens(real)));
        };
        start(&mut ledger, 1, 0, 5_000);
        ledger.waits(class, 0, true);
        start(&mut ledger, 2, 0, 7_000);
        ledger.waits(class, 1, true);
        start(&mut ledger, 3, 0, 30);
        start(&mut ledger, 4, 1, 50);
        start(&mut ledger, 5, 1, 40);
        ledger.waits(class, 1, false);
        start(&mut ledger, 6, 0, 9_000);
        let found = ledger.fairness(&[1, 2]);
        // 30 ahead at first, then 45 behind that.
        assert!((found.gap_tokens - 45.0).abs() < 1e-9, "{found:?}");
        assert!((found.request_tokens - 9_000.0).abs() < 1e-9, "{found:?}");
        assert!((found.error_tokens - 8_990.0).abs() < 1e-9, "{found:?}");
    }
}
