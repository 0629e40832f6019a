//! How attempts and probes fail.

use serde::{Deserialize, Serialize};

/// How an attempt failed; the numbers are Python's `FAILURE_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection was lost.
    Reset,
    /// No answer in time.
    Timeout,
    /// The engine said it is full (503): nothing was begun, and it is no mark against it.
    Full,
    /// The engine takes no more of such requests now (429): as `Full`, but it may take others.
    Limited,
    /// The engine has not got what was asked of it, which was not known: no mark against it.
    Absent,
    /// A 5xx other than "full", and which.
    Status(u16),
    /// A malformed response.
    BadResponse,
    /// A peer refused a forward: no mark against it.
    Refused,
    /// The engine's own decision: the replica is down or wedged.
    Withdrawn,
    /// The replica does not take the key that SkyLB has sent it (401): nothing was begun, and it is a
    /// mark against it, because it would answer all requests so.
    Unauthorized,
}

impl Failure {
    /// The replica answered, so that the request itself may be at fault.
    #[must_use]
    pub fn answered(self) -> bool {
        matches!(self, Self::Status(_) | Self::BadResponse)
    }

    /// The word for it in the counter of attempts, in traces and in receipts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Absent => "absent",
            Self::Status(_) => "status",
            Self::BadResponse => "bad_response",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// Nobody was there to take the request. `sent`: it was sent before, on a connection that has broken.
    #[must_use]
    pub fn unreached(self, sent: bool) -> bool {
        self == Self::Connect && !sent
    }

    /// The attempt was none: it uses up nothing of those that a request has.
    #[must_use]
    pub fn free(self, sent: bool) -> bool {
        self.refused() || self.unreached(sent)
    }

    /// Nothing was begun.
    #[must_use]
    pub fn refused(self) -> bool {
        matches!(
            self,
            Self::Full | Self::Limited | Self::Refused | Self::Unauthorized
        )
    }
}

/// Why a probe told nothing; the numbers are Python's `PROBE_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unread {
    /// Nobody is there: the connection was refused, or no way leads there.
    Refused,
    /// No connection came about in time.
    Unconnected,
    /// The connection came about, and no whole answer in time.
    Late,
    /// It was answered, but not with readable metrics.
    Unreadable,
    /// It was given up before anything was sent: nothing is known of the replica.
    Unsent,
}
