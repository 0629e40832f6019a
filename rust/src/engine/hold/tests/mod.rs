//! The hold against plain lists that are searched from end to end.

mod fair;
mod over;

use std::iter;

use proptest::prelude::*;

use super::*;
use crate::engine::config::ClassRule;
use crate::time::Span;

const LINES: u32 = 3;

fn config() -> Config {
    Config {
        hold_len_max: 12,
        hold_bytes_max: 60,
        hold_tenant_len_max: Some(6),
        hold_tenant_bytes_max: Some(40),
        hold_passes_max: 3,
        hold_age_max_ns: Some(Span::from_ns(90)),
        affinity_wait_ns: Span::from_ns(20),
        ..Config::sample()
    }
}

pub(super) fn partition(line: u32) -> Partition {
    Partition {
        model: ModelId(line),
        bound: (line == 2).then_some(ReplicaId(7)),
        regions: u64::MAX,
        stays: line == 2,
    }
}

pub(super) fn entrant(request: u64, deadline_ns: Instant) -> Entrant {
    Entrant {
        request: RequestId(request),
        partition: partition(0),
        class: Class::Normal,
        payer: Payer::Anonymous,
        pool: None,
        bytes: 1,
        age: request,
        submitted_ns: Instant::ZERO,
        deadline_ns,
        fresh: true,
    }
}

/// A held request as the oracle has it.
#[derive(Debug, Clone)]
struct Held {
    of: Entrant,
    ticket: Ticket,
    passes: u32,
    /// Replica, and until when.
    choice: Option<(ReplicaSlot, Instant)>,
    choice_end_ns: Option<Instant>,
}

#[derive(Debug, Clone)]
enum Step {
    Enter {
        line: u32,
        class: usize,
        payer: u64,
        bytes: u64,
        wait_ns: u64,
    },
    /// The n-th held request is taken out and comes back later with its age.
    Return {
        nth: usize,
        wait_ns: u64,
    },
    Leave {
        nth: usize,
    },
    Pass {
        nth: usize,
    },
    Choose {
        nth: usize,
        replica: ReplicaSlot,
    },
    Lose {
        replica: ReplicaSlot,
    },
    Expire {
        ns: u64,
    },
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    let nth = any::<usize>;
    let enter = (0..LINES, 0..CLASSES, 0..3_u64, 1..20_u64, 1..120_u64);
    let step = prop_oneof![
        6 => enter.prop_map(|(line, class, payer, bytes, wait_ns)| {
            Step::Enter { line, class, payer, bytes, wait_ns }
        }),
        2 => (nth(), 1..120_u64).prop_map(|(nth, wait_ns)| Step::Return { nth, wait_ns }),
        2 => nth().prop_map(|nth| Step::Leave { nth }),
        2 => nth().prop_map(|nth| Step::Pass { nth }),
        3 => (nth(), 0..3_u32).prop_map(|(nth, replica)| Step::Choose { nth, replica: replica.into() }),
        1 => (0..3_u32).prop_map(|replica| Step::Lose { replica: replica.into() }),
        2 => (1..25_u64).prop_map(|ns| Step::Expire { ns }),
    ];
    prop::collection::vec(step, 0..200)
}

struct Oracle {
    hold: Hold,
    config: Config,
    /// By age.
    held: Vec<Held>,
    away: Vec<Entrant>,
    now: Instant,
    ages: u64,
}

impl Oracle {
    fn new() -> Self {
        Self {
            hold: Hold::new(),
            config: config(),
            held: Vec::new(),
            away: Vec::new(),
            now: Instant::ZERO,
            ages: 0,
        }
    }

    fn pick(&self, nth: usize) -> Option<usize> {
        (!self.held.is_empty()).then(|| nth % self.held.len())
    }

