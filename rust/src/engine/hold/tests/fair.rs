//! Tenants that share the room, against what each was really served.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::shed::Shed;
use super::super::*;
use super::{entrant, partition};
use crate::engine::ask::Usage;
use crate::engine::config::TenantRule;
use crate::engine::plant::Plant;
use crate::time::Span;

pub(super) const COUNT: usize = 5;
const TENANTS: u64 = COUNT as u64;
const QUANTUM: u32 = 500;
const LARGEST: u32 = 3_000;

pub(super) fn config() -> Config {
    Config {
        tenant_rule: TenantRule::Fair,
        tenant_quantum_tokens: QUANTUM,
        hold_len_max: 1_000,
        hold_tenant_len_max: Some(1_000),
        class_age_ns: Span::ZERO,
        ..Config::sample()
    }
}

pub(super) fn payer(tenant: u64) -> Payer {
    Payer::Tenant(tenant)
}

pub(super) fn purse(tenant: u64) -> Purse {
    Purse {
        pool: None,
        class: Class::Normal,
        payer: payer(tenant),
    }
}

fn uncached(tokens: u32) -> Tokens {
    Tokens {
        uncached: tokens,
        ..Tokens::default()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Enter {
        tenant: u64,
        tokens: u32,
    },
    /// The n-th of the tenants that are due is served, wherever locality would have chosen.
    Start {
        nth: usize,
        real: u32,
    },
    /// A request that found room at once.
    Direct {
        tenant: u64,
        tokens: u32,
    },
    End {
        nth: usize,
        fails: bool,
    },
    Leave {
        nth: usize,
    },
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let tenant = || 0..TENANTS;
    let step = prop_oneof![
        5 => (tenant(), 1..LARGEST).prop_map(|(tenant, tokens)| Step::Enter { tenant, tokens }),
        // Who floods.
        4 => (1..LARGEST).prop_map(|tokens| Step::Enter { tenant: 0, tokens }),
        8 => (any::<usize>(), 1..LARGEST).prop_map(|(nth, real)| Step::Start { nth, real }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(nth, fails)| Step::End { nth, fails }),
        1 => any::<usize>().prop_map(|nth| Step::Leave { nth }),
    ];
    prop::collection::vec(step, 0..400)
}

struct Running {
    tenant: u64,
    charge: Option<Bill>,
    predicted: u32,
    real: u32,
}

/// The hold, and what was really served.
pub(super) struct Drive {
    pub(super) hold: Hold,
    pub(super) config: Config,
    weights: [u32; COUNT],
    waiting: Vec<(u64, Ticket, u32)>,
    running: Vec<Running>,
    served: BTreeMap<u64, f64>,
    /// By pair: least and most of the difference since both wait.
    ranges: BTreeMap<(u64, u64), (f64, f64)>,
    gap: f64,
    error: f64,
    ids: u64,
}

impl Drive {
    pub(super) fn new(config: Config, weights: [u32; COUNT]) -> Self {
        let mut hold = Hold::new();
        let terms = (0..).zip(weights);
        hold.set_terms(terms.map(|(tenant, weight)| (payer(tenant), "".into(), weight)));
        Self {
            hold,
            config,
            weights,
            waiting: Vec::new(),
            running: Vec::new(),
            served: (0..TENANTS).map(|tenant| (tenant, 0.0)).collect(),
            ranges: BTreeMap::new(),
            gap: 0.0,
            error: 0.0,
            ids: 0,
        }
    }

    fn share(&self, tokens: f64, tenant: u64) -> f64 {
        tokens / f64::from(self.weight(tenant))
    }

    fn weight(&self, tenant: u64) -> u32 {
        self.weights[usize::try_from(tenant).unwrap()]
    }

    pub(super) fn enter(&mut self, tenant: u64, tokens: u32) {
        self.ids += 1;
        let of = Entrant {
            payer: payer(tenant),
            ..entrant(self.ids, Instant::from_ns(1_000_000))
        };
        let ticket = self.hold.enter(of, &self.config).unwrap();
        self.waiting.push((tenant, ticket, tokens));
    }

    /// Of those who may have any room now, the n-th starts; its tenant. What replicas spare they spare every
    /// third time.
    fn start(&mut self, nth: usize, real: u32) -> Option<u64> {
        let mut heads = Vec::new();
        let all = |_| true;
        (self.hold).turns(&self.config, Instant::ZERO, all, &mut heads);
        let head = *heads.first()?;
        let queue = (head.partition, head.class);
        let (mut due, mut deferred) = (Vec::new(), Vec::new());
        let mut fronts = Vec::new();
        while fronts.is_empty() && self.hold.next_due(queue, (&self.config, 64), &mut due) {
            let now = (&self.config, Instant::ZERO);
            let turns = self.hold.defer(head, &due, &mut deferred, now);
            let may = |turn: &Turn| turn.room == Room::Any || nth.is_multiple_of(3);
            let turn = turns
                .into_iter()
                .find(|turn| !turn.fronts.is_empty() && may(turn));
            fronts = turn.map_or_else(Vec::new, |turn| turn.fronts);
        }
        let front = fronts.get(nth % fronts.len().max(1))?;
        let place = self.waiting.iter().position(|of| of.1 == front.ticket);
        let (tenant, ticket, predicted) = self.waiting.remove(place.unwrap());
        self.hold.serve(ticket, Instant::ZERO);
        self.begin(tenant, predicted, real);
        Some(tenant)
    }

    pub(super) fn begin(&mut self, tenant: u64, predicted: u32, real: u32) {
        let (purse, tokens) = (purse(tenant), uncached(predicted));
        let charge = (self.hold).begin(purse, tokens, &self.config, Instant::ZERO);
        *self.served.get_mut(&tenant).unwrap() += self.share(f64::from(real), tenant);
        self.running.push(Running {
            tenant,
            charge,
            predicted,
            real,
        });
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Enter { tenant, tokens } => self.enter(tenant, tokens),
            Step::Direct { tenant, tokens } => self.begin(tenant, tokens, tokens),
            Step::Start { nth, real } => drop(self.start(nth, real)),
            Step::End { nth, fails } if !self.running.is_empty() => {
                let ended = self.running.swap_remove(nth % self.running.len());
                let usage = Usage {
                    prompt_tokens: Some(ended.real),
                    cached_tokens: Some(0),
                    completion_tokens: Some(0),
                };
                if fails {
                    // It comes to nothing, and is tried again: what it was served it has not been.
                    *self.served.get_mut(&ended.tenant).unwrap() -=
                        self.share(f64::from(ended.real), ended.tenant);
                    self.hold.settle(ended.charge, End::Failed);
                } else {
                    self.hold.settle(ended.charge, End::Answered(usage));
                }
            }
            Step::Leave { nth } if !self.waiting.is_empty() => {
                let (_, ticket, _) = self.waiting.swap_remove(nth % self.waiting.len());
                self.hold.leave(ticket);
            }
            Step::End { .. } | Step::Leave { .. } => {}
        }
        assert_eq!(self.hold.check_invariants(&self.config), Ok(()));
        self.compare();
    }

    fn compare(&mut self) {
        for tenant in 0..TENANTS {
            let own = self.running.iter().filter(|of| of.tenant == tenant);
            let off = own.map(|of| f64::from(of.predicted) - f64::from(of.real));
            let off = self.share(off.sum::<f64>(), tenant);
            self.error = self.error.max(off.abs());
        }
        let waits = |tenant| self.waiting.iter().any(|of| of.0 == tenant);
        for one in 0..TENANTS {
            for other in one + 1..TENANTS {
                if !(waits(one) && waits(other)) {
                    self.ranges.remove(&(one, other));
                    continue;
                }
                let between = self.served[&one] - self.served[&other];
                let range = self
                    .ranges
                    .entry((one, other))
                    .or_insert((between, between));
                *range = (range.0.min(between), range.1.max(between));
                self.gap = self.gap.max(range.1 - range.0);
            }
        }
    }

    /// Twice the quantum, the largest request, and what is uncorrected of both.
    fn bound(&self) -> f64 {
        let lightest = self.weights.iter().min().copied().unwrap_or(1);
        let largest = f64::from(LARGEST) / f64::from(lightest);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let ahead = ahead_max_tokens(&self.config) as f64;
        2.0 * (ahead + largest + 2.0 * self.error) + 1.0
    }
}

