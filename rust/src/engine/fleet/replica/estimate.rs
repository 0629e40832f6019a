//! What a snapshot says about the requests in flight when its probe was sent.

use super::knee::{Knee, Reading};
use super::{Place, Replica};
use crate::engine::fleet::snapshot::Snapshot;
use crate::time::{Instant, Span};

/// A push that no gauge has shown for so long is lost, or not the kind of request an engine
/// counts: it must not close the gate for ever.
const UNSEEN_NS: Span = Span::from_ns(30_000_000_000);
/// Gauges are written once per step; none is longer than this once its requests stream.
const GAUGE_AGE_NS: Span = Span::from_ns(1_000_000_000);

/// The gauges of one readable snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    running: u32,
    waiting: u32,
    /// All in the engine, those deferred included.
    total: u32,
}

impl Gauges {
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        let (running, waiting) = (snapshot.running?, snapshot.waiting?);
        let deferred = snapshot.deferred.unwrap_or(0);
        let total = running.saturating_add(waiting).saturating_add(deferred);
        Some(Self {
            running,
            waiting,
            total,
        })
    }
}

/// Own requests by the time of their push and first byte, relative to a probe.
#[derive(Debug, Clone, Copy, Default)]
struct Census {
    /// A: in flight when it was sent and now.
    own: u32,
    /// S: of those, with a first byte before it was sent.
    streaming: u32,
    /// Of those, so lately that the gauges may not show them.
    started_lately: u32,
    /// Pushed since.
    fresh: u32,
}

/// Where the own requests of [`Census::own`] are by the gauges.
#[derive(Debug, Clone, Copy)]
struct PlaceCounts {
    /// With a first byte: in R.
    streaming: u32,
    /// N, those without one, and of these the ones in the gauges, in R, and in W.
    quiet: u32,
    seen: u32,
    in_batch: u32,
    waiting: u32,
}

impl Replica {
    /// This process stood still for so long: nobody could have asked in that time.
    pub fn stood_still(&mut self, for_ns: Span) {
        if let Some(last) = &mut self.last {
            last.fresh_ns += for_ns;
        }
    }

    /// Marks what can no longer come: requests given to an engine that has restarted since, and
    /// those that no gauge has shown for [`UNSEEN_NS`].
    pub(super) fn forget_lost(&mut self, snapshot: &Snapshot, sent_ns: Instant) {
        let before = self.last.as_ref();
        let restarted_ns = before
            .filter(|last| restarted(&last.snapshot, snapshot))
            .map(|last| last.sent_ns);
        if restarted_ns.is_some() {
            self.knee = Knee::new();
            self.foreign_floor = 0;
        }
        for request in &mut self.in_flight {
            // What was sent to the new process already is not told apart from what came between
            // the two probes, and stays.
            let to_the_old_one = restarted_ns.is_some_and(|at| request.pushed_ns < at);
            let age_ns = sent_ns - request.pushed_ns;
            let never_shown = request.place == Place::Unseen && age_ns >= UNSEEN_NS;
            if to_the_old_one || never_shown {
                request.place = Place::Lost;
            }
        }
    }

    /// Rebuilds the figures from a snapshot; the rule is in the documentation of [`super`].
    pub(super) fn estimate(&mut self, gauges: Gauges, sent_ns: Instant, now: Instant) {
        let census = self.census(sent_ns);
        let hidden = self.foreign_floor;
        self.foreign = gauges.total.saturating_sub(census.own);
        self.foreign_floor = self
            .foreign
            .saturating_sub(self.ended)
            .saturating_sub(census.fresh);
        let counts = self.place_counts(gauges, census, hidden);
        // Those that stream run, whatever the gauge says, unless they were preempted.
        let streaming = counts.streaming.saturating_sub(gauges.waiting);
        self.running = gauges.running.max(streaming);
        self.waiting = gauges.waiting;
        self.unseen = 0;
        self.fresh = 0;
        self.place_all(counts, sent_ns);
        let unseen = self.in_flight.iter().find(|r| r.place == Place::Unseen);
        // In flight and not waiting, ours and others'.
        let active = |own: u32| {
            own.saturating_add(self.foreign_floor)
                .saturating_sub(gauges.waiting)
        };
        self.knee.observe(&Reading {
            running: self.running,
            waiting: gauges.waiting,
            active: active(self.in_flight_peak).max(self.running),
            transit: active(self.in_flight()).saturating_sub(self.running),
            unseen_ns: unseen.map(|request| request.pushed_ns),
            sent_ns,
            now,
        });
    }

