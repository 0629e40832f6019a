//! What is known of connections between balancers of one region, and what is on its way.

use std::collections::VecDeque;

use slab::Slab;

use crate::id::Nanos;
use crate::sim::fault::Fault;
use crate::sim::result::Shares;
use crate::sim::scenario::{nanos, seconds};
use crate::sim::workload::small;

/// A connection that has brought nothing for so long is given up.
pub(in crate::sim) const SILENT_NS: Nanos = 2_500_000_000;
/// Time between two looks at who is heard.
pub(in crate::sim) const JUDGE_NS: Nanos = 250_000_000;
/// Round trips and offsets that are kept.
const MEASURES: usize = 15;

/// What a message says.
#[derive(Debug)]
pub(super) enum Said {
    /// The connection is open; its number.
    Open,
    /// It is closed.
    Close,
    /// The teller's clock.
    Ping(Nanos),
    /// The answer to the ping sent at this time of virtual time.
    Pong(Nanos),
    Summary(Vec<u8>),
    Digest(Vec<u8>),
    Tenants(Vec<u8>),
    Cached(Vec<u8>),
    /// What is told of shared replicas, and whether the teller knew what the other lists: then it is
    /// all that it has in flight there.
    Share(Vec<u8>, bool),
}

/// A message under way, of one connection.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) connection: u64,
    /// Of the teller.
    pub(super) process: u64,
    pub(super) sent_ns: Nanos,
    pub(super) said: Said,
}

/// What one balancer knows of another of its region.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// The number of the connection that is open as far as it knows.
    pub(super) connection: Option<u64>,
    pub(super) opened_ns: Option<Nanos>,
    pub(super) heard_ns: Nanos,
    pub(super) lost_ns: Nanos,
    pub(super) pinged_ns: Option<Nanos>,
    /// When its last message arrives, or would.
    pub(super) arrives_ns: Nanos,
    /// Own clock less the peer's, by the last pings; the next one is the connection's first.
    pub(super) offsets_ns: VecDeque<i64>,
    pub(super) clock_anew: bool,
    pub(super) round_trips_ns: VecDeque<Nanos>,
    pub(super) dead: bool,
    /// The replicas that it lists, as it has told in this connection.
    pub(super) listing: Vec<Option<u32>>,
    /// By replica: the peer has said that it holds something for it.
    pub(super) wants: Vec<bool>,
    /// When the newest message was sent that says all that the peer has in flight.
    pub(super) told_ns: Option<Nanos>,
}

impl View {
    pub(in crate::sim) fn ahead_ns(&self) -> Option<i64> {
        let least = self.offsets_ns.iter().min()?;
        let mut trips: Vec<_> = self.round_trips_ns.iter().copied().collect();
        trips.sort_unstable();
        let median = match trips.len() {
            0 => 0,
            len if len % 2 == 1 => trips[len / 2],
            len => u64::midpoint(trips[len / 2 - 1], trips[len / 2]),
        };
        Some(least - i64::try_from(median / 2).unwrap_or(0))
    }

    pub(in crate::sim) fn open(&mut self, connection: u64, now_ns: Nanos, replicas: usize) {
        *self = Self {
            connection: Some(connection),
            opened_ns: Some(now_ns),
            heard_ns: now_ns,
            arrives_ns: self.arrives_ns,
            offsets_ns: std::mem::take(&mut self.offsets_ns),
            round_trips_ns: std::mem::take(&mut self.round_trips_ns),
            clock_anew: true,
            wants: vec![false; replicas],
            ..Self::default()
        };
    }

    /// A ping tells the peer's clock. The first of a connection may be another machine's.
    pub(in crate::sim) fn hear_clock(&mut self, ours_ns: Nanos, theirs_ns: Nanos) {
        if std::mem::take(&mut self.clock_anew) {
            self.offsets_ns.clear();
        }
        let ahead_ns = ours_ns.wrapping_sub(theirs_ns).cast_signed();
        keep(&mut self.offsets_ns, ahead_ns);
    }

    pub(in crate::sim) fn close(&mut self, now_ns: Nanos) {
        self.connection = None;
        self.opened_ns = None;
        self.lost_ns = now_ns;
        self.told_ns = None;
        self.wants.fill(false);
    }
}

/// A link between two balancers of one region that is cut for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) from_ns: Nanos,
    pub(super) until_ns: Nanos,
}

