//! What was learned, as one process writes it and another one reads it.
//!
//! It is written part by part, because a tree of many megabytes takes longer than requests may wait. Between
//! two parts the engine goes on. What then changes is in the state as it was or as it is. The parts that
//! follow name what is there by places in the first one, so nothing is mixed up.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::file::{Frame, SUFFIX, StateError, sections};
use crate::engine::cache::{Ages, Cache, KeptRetention, Path, Runs, Slice};
use crate::engine::choose::Chooser;
use crate::engine::config::Config;
use crate::engine::fleet::Fleet;
use crate::engine::fleet::keep::{KeptModel, KeptReplica, Places};
use crate::engine::fleet::lengths::Mean;
use crate::engine::parts::Parts;
use crate::engine::requests::Requests;
use crate::engine::tenants::keep::KeptTenant;
use crate::rng::Rng;
use crate::time::{Instant, Span};

/// Nodes of the tree that one part weighs or writes, at most, and bytes of it.
const NODES_MAX: u32 = 8_192;
const PART_BYTES_MAX: usize = 256 << 10;

/// What a state says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// The version of `SkyLB`, for people.
    pub software: String,
    /// What hashes in it are keyed by.
    pub secret: Vec<u8>,
    /// The key that gives each owner a prefix cache of its own, where there is one.
    pub isolation: Option<Vec<u8>>,
    /// The wall clock when it was begun.
    pub unix_ns: u64,
}

/// The beginning: what all else refers to.
#[derive(Debug, Serialize, Deserialize)]
struct Learned {
    block_bytes: u64,
    prompt_blocks_max: u64,
    /// The clock when it was begun.
    now_ns: Instant,
    replicas: Vec<KeptReplica>,
    models: Vec<KeptModel>,
    retentions: Vec<(u16, KeptRetention)>,
    rng: Rng,
}

/// The kinds of sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head = 0,
    Learned = 1,
    Tenants = 2,
    Sessions = 3,
    Responses = 4,
    Lengths = 5,
    Paths = 6,
    Runs = 7,
}

/// What is written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Section(Kind),
    Weigh(u32),
    Tree(u32),
    End,
    Over,
}

/// Writes a state, part by part.
#[derive(Debug)]
pub struct StateWriter {
    frame: Frame,
    head: Head,
    bytes_max: u64,
    /// Of the tree only what was used since this time of its clock.
    since: Option<u64>,
    step: Step,
    places: Places,
    ages: Ages,
    age_max: u32,
    clock: u64,
}

impl StateWriter {
    /// Begins a state of at most so many bytes. `since`: what [`Self::clock`] was for an earlier one, of
    /// which this one is the rest.
    #[must_use]
    pub fn new(head: Head, bytes_max: u64, since: Option<u64>) -> Self {
        Self {
            frame: Frame::new(),
            head,
            bytes_max: bytes_max.saturating_sub(SUFFIX as u64),
            since,
            step: Step::Section(Kind::Head),
            places: Places::default(),
            ages: Ages::new(),
            age_max: u32::MAX,
            clock: 0,
        }
    }

    /// The tree's clock when the state was begun.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The next part, which may be empty; `None` behind the last one.
    pub(in crate::engine) fn next(&mut self, parts: &Parts<'_>) -> Option<Vec<u8>> {
        match self.step {
            Step::Section(kind) => Some(self.section(kind, parts)),
            Step::Weigh(from) => {
                let next = parts.cache.weigh(self.slice(from), &mut self.ages);
                self.step = Step::Weigh(next);
                if next >= parts.cache.nodes_end() {
                    self.bound_age();
                    self.step = Step::Tree(0);
                }
                Some(Vec::new())
            }
            Step::Tree(from) => Some(self.tree(from, parts)),
            Step::End => {
                self.step = Step::Over;
                Some(self.frame.end())
            }
            Step::Over => None,
        }
    }

