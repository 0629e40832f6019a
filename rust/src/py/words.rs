//! The numbers by which Python and the engine name failures, probes, states and outcomes.

use pyo3::prelude::*;

use super::text::constant;
use crate::engine::effect::Outcome;
use crate::engine::fleet::failure::{Failure, Unread};
use crate::engine::router::ProbedState;

const FAILURES: [(&str, Failure); 11] = [
    ("FAILURE_CONNECT", Failure::Connect),
    ("FAILURE_RESET", Failure::Reset),
    ("FAILURE_TIMEOUT", Failure::Timeout),
    ("FAILURE_FULL", Failure::Full),
    ("FAILURE_STATUS", Failure::Status(0)),
    ("FAILURE_BAD_RESPONSE", Failure::BadResponse),
    ("FAILURE_REFUSED", Failure::Refused),
    ("FAILURE_LIMITED", Failure::Limited),
    ("FAILURE_WITHDRAWN", Failure::Withdrawn),
    ("FAILURE_ABSENT", Failure::Absent),
    ("FAILURE_UNAUTHORIZED", Failure::Unauthorized),
];

pub(super) const PROBES: [(&str, Unread); 5] = [
    ("PROBE_REFUSED", Unread::Refused),
    ("PROBE_UNCONNECTED", Unread::Unconnected),
    ("PROBE_LATE", Unread::Late),
    ("PROBE_UNREADABLE", Unread::Unreadable),
    ("PROBE_UNSENT", Unread::Unsent),
];

const PROBED: [(&str, ProbedState); 4] = [
    ("PROBED_UNKNOWN", ProbedState::Unknown),
    ("PROBED_UP", ProbedState::Up),
    ("PROBED_BLIND", ProbedState::Blind),
    ("PROBED_DOWN", ProbedState::Down),
];

pub(super) const OUTCOMES: [(&str, Outcome); 4] = [
    ("OUTCOME_OK", Outcome::Ok),
    ("OUTCOME_CLIENT_LEFT", Outcome::ClientLeft),
    ("OUTCOME_REPLICA_FAILED", Outcome::ReplicaFailed),
    ("OUTCOME_GIVEN_UP", Outcome::GivenUp),
];

/// The failure of a number, with the status of the answer.
pub(super) fn failure_of(number: usize, status: u16) -> PyResult<Failure> {
    Ok(match constant(&FAILURES, "failure", number)? {
        Failure::Status(_) => Failure::Status(status),
        other => other,
    })
}

/// Adds this part's constants to the module.
pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    for (number, (name, _)) in FAILURES.iter().enumerate() {
        m.add(*name, number)?;
    }
    for (number, (name, _)) in PROBES.iter().enumerate() {
        m.add(*name, number)?;
    }
    for (name, state) in PROBED {
        m.add(name, state as usize)?;
    }
    for (number, (name, _)) in OUTCOMES.iter().enumerate() {
        m.add(*name, number)?;
    }
    Ok(())
}