proptest! {
    /// Whatever comes, whatever locality chooses among those who are due, and however wrong predictions are.
    #[test]
    fn tenants_that_wait_are_served_alike_within_the_stated_bound(
        weights in prop::array::uniform5(1..9_u32),
        tenant_headroom_ratio in prop::sample::select(vec![0.0, 0.3]),
        history in histories(),
    ) {
        let config = Config { tenant_headroom_ratio, ..config() };
        let mut drive = Drive::new(config, weights);
        for step in history.iter().filter(|step| !matches!(step, Step::End { fails: true, .. })) {
            drive.step(step);
            prop_assert!(drive.gap <= drive.bound(), "{} of {}", drive.gap, drive.bound());
        }
    }

    /// Accounts agree with requests, and are forgotten with them, in failures too.
    #[test]
    fn accounts_live_as_long_as_their_requests(
        weights in prop::array::uniform5(1..9_u32),
        history in histories(),
    ) {
        let mut drive = Drive::new(config(), weights);
        for step in &history {
            drive.step(step);
        }
        while !drive.running.is_empty() {
            drive.step(&Step::End { nth: 0, fails: false });
        }
        while !drive.waiting.is_empty() {
            drive.step(&Step::Leave { nth: 0 });
        }
        prop_assert_eq!(drive.hold.accounts.iter().count(), 0);
    }
}

/// A flood against one tenant that waits as well.
fn flooded(config: Config) -> Drive {
    let mut drive = Drive::new(config, [1; COUNT]);
    for _ in 0..50 {
        drive.step(&Step::Enter {
            tenant: 0,
            tokens: 1_000,
        });
    }
    for _ in 0..20 {
        drive.step(&Step::Enter {
            tenant: 1,
            tokens: 1_000,
        });
    }
    for _ in 0..30 {
        drive.step(&Step::Start {
            nth: 0,
            real: 1_000,
        });
    }
    drive
}