    fn slice(&self, from: u32) -> Slice {
        Slice {
            from,
            nodes_max: NODES_MAX,
            bytes_max: PART_BYTES_MAX,
            clock: self.clock,
            age_max: self.age_max,
        }
    }

    fn left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.frame.written())
    }

    /// As much of the tree as there is room for, with the heads of its sections.
    fn bound_age(&mut self) {
        let room = self.left() / 100 * 99;
        self.age_max = self.ages.youngest(room);
        if let Some(since) = self.since {
            let age = self.clock.saturating_sub(since);
            self.age_max = self.age_max.min(u32::try_from(age).unwrap_or(u32::MAX));
        }
    }

    fn tree(&mut self, from: u32, parts: &Parts<'_>) -> Vec<u8> {
        let mut runs = Vec::new();
        let next = parts.cache.write(self.slice(from), &self.places, &mut runs);
        let room = runs.len() as u64 + 16 <= self.left();
        self.step = if next < parts.cache.nodes_end() && room {
            Step::Tree(next)
        } else {
            Step::End
        };
        if runs.is_empty() || !room {
            return Vec::new();
        }
        self.frame.section(Kind::Runs as u8, &runs)
    }

    /// A section other than of the tree. One that does not fit is left out.
    fn section(&mut self, kind: Kind, parts: &Parts<'_>) -> Vec<u8> {
        let whole = self.since.is_none();
        let (payload, next) = match kind {
            Kind::Head => (encoded(&self.head), Step::Section(Kind::Learned)),
            Kind::Learned => (self.learned(parts), Step::Section(Kind::Tenants)),
            Kind::Tenants => {
                let tenants = parts.requests.tenants().leave();
                (encoded(&tenants), Step::Section(Kind::Sessions))
            }
            Kind::Sessions => {
                let sessions = parts.chooser.leave_sessions(&self.places);
                (encoded(&sessions), Step::Section(Kind::Responses))
            }
            Kind::Responses => {
                let responses = parts.requests.leave_responses(&self.places);
                let next = Step::Section(Kind::Lengths);
                (
                    encoded(&responses),
                    if whole { next } else { Step::Weigh(0) },
                )
            }
            Kind::Lengths => {
                let lengths = parts.fleet.leave_lengths(&self.places);
                (encoded(&lengths), Step::Section(Kind::Paths))
            }
            Kind::Paths => (encoded(&parts.cache.leave_paths()), Step::Weigh(0)),
            Kind::Runs => (Vec::new(), Step::End),
        };
        self.step = next;
        if payload.len() as u64 + 16 > self.left() {
            return Vec::new();
        }
        self.frame.section(kind as u8, &payload)
    }

    fn learned(&mut self, parts: &Parts<'_>) -> Vec<u8> {
        self.clock = parts.cache.clock();
        let (replicas, models, places) = parts.fleet.leave();
        self.places = places;
        encoded(&Learned {
            block_bytes: parts.config.block_bytes as u64,
            prompt_blocks_max: parts.config.prompt_blocks_max as u64,
            now_ns: parts.now,
            replicas,
            models,
            retentions: parts.cache.leave_retentions(&self.places),
            rng: parts.chooser.leave_rng(),
        })
    }
}

/// Nothing of what is written here fails to be.
fn encoded(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).unwrap_or_default()
}

fn decoded<T: DeserializeOwned>(payload: &[u8]) -> Result<T, StateError> {
    postcard::from_bytes(payload).map_err(|_| StateError::Malformed)
}

/// What a whole and sound state says of itself.
///
/// # Errors
///
/// It is neither.
pub fn head(bytes: &[u8]) -> Result<Head, StateError> {
    let found = sections(bytes)?;
    let (_, payload) = found
        .iter()
        .find(|(kind, _)| *kind == Kind::Head as u8)
        .ok_or(StateError::Malformed)?;
    decoded(payload)
}