    fn census(&self, sent_ns: Instant) -> Census {
        let mut census = Census::default();
        for request in &self.in_flight {
            match (request.place, request.first_byte_ns) {
                (Place::Lost, _) => {}
                _ if request.pushed_ns >= sent_ns => census.fresh += 1,
                (_, Some(at)) if at < sent_ns => {
                    census.own += 1;
                    census.streaming += 1;
                    census.started_lately += u32::from(at + GAUGE_AGE_NS >= sent_ns);
                }
                _ => census.own += 1,
            }
        }
        census
    }

    /// Divides the own requests over the gauges. `hidden`: at least so many of those in the gauges
    /// are others'.
    fn place_counts(&self, gauges: Gauges, census: Census, hidden: u32) -> PlaceCounts {
        let quiet = census.own - census.streaming;
        let shown = gauges.total.saturating_sub(census.streaming);
        let seen = quiet.min(shown.saturating_sub(hidden));
        let streaming = census
            .streaming
            .min(gauges.total.saturating_add(census.started_lately));
        // Only what can be no other's, and no preempted request's, is taken for ours.
        let alone = self.foreign == 0 && self.fcfs;
        let preempted = streaming.saturating_sub(gauges.running);
        let waiting = if alone {
            seen.min(gauges.waiting.saturating_sub(preempted))
        } else {
            0
        };
        let in_batch = (seen - waiting).min(gauges.running.saturating_sub(streaming));
        PlaceCounts {
            streaming,
            quiet,
            seen,
            in_batch,
            waiting,
        }
    }

    /// Gives each request its place. Of the quiet ones, in push order, the first are in R, the last
    /// in no gauge yet, and those before them in W.
    fn place_all(&mut self, counts: PlaceCounts, sent_ns: Instant) {
        // From the youngest to the oldest, so that a first byte that arrived while the probe was
        // under way settles all older ones in one pass.
        let mut rank = counts.quiet;
        let mut streaming = counts.streaming.min(self.running);
        let mut younger_started = false;
        for index in (0..self.in_flight.len()).rev() {
            let request = &mut self.in_flight[index];
            if request.place == Place::Lost {
                continue;
            }
            let first_byte_ns = request.first_byte_ns;
            request.place = if request.pushed_ns >= sent_ns {
                self.fresh += 1;
                Place::Fresh
            } else if first_byte_ns.is_some_and(|at| at < sent_ns) {
                let runs = streaming > 0;
                streaming = streaming.saturating_sub(1);
                if runs { Place::Running } else { Place::Apart }
            } else {
                rank -= 1;
                let place = counts.of_quiet(rank);
                self.unseen += u32::from(place == Place::Unseen);
                place
            };
            let debit = matches!(request.place, Place::Fresh | Place::Unseen);
            let started = first_byte_ns.is_some_and(|at| at >= sent_ns);
            if started || (debit && younger_started && self.fcfs) {
                self.start(index);
            }
            younger_started |= first_byte_ns.is_some();
        }
    }
}

impl PlaceCounts {
    /// The place of the quiet request of this rank in push order.
    fn of_quiet(self, rank: u32) -> Place {
        if rank < self.in_batch {
            Place::Running
        } else if rank < self.seen - self.waiting {
            Place::Apart
        } else if rank < self.seen {
            Place::Waiting
        } else {
            Place::Unseen
        }
    }
}

/// Counters that only grow went back: another engine process answers now.
fn restarted(before: &Snapshot, after: &Snapshot) -> bool {
    let back = |a: Option<u64>, b: Option<u64>| matches!((a, b), (Some(a), Some(b)) if b < a);
    back(before.cache_queries, after.cache_queries) || back(before.preemptions, after.preemptions)
}