#[test]
fn a_flood_gets_no_more_than_another_that_waits() {
    let drive = flooded(config());
    let (flood, other) = (drive.served[&0], drive.served[&1]);
    assert!((flood - other).abs() <= 1_500.0, "{flood} and {other}");
}

#[test]
fn a_flood_that_is_not_charged_takes_everything() {
    let drive = flooded(Config {
        plant: Some(Plant::TenantUncharged),
        ..config()
    });
    assert!(
        drive.gap > drive.bound(),
        "{} of {}",
        drive.gap,
        drive.bound()
    );
}

#[test]
fn a_tenant_that_comes_back_starts_level_and_what_found_room_at_once_counts() {
    let mut drive = Drive::new(config(), [1; COUNT]);
    for _ in 0..40 {
        drive.step(&Step::Enter {
            tenant: 0,
            tokens: 1_000,
        });
    }
    for _ in 0..20 {
        drive.step(&Step::Start {
            nth: 0,
            real: 1_000,
        });
    }
    // It was away while 20,000 tokens were served, and asks for no more than its part of what comes.
    drive.step(&Step::Direct {
        tenant: 1,
        tokens: 2_000,
    });
    for _ in 0..20 {
        drive.step(&Step::Enter {
            tenant: 1,
            tokens: 1_000,
        });
    }
    let before = drive.served[&1];
    for _ in 0..20 {
        drive.step(&Step::Start {
            nth: 0,
            real: 1_000,
        });
    }
    let since = drive.served[&1] - before;
    assert!((8_000.0..=11_000.0).contains(&since), "{since}");
}

#[test]
fn a_client_that_leaves_before_the_first_byte_has_had_what_was_being_computed() {
    let tokens = Tokens {
        uncached: 300,
        cached: 0,
        output: 500,
    };
    for (end, had) in [
        (End::Failed, 0),
        (End::Unanswered { answer: false }, 300),
        (End::Unanswered { answer: true }, 300 + 2 * 500),
    ] {
        let mut drive = Drive::new(config(), [1; COUNT]);
        drive.begin(0, 0, 0); // keeps the account
        let now = Instant::ZERO;
        let bill = drive.hold.begin(purse(0), tokens, &drive.config, now);
        drive.hold.settle(bill, end);
        let account = drive.hold.accounts.find(&purse(0)).unwrap();
        assert_eq!(accounts::tokens(drive.hold.accounts.had(account)), had);
    }
}

#[test]
fn weights_are_parts_of_what_is_served() {
    let mut drive = Drive::new(config(), [3, 1, 1, 1, 1]);
    for tenant in [0, 1] {
        for _ in 0..100 {
            drive.step(&Step::Enter {
                tenant,
                tokens: 100,
            });
        }
    }
    let served: Vec<_> = (0..100).filter_map(|_| drive.start(0, 100)).collect();
    let heavy = served.iter().filter(|tenant| **tenant == 0).count();
    assert!((70..=80).contains(&heavy), "{heavy}");
}

#[test]
fn only_who_has_its_part_of_a_queue_is_shed() {
    let config = Config {
        shed_ratio_max: 1.0,
        ..config()
    };
    let mut drive = Drive::new(config, [1; COUNT]);
    for _ in 0..10 {
        drive.enter(0, 1);
    }
    drive.enter(1, 1);
    let line = drive.hold.partitions.get_mut(&partition(0)).unwrap();
    line.shed = Shed::all();
    let ask = |drive: &mut Drive, tenant| {
        let of = Entrant {
            payer: payer(tenant),
            ..entrant(1_000, Instant::from_ns(1_000_000))
        };
        drive.hold.enter(of, &drive.config).map(drop)
    };
    assert_eq!(ask(&mut drive, 0), Err(Full::Shed));
    assert_eq!(ask(&mut drive, 1), Ok(()));
    assert_eq!(ask(&mut drive, 2), Ok(()));
}

#[test]
fn a_backlog_is_owed_nothing_but_a_tenant_that_gets_nothing_is() {
    let config = Config {
        hold_age_max_ns: Some(Span::from_ns(100)),
        ..config()
    };
    let mut drive = Drive::new(config, [1; COUNT]);
    drive.enter(0, 100);
    drive.enter(0, 100);
    let late = Instant::from_ns(150);
    let young = Entrant {
        payer: payer(1),
        submitted_ns: late,
        ..entrant(9, Instant::from_ns(1_000_000))
    };
    drive.hold.enter(young, &drive.config).unwrap();
    let owed = |drive: &mut Drive, now| {
        let mut heads = Vec::new();
        drive.hold.turns(&drive.config, now, |_| true, &mut heads);
        drive.hold.owed(&heads[0], &drive.config, now).count()
    };
    assert_eq!(owed(&mut drive, late), 2, "served nothing for too long");
    let ticket = drive.waiting.remove(0).1;
    drive.hold.serve(ticket, late);
    drive
        .hold
        .begin(purse(0), uncached(100), &drive.config, late);
    assert_eq!(owed(&mut drive, late), 0, "its backlog is as old as before");
}