/// How much of a state was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Replicas of the state, ...
    pub replicas_told: u64,
    /// ... and those of them that are here, with the same engine process as far as is known.
    pub replicas: u64,
    /// Paths of the tree.
    pub paths: u64,
    /// Sessions that have a replica.
    pub sessions: u64,
    /// Accounts of tenants.
    pub tenants: u64,
}

/// The packages of the engine that take a state over.
#[derive(Debug)]
pub(in crate::engine) struct Heirs<'a> {
    pub(in crate::engine) config: &'a Config,
    pub(in crate::engine) fleet: &'a mut Fleet,
    pub(in crate::engine) cache: &'a mut Cache,
    pub(in crate::engine) chooser: &'a mut Chooser,
    pub(in crate::engine) requests: &'a mut Requests,
}

/// All that a state says, read and not yet taken over.
#[derive(Debug)]
pub(in crate::engine) struct State {
    learned: Learned,
    tenants: Vec<KeptTenant>,
    sessions: Vec<(u128, u16)>,
    responses: Vec<(u128, u16)>,
    lengths: Vec<(u16, u64, Mean)>,
    paths: Vec<(u64, Path)>,
    runs: Runs,
}

impl State {
    /// Reads a state.
    pub(in crate::engine) fn read(bytes: &[u8], config: &Config) -> Result<Self, StateError> {
        let found = sections(bytes)?;
        let of = |kind: Kind| {
            let found = found.iter().find(|(number, _)| *number == kind as u8);
            found.map(|(_, payload)| *payload)
        };
        let learned: Learned = decoded(of(Kind::Learned).ok_or(StateError::Malformed)?)?;
        let blocks = (config.block_bytes as u64, config.prompt_blocks_max as u64);
        if (learned.block_bytes, learned.prompt_blocks_max) != blocks {
            return Err(StateError::Blocks);
        }
        let mut runs = Runs::default();
        for (kind, payload) in &found {
            if *kind == Kind::Runs as u8 {
                runs.read(payload).ok_or(StateError::Malformed)?;
            }
        }
        Ok(Self {
            learned,
            tenants: of(Kind::Tenants).map_or(Ok(Vec::new()), decoded)?,
            sessions: of(Kind::Sessions).map_or(Ok(Vec::new()), decoded)?,
            responses: of(Kind::Responses).map_or(Ok(Vec::new()), decoded)?,
            lengths: of(Kind::Lengths).map_or(Ok(Vec::new()), decoded)?,
            paths: of(Kind::Paths).map_or(Ok(Vec::new()), decoded)?,
            runs,
        })
    }

    /// Takes it over. `age`: since it was begun.
    pub(in crate::engine) fn give(self, heirs: Heirs<'_>, age: Span, now: Instant) -> Inherited {
        let Learned {
            now_ns,
            replicas,
            models,
            retentions,
            rng,
            ..
        } = self.learned;
        let then = now - age;
        let ahead_ns = i64::try_from(then.ns())
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(now_ns.ns()).unwrap_or(i64::MAX));
        let Heirs {
            config,
            fleet,
            cache,
            chooser,
            requests,
        } = heirs;
        let mut inherited = Inherited {
            replicas_told: replicas.len() as u64,
            ..Inherited::default()
        };
        let places = fleet.inherit(replicas, models, ahead_ns);
        inherited.replicas = places.slots.iter().flatten().count() as u64;
        cache.inherit_retentions(retentions, &places);
        for slot in places.slots.iter().flatten() {
            cache.fit(fleet, *slot, true, config);
        }
        cache.inherit_paths(self.paths);
        inherited.paths = cache.inherit_runs(&self.runs, &places);
        inherited.sessions = chooser.inherit(rng, self.sessions, &places);
        requests.inherit_responses(self.responses, &places);
        fleet.inherit_lengths(self.lengths, &places);
        inherited.tenants = self.tenants.len() as u64;
        requests.tenants_mut().inherit(self.tenants, ahead_ns, now);
        inherited
    }
}