    fn enter(&mut self, of: Entrant) {
        let fits = |held: &[&Held], len_max: usize, bytes_max: u64| {
            let bytes: u64 = held.iter().map(|held| held.of.bytes).sum();
            held.is_empty() || (held.len() < len_max && bytes + of.bytes <= bytes_max)
        };
        let all: Vec<_> = self.held.iter().collect();
        let own = |held: &&&Held| held.of.payer == of.payer;
        let own: Vec<_> = all.iter().filter(own).copied().collect();
        let config = &self.config;
        let expected = if !fits(&all, config.hold_len_max, config.hold_bytes_max) {
            Err(Full::Hold)
        } else if !fits(
            &own,
            config.hold_tenant_len_max.unwrap(),
            config.hold_tenant_bytes_max.unwrap(),
        ) {
            Err(Full::Payer)
        } else {
            Ok(())
        };
        let entered = self.hold.enter(of, &self.config);
        assert_eq!(entered.map(drop), expected);
        if let Ok(ticket) = entered {
            let at = self.held.partition_point(|held| held.of.age <= of.age);
            self.held.insert(
                at,
                Held {
                    of,
                    ticket,
                    passes: 0,
                    choice: None,
                    choice_end_ns: None,
                },
            );
        }
    }

    fn take(&mut self, nth: usize) -> Option<Held> {
        let held = self.held.remove(self.pick(nth)?);
        assert_eq!(self.hold.leave(held.ticket), Some(held.of.request));
        assert_eq!(self.hold.leave(held.ticket), None, "a ticket is valid once");
        Some(held)
    }

    fn is_due(&self, held: &Held) -> bool {
        held.passes >= self.config.hold_passes_max
            || self.now >= held.of.submitted_ns + self.config.due_after_ns()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Enter {
                line,
                class,
                payer,
                bytes,
                wait_ns,
            } => {
                self.ages += 1;
                self.enter(Entrant {
                    request: RequestId(self.ages),
                    partition: partition(line),
                    class: Class::ALL[class],
                    payer: match payer {
                        0 => Payer::Anonymous,
                        1 => Payer::Tenant(0),
                        other => Payer::Credential(other - 2),
                    },
                    pool: None,
                    bytes,
                    fresh: true,
                    age: self.ages,
                    submitted_ns: self.now,
                    deadline_ns: self.now + Span::from_ns(wait_ns),
                });
            }
            Step::Return { nth, wait_ns } => {
                let taken = self.take(nth).map(|held| held.of);
                self.away.extend(taken);
                if self.away.len() > 2 {
                    let of = self.away.remove(nth % 3);
                    let deadline_ns = self.now + Span::from_ns(wait_ns);
                    self.enter(Entrant { deadline_ns, ..of });
                }
            }
            Step::Leave { nth } => drop(self.take(nth)),
            Step::Pass { nth } => self.pass(nth),
            Step::Choose { nth, replica } => self.choose(nth, replica),
            Step::Lose { replica } => {
                self.hold.reopen(|other| other == replica);
                for held in &mut self.held {
                    held.choice = held.choice.filter(|(other, _)| *other != replica);
                }
            }
            Step::Expire { ns } => {
                self.now += Span::from_ns(ns);
                let mut gone: Vec<_> = iter::from_fn(|| self.hold.expire(self.now)).collect();
                let over = |held: &Held| held.of.deadline_ns <= self.now;
                let late = self.held.iter().filter(|held| over(held));
                let mut expected: Vec<_> = late.map(|held| held.of.request).collect();
                self.held.retain(|held| !over(held));
                for held in &mut self.held {
                    held.choice = held.choice.filter(|(_, until_ns)| self.now < *until_ns);
                }
                gone.sort_unstable();
                expected.sort_unstable();
                assert_eq!(gone, expected);
            }
        }
    }

    fn pass(&mut self, nth: usize) {
        let Some(nth) = self.pick(nth) else { return };
        // Whoever is due is not passed over: the router starts it first.
        if self.is_due(&self.held[nth]) {
            return;
        }
        let held = &mut self.held[nth];
        held.passes += 1;
        let last = held.passes == self.config.hold_passes_max;
        held.choice = held.choice.filter(|_| !last);
        assert_eq!(self.hold.pass_over(held.ticket, &self.config), last);
    }

    fn choose(&mut self, nth: usize, replica: ReplicaSlot) {
        let Some(nth) = self.pick(nth) else { return };
        let due = self.is_due(&self.held[nth]);
        let held = &mut self.held[nth];
        let overdue_ns = held.of.submitted_ns + self.config.due_after_ns();
        let longest_ns = (self.now + self.config.affinity_wait_ns)
            .min(overdue_ns)
            .min(held.of.deadline_ns);
        let end_ns = held.choice_end_ns.unwrap_or(longest_ns);
        let may = !due && self.now < end_ns;
        let chose = self
            .hold
            .choose(held.ticket, replica, &self.config, self.now);
        assert_eq!(chose, may);
        if may {
            held.choice_end_ns = Some(end_ns);
            held.choice = Some((replica, end_ns));
        }
    }

    fn compare(&self) {
        let Self { hold, held, .. } = self;
        assert_eq!(hold.check_invariants(&self.config), Ok(()));
        assert_eq!(hold.len(), held.len());
        let bytes: u64 = held.iter().map(|held| held.of.bytes).sum();
        assert_eq!(hold.bytes(), bytes);
        for line in 0..LINES {
            let line = partition(line);
            for class in Class::ALL {
                let queue = held
                    .iter()
                    .filter(|held| (held.of.partition, held.of.class) == (line, class));
                let expected: Vec<_> = queue.map(|held| (held.ticket, held.of.request)).collect();
                assert_eq!(hold.queue(line, class).collect::<Vec<_>>(), expected);
            }
            let of_line = held.iter().filter(|held| held.of.partition == line);
            let open = of_line.clone().filter(|held| held.choice.is_none());
            assert_eq!(hold.partition_len(line), of_line.clone().count());
            assert_eq!(hold.open_len(line), open.count());
            let oldest = of_line.map(|held| (held.ticket, held.of.request)).next();
            assert_eq!(hold.oldest(line), oldest);
        }
        for held in held {
            let choice = held.choice.map(|(replica, _)| replica);
            assert_eq!(hold.choice(held.ticket), choice);
            let due = hold.is_due(held.ticket, &self.config, self.now);
            assert_eq!(due, self.is_due(held));
        }
        let moments = held.iter().flat_map(|held| {
            let choice_ns = held.choice.map(|(_, until_ns)| until_ns);
            [Some(held.of.deadline_ns), choice_ns]
        });
        assert_eq!(hold.next_deadline_ns(), moments.flatten().min());
    }
}