/// What goes between balancers of one region.
#[derive(Debug, Default)]
pub(in crate::sim) struct Sharing {
    /// By balancer: the others of its region; empty where nobody shares.
    pub(in crate::sim) peers: Vec<Vec<u32>>,
    /// By balancer, then peer.
    pub(super) views: Vec<Vec<View>>,
    /// By pair, the smaller number first: when it may be dialled again.
    pub(super) dials_ns: Vec<Vec<Nanos>>,
    pub(super) connections: u64,
    pub(super) letters: Slab<Letter>,
    pub(super) parts: Vec<Part>,
    pub(super) counts: Shares,
    pub(super) bytes_by_link: Vec<Vec<u64>>,
}

impl Sharing {
    /// Balancers by region, and the faults of the script.
    pub(in crate::sim) fn new(regions: &[u32], faults: &[Fault]) -> Self {
        let len = regions.len();
        let others = |own: usize| {
            let all = 0..len;
            let beside = all.filter(move |other| *other != own && regions[*other] == regions[own]);
            beside.map(small).collect::<Vec<_>>()
        };
        let peers: Vec<_> = (0..len).map(others).collect();
        if peers.iter().all(Vec::is_empty) {
            return Self::default();
        }
        Self {
            peers,
            views: vec![vec![View::default(); len]; len],
            dials_ns: vec![vec![0; len]; len],
            bytes_by_link: vec![vec![0; len]; len],
            parts: faults.iter().flat_map(parts).collect(),
            ..Self::default()
        }
    }

    pub(super) fn view(&mut self, at: u32, of: u32) -> &mut View {
        &mut self.views[at as usize][of as usize]
    }

    /// `at` hears `of`, as far as it knows.
    pub(in crate::sim) fn hears(&self, at: u32, of: u32) -> bool {
        self.views[at as usize][of as usize].connection.is_some()
    }

    /// `at` knows all that `of` had in flight at this time.
    pub(in crate::sim) fn knows_of(&self, at: u32, of: u32, at_ns: Nanos) -> bool {
        let view = &self.views[at as usize][of as usize];
        view.connection.is_some() && view.told_ns.is_some_and(|told_ns| told_ns > at_ns)
    }

    /// When `of` said last what `at` knows of it.
    pub(in crate::sim) fn told_ns(&self, at: u32, of: u32) -> Option<Nanos> {
        self.views[at as usize][of as usize].told_ns
    }

    /// Since when two have heard each other.
    pub(in crate::sim) fn known_ns(&self, at: u32, of: u32) -> Option<Nanos> {
        let one = self.views[at as usize][of as usize].opened_ns?;
        let other = self.views[of as usize][at as usize].opened_ns?;
        Some(one.max(other))
    }

    /// `at` has been told that `of` holds something for this replica.
    pub(in crate::sim) fn knows_wish(&self, at: u32, of: u32, replica: u32) -> bool {
        let wants = &self.views[at as usize][of as usize].wants;
        wants.get(replica as usize).copied().unwrap_or(false)
    }

    pub(in crate::sim) fn part_until(&self, from: u32, to: u32, now_ns: Nanos) -> Option<Nanos> {
        let parts = self.parts.iter();
        let now = parts.filter(|part| {
            (part.from, part.to) == (from, to) && part.from_ns <= now_ns && now_ns < part.until_ns
        });
        now.map(|part| part.until_ns).max()
    }

    /// The form of the result.
    pub(in crate::sim) fn report(&self, duration_ns: Nanos) -> Option<Shares> {
        let most = self.bytes_by_link.iter().flatten().max().copied();
        let most = f64::from(u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX));
        (!self.peers.is_empty()).then(|| Shares {
            bytes_per_s_max: most / seconds(duration_ns),
            ..self.counts.clone()
        })
    }
}

/// What a fault cuts, one way each.
fn parts(fault: &Fault) -> Vec<Part> {
    let Fault::Part {
        balancers: (one, other),
        one_way,
        at_s,
        until_s,
    } = fault
    else {
        return Vec::new();
    };
    let cut = |from: &u32, to: &u32| Part {
        from: *from,
        to: *to,
        from_ns: nanos(*at_s),
        until_ns: until_s.map_or(Nanos::MAX, nanos),
    };
    let mut parts = vec![cut(one, other)];
    parts.extend((!one_way).then(|| cut(other, one)));
    parts
}

/// Adds one measure to the last ones.
pub(super) fn keep<T>(measures: &mut VecDeque<T>, one: T) {
    if measures.len() == MEASURES {
        measures.pop_front();
    }
    measures.push_back(one);
}
