//! Whether a replica may take one more request now, and if not, why.

#[cfg(test)]
mod tests;

use super::health::State;
use super::replica::Replica;
use crate::engine::config::{AllowanceRule, Config, PushRule};
use crate::engine::plant::Plant;
use crate::time::{Instant, Span};

/// Why a replica may not take a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Draining, ejected, down or not yet observed.
    NotReady,
    /// The engine has reported that it sleeps.
    Sleeping,
    /// The request that tests an ejected replica is under way.
    Probing,
    /// `in_flight_max` is reached.
    Cap,
    /// It came back recently, and its share of requests is still small.
    Ramp,
    /// Its load is unknown and `blind_outstanding_max` is reached.
    Blind,
    /// `outstanding_max` is reached (`push = outstanding`).
    Outstanding,
    /// As many requests are pending as allowed (`push = pending`).
    Pending,
    /// There is room, but it belongs to another balancer of the region.
    Shared,
}

/// Whether one more request may be pushed to `replica` now.
///
/// # Errors
///
/// The reason why not: the first that holds, in the order of [`Why`].
pub fn may_push(replica: &Replica, config: &Config, now: Instant) -> Result<(), Why> {
    limit(replica, config, now).and_then(|(room, why)| if room > 0 { Ok(()) } else { Err(why) })
}

/// How many requests may be pushed to `replica` now, one after the other.
#[must_use]
pub fn room(replica: &Replica, config: &Config, now: Instant) -> u32 {
    limit(replica, config, now).map_or(0, |(room, _)| room)
}

/// The tightest limit: how many it leaves, and its name.
fn limit(replica: &Replica, config: &Config, now: Instant) -> Result<(u32, Why), Why> {
    if !replica.health.ready() {
        return Err(Why::NotReady);
    }
    if replica.sleeping() && !replica.blind(config, now) {
        return Err(Why::Sleeping);
    }
    let in_flight = replica.in_flight();
    if replica.health.state() == State::Probing {
        let own = replica.own_in_flight();
        return Ok((1_u32.saturating_sub(own), Why::Probing));
    }
    let under = |max: u32| max.saturating_sub(in_flight);
    let gate = match config.push {
        PushRule::Blind => (u32::MAX, Why::Pending),
        PushRule::Outstanding => (under(config.outstanding_max), Why::Outstanding),
        PushRule::Pending if replica.blind(config, now) => {
            (under(config.blind_outstanding_max), Why::Blind)
        }
        PushRule::Pending => {
            let room = replica.allowance(config).saturating_sub(replica.pending());
            let why = if room > 0 { Why::Shared } else { Why::Pending };
            let part = if config.planted(Plant::TurnsIgnored) {
                room
            } else if config.planted(Plant::TurnsKept) && replica.split().others > 0 {
                0
            } else {
                replica.part_of(room, now)
            };
            (part, why)
        }
    };
    let cap = (under(config.in_flight_max), Why::Cap);
    let ramp = (under(ramp_max(replica, config, now)), Why::Ramp);
    // By hand: this is asked of every replica for every choice, and an iterator's fold over pairs
    // took a fifth of all time with 1,000 of them.
    let mut tightest = cap;
    for other in [ramp, gate] {
        if other.0 < tightest.0 {
            tightest = other;
        }
    }
    Ok(tightest)
}

/// Requests in flight allowed while the replica's share grows after it came back.
fn ramp_max(replica: &Replica, config: &Config, now: Instant) -> u32 {
    let Some(share) = replica.health.ramp(config, now) else {
        return u32::MAX;
    };
    let full = match config.push {
        PushRule::Pending if !replica.blind(config, now) => {
            replica.knee().unwrap_or(config.outstanding_max)
        }
        PushRule::Pending => config.blind_outstanding_max,
        PushRule::Blind | PushRule::Outstanding => config.outstanding_max,
    };
    share.of(full).max(1)
}

/// Whether probes have to find out if `replica` lives: it is unknown, down, or half-open.
#[must_use]
pub fn looked_for(replica: &Replica) -> bool {
    match replica.health.state() {
        State::Unknown | State::Down | State::Probing => true,
        State::Up | State::Ejected | State::Wedged => false,
    }
}

/// Time between two probes of `replica`.
///
/// It is short while the gate decides: requests that the replica could take wait in the hold (`held`), or
/// its allowance is nearly used. It is also short while the replica is [`looked_for`]. Else it is
/// long, because a probe costs milliseconds in the engine's API server.
#[must_use]
pub fn probe_interval(replica: &Replica, config: &Config, held: bool) -> Span {
    let pending = replica.pending();
    let nearly_used = config.push == PushRule::Pending
        && (config.allowance == AllowanceRule::Probed
            || (pending > 0 && pending.saturating_add(1) >= replica.allowance(config)));
    let deciding = replica.health.ready() && (held || nearly_used);
    if looked_for(replica) || deciding {
        config.probe_interval_ns
    } else {
        config.probe_idle_interval_ns
    }
}