proptest! {
    #[test]
    fn every_queue_bound_choice_and_deadline_is_as_in_plain_lists(history in histories()) {
        let mut oracle = Oracle::new();
        for step in &history {
            oracle.step(step);
            oracle.compare();
        }
        while oracle.take(0).is_some() {
            oracle.compare();
        }
        prop_assert_eq!(oracle.hold.payers_len(), 0);
        prop_assert_eq!(oracle.hold.next_deadline_ns(), None);
    }

    /// Classes that always wait, with requests of any sizes: after every start each has had its
    /// weight's part of the tokens, give or take one request.
    #[test]
    fn classes_that_wait_share_by_weight_in_tokens(
        weights in prop::array::uniform3(1..20_u32),
        sizes in prop::collection::vec(1..5_000_u32, 50..400),
    ) {
        let config = Config {
            class_weight_high: weights[0],
            class_weight_normal: weights[1],
            class_weight_low: weights[2],
            class_age_ns: Span::ZERO,
            ..Config::sample()
        };
        let mut hold = Hold::new();
        for class in Class::ALL {
            let id = class as u64;
            hold.enter(Entrant { class, ..entrant(id, Instant::from_ns(1_000)) }, &config).unwrap();
        }
        let (mut heads, mut had) = (Vec::new(), [0.0; CLASSES]);
        for &tokens in &sizes {
            hold.turns(&config, Instant::ZERO, |_| true, &mut heads);
            let class = heads[0].as_class;
            hold.charge(class, tokens, &config);
            had[class as usize] += f64::from(tokens) / f64::from(weights[class as usize]);
            for (one, weight) in had.iter().zip(weights) {
                for (other, other_weight) in had.iter().zip(weights) {
                    let largest = 5_000.0 / f64::from(weight.min(other_weight));
                    prop_assert!((one - other).abs() <= largest + 1.0, "{had:?} of {weights:?}");
                }
            }
        }
    }
}

/// A request of each class, the low one oldest.
fn one_of_each(config: &Config) -> Hold {
    let mut hold = Hold::new();
    for (age, class) in (1..).zip([Class::Low, Class::Normal, Class::High]) {
        let entrant = Entrant {
            class,
            ..entrant(age, Instant::from_ns(1_000))
        };
        hold.enter(entrant, config).unwrap();
    }
    hold
}

