//! The second layer: which peer gets a request that is to leave.
//!
//! Source: the paper's algorithm, steps 2 to 4 (arXiv:2505.24095, section 3): local replicas with
//! room first, else a peer that has room and holds no more than a bound, by the same rule as among
//! replicas; one hop. Ours: room is granted to each origin, not advertised, and the round trip
//! counts, which the published code ignores.

use std::cmp::Reverse;

use crate::engine::config::Policy;
use crate::id::Nanos;

/// A peer that has granted room for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Target {
    /// Its number inside the router.
    pub slot: u32,
    /// The round trip; 0 is unknown.
    pub rtt_ns: Nanos,
    /// Forwards from here that have not ended.
    pub in_flight: u32,
    /// Leading blocks of the prompt that it is believed to cache.
    pub match_blocks: u32,
    /// It told so itself; else it is known from what went there.
    pub told: bool,
    /// Predicted time to the first byte, the way included; for `predictive` only.
    pub ttft_ns: Nanos,
}

/// The position of the peer that gets the request; `None` without targets.
///
/// `prefix`: the longest match of more than `threshold` of the prompt's blocks; otherwise the
/// nearest. `ring`: `on_ring`, the first target on the ring of peers. `predictive`: the least
/// predicted time. The baselines: the nearest. Equals: the one with the fewest in flight.
#[must_use]
pub fn choose(
    targets: &[Target],
    policy: Policy,
    threshold_blocks: f64,
    on_ring: Option<usize>,
) -> Option<usize> {
    let positions = 0..targets.len();
    let near = |position: &usize| (targets[*position].rtt_ns, targets[*position].in_flight);
    let nearest = positions.clone().min_by_key(near)?;
    let found = match policy {
        Policy::Prefix => positions
            .max_by_key(|position| (targets[*position].match_blocks, Reverse(near(position))))
            .filter(|position| targets[*position].match_blocks > 0)
            .filter(|position| f64::from(targets[*position].match_blocks) > threshold_blocks),
        Policy::Ring | Policy::BoundedRing => on_ring,
        Policy::Predictive => {
            positions.min_by_key(|position| (targets[*position].ttft_ns, near(position)))
        }
        _ => None,
    };
    Some(found.unwrap_or(nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(slot: u32, rtt_ms: u64, match_blocks: u32) -> Target {
        Target {
            slot,
            rtt_ns: rtt_ms * 1_000_000,
            match_blocks,
            ttft_ns: rtt_ms * 1_000_000 + 1_000_000 * u64::from(10 - match_blocks) * 30,
            ..Target::default()
        }
    }

    #[test]
    fn a_match_over_the_threshold_goes_before_the_nearest() {
        let targets = [target(0, 150, 6), target(1, 90, 0), target(2, 200, 6)];
        assert_eq!(choose(&targets, Policy::Prefix, 5.0, None), Some(0));
        assert_eq!(choose(&targets, Policy::Prefix, 6.0, None), Some(1));
        assert_eq!(choose(&targets, Policy::Ring, 5.0, Some(2)), Some(2));
        assert_eq!(choose(&targets, Policy::Ring, 5.0, None), Some(1), "no key");
        assert_eq!(choose(&targets, Policy::LeastLoad, 5.0, None), Some(1));
        assert_eq!(choose(&targets, Policy::Predictive, 5.0, None), Some(0));
        assert_eq!(choose(&[], Policy::Prefix, 5.0, None), None);
    }

    #[test]
    fn of_equally_near_peers_the_one_with_fewest_in_flight_is_chosen() {
        let busy = Target {
            in_flight: 3,
            ..target(0, 90, 0)
        };
        let targets = [busy, target(1, 90, 0)];
        assert_eq!(choose(&targets, Policy::Prefix, 0.0, None), Some(1));
    }
}
