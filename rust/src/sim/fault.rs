//! What goes wrong, by script.
//!
//! Each fault begins at `at_s` and ends at `until_s`, in seconds of virtual time.
//!
//! | faults | of |
//! |---|---|
//! | `crash`, `freeze`, `wedge`, `errors`, `slow`, `lie`, `forget`, `drain` | one replica |
//! | `cut` | the link between two regions |
//! | `drop` | one direction of such a link |
//! | `evacuate` | a region |
//! | `kill` | one balancer |
//! | `part` | the link between two balancers of one region |

use serde::Deserialize;

use crate::engine::fleet::failure::Failure;

/// How a replica's metrics lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// Gauges below zero.
    Negative,
    /// Gauges that are no number.
    Nan,
    /// Gauges beyond what any engine runs.
    Absurd,
    /// Always what was said first after the lie began.
    Frozen,
    /// Nothing runs, nothing waits.
    Idle,
    /// The page cannot be read.
    Unreadable,
}

/// How a replica fails a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A 500.
    #[default]
    Status,
    /// The connection is closed without an answer.
    Reset,
    /// A 503 that says the replica is full.
    Full,
}

impl Answer {
    /// What the balancer makes of it.
    #[must_use]
    pub fn failure(self) -> Failure {
        match self {
            Self::Status => Failure::Status(500),
            Self::Reset => Failure::Reset,
            Self::Full => Failure::Full,
        }
    }
}

/// One thing that goes wrong; without `until_s` it stays so.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A replica's process ends and comes back with an empty cache.
    Crash {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// It answers again.
        until_s: Option<f64>,
    },
    /// A replica's process stops as it is: it accepts connections and says nothing, until it goes on.
    Freeze {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// It goes on.
        until_s: Option<f64>,
    },
    /// A replica's engine stands still. Its server takes requests, and its page has always the same
    /// figures but for those that wait.
    Wedge {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// It goes on.
        until_s: Option<f64>,
    },
    /// A replica fails some requests as they arrive.
    Errors {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
        /// Share of the requests.
        rate: f64,
        /// In what way.
        #[serde(default)]
        how: Answer,
    },
    /// A replica's steps take `factor` times as long.
    Slow {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
        /// Above 1: slower.
        factor: f64,
    },
    /// A replica's metrics lie.
    Lie {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
        /// In what way.
        how: Lie,
    },
    /// A replica forgets its prefix cache.
    Forget {
        /// Number of the replica.
        replica: u32,
        /// When.
        at_s: f64,
    },
    /// An operator drains a replica.
    Drain {
        /// Number of the replica.
        replica: u32,
        /// Beginning.
        at_s: f64,
        /// It takes requests again.
        until_s: Option<f64>,
    },
    /// Nothing passes from one region to another; the other way is open.
    Drop {
        /// From.
        from: String,
        /// To.
        to: String,
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
    },
    /// An operator evacuates a region.
    Evacuate {
        /// Its name.
        region: String,
        /// Beginning.
        at_s: f64,
        /// It takes requests again.
        until_s: Option<f64>,
    },
    /// A balancer's process ends, with its clients' connections; a new one knows nothing.
    Kill {
        /// Number of the balancer.
        balancer: u32,
        /// Its machine goes with it: nobody is told that connections have ended.
        #[serde(default)]
        silent: bool,
        /// Beginning.
        at_s: f64,
        /// A new process answers.
        until_s: Option<f64>,
    },
    /// Nothing passes between two balancers of one region.
    Part {
        /// Their numbers.
        balancers: (u32, u32),
        /// Only from the first to the second.
        #[serde(default)]
        one_way: bool,
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
    },
    /// Nothing passes between two regions (or within one: twice the same).
    Cut {
        /// The two.
        between: (String, String),
        /// Beginning.
        at_s: f64,
        /// End.
        until_s: Option<f64>,
    },
}

impl Fault {
    /// The replica at fault, where it is one.
    #[must_use]
    pub fn replica(&self) -> Option<u32> {
        match self {
            Self::Crash { replica, .. }
            | Self::Freeze { replica, .. }
            | Self::Wedge { replica, .. }
            | Self::Errors { replica, .. }
            | Self::Slow { replica, .. }
            | Self::Lie { replica, .. }
            | Self::Forget { replica, .. }
            | Self::Drain { replica, .. } => Some(*replica),
            Self::Cut { .. }
            | Self::Drop { .. }
            | Self::Evacuate { .. }
            | Self::Kill { .. }
            | Self::Part { .. } => None,
        }
    }

    /// It concerns balancers alone.
    #[must_use]
    pub fn of_balancers(&self) -> bool {
        matches!(self, Self::Kill { .. } | Self::Part { .. })
    }

    /// Beginning and end.
    #[must_use]
    pub fn times(&self) -> (f64, Option<f64>) {
        match self {
            Self::Crash { at_s, until_s, .. }
            | Self::Freeze { at_s, until_s, .. }
            | Self::Wedge { at_s, until_s, .. }
            | Self::Errors { at_s, until_s, .. }
            | Self::Slow { at_s, until_s, .. }
            | Self::Lie { at_s, until_s, .. }
            | Self::Drain { at_s, until_s, .. }
            | Self::Cut { at_s, until_s, .. }
            | Self::Drop { at_s, until_s, .. }
            | Self::Kill { at_s, until_s, .. }
            | Self::Part { at_s, until_s, .. }
            | Self::Evacuate { at_s, until_s, .. } => (*at_s, *until_s),
            Self::Forget { at_s, .. } => (*at_s, None),
        }
    }
}