fn order(hold: &mut Hold, config: &Config, now: Instant) -> Vec<Class> {
    let mut heads = Vec::new();
    hold.turns(config, now, |_| true, &mut heads);
    heads.iter().map(|head| head.class).collect()
}

#[test]
fn strict_priority_serves_the_most_urgent_first_whatever_it_has_had() {
    let config = Config {
        class_rule: ClassRule::Strict,
        ..config()
    };
    let mut hold = one_of_each(&config);
    hold.charge(Class::High, 1_000_000, &config);
    let expected = [Class::High, Class::Normal, Class::Low];
    assert_eq!(order(&mut hold, &config, Instant::ZERO), expected);
}

#[test]
fn waiting_raises_a_request_to_the_next_class_and_there_the_oldest_is_first() {
    let config = Config {
        class_rule: ClassRule::Strict,
        class_age_ns: Span::from_ns(50),
        ..config()
    };
    let mut hold = one_of_each(&config);
    let young = Entrant {
        submitted_ns: Instant::from_ns(60),
        class: Class::High,
        partition: partition(1),
        ..entrant(9, Instant::from_ns(1_000))
    };
    hold.enter(young, &config).unwrap();
    let raised = [Class::Normal, Class::High, Class::High, Class::Low];
    assert_eq!(order(&mut hold, &config, Instant::from_ns(60)), raised);
    let all_high = [Class::Low, Class::Normal, Class::High, Class::High];
    assert_eq!(order(&mut hold, &config, Instant::from_ns(101)), all_high);
}

#[test]
fn a_class_that_was_away_neither_saves_up_nor_is_forgiven() {
    let config = Config {
        class_age_ns: Span::ZERO,
        ..config()
    };
    let mut hold = Hold::new();
    let high = |age| Entrant {
        class: Class::High,
        ..entrant(age, Instant::from_ns(1_000))
    };
    hold.enter(high(1), &config).unwrap();
    order(&mut hold, &config, Instant::ZERO);
    hold.charge(Class::High, 80_000, &config);
    // Nobody of the normal class waited meanwhile: it starts level.
    hold.enter(entrant(2, Instant::from_ns(1_000)), &config)
        .unwrap();
    order(&mut hold, &config, Instant::ZERO);
    assert_eq!(hold.ahead(), [0, 0, 0]);
    hold.charge(Class::Normal, 4_000, &config);
    assert_eq!(order(&mut hold, &config, Instant::ZERO)[0], Class::High);
    assert_eq!(hold.ahead()[Class::Normal as usize], 1_000);
}

#[test]
fn deadlines_expire_in_order_and_not_before_their_time() {
    let (mut hold, config) = (Hold::new(), config());
    for (request, deadline_ns) in [(1, 30), (2, 10), (3, 20)] {
        hold.enter(entrant(request, Instant::from_ns(deadline_ns)), &config)
            .unwrap();
    }
    assert_eq!(hold.expire(Instant::from_ns(9)), None);
    assert_eq!(hold.expire(Instant::from_ns(20)), Some(RequestId(2)));
    assert_eq!(hold.expire(Instant::from_ns(20)), Some(RequestId(3)));
    assert_eq!(hold.expire(Instant::from_ns(20)), None);
    let left: Vec<_> = hold.queue(partition(0), Class::Normal).collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn a_hold_of_no_length_takes_nothing() {
    let config = Config {
        hold_len_max: 0,
        ..config()
    };
    let mut hold = Hold::new();
    assert_eq!(
        hold.enter(entrant(1, Instant::from_ns(5)), &config),
        Err(Full::Hold)
    );
    assert!(hold.is_empty());
}

#[test]
fn timers_of_those_who_left_are_bounded() {
    let (mut hold, config) = (Hold::new(), config());
    for request in 0..10_000 {
        let ticket = hold
            .enter(entrant(request, Instant::from_ns(1_000_000)), &config)
            .unwrap();
        let first = hold
            .enter(entrant(request, Instant::from_ns(1)), &config)
            .unwrap();
        hold.leave(ticket);
        hold.leave(first);
        assert!(hold.timers.all().count() <= 200);
    }
}
