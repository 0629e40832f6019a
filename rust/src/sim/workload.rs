//! The requests: read from JSON columns, checked, and put in the order of sessions.
//!
//! ```json
//! {"id": [0, 1], "t": [0.0, 1.5], "after": [null, 0], "think": [0.0, 0.5], "region": ["us", "us"],
//! "user": [7, 7], "session": [3, 3], "in": [500, 700], "out": [80, 100], "block": [64, 64],
//! "runs": [[[9000, 8]], [[9000, 7], [17, 4]]]}
//! ```
//!
//! One value per request in each column. `t`: arrival in open loop, in seconds. `after`, `think`: in closed
//! loop it is sent `think` seconds after the request `after` has ended. That request must be listed before
//! it and be of the same session. `in`, `out`: tokens of prompt and answer. `runs`: ids of the prompt's
//! blocks of `block` tokens as `[start, length]`; equal ids mean equal text. `model` may be left out: the
//! one model that replicas of no other name serve. `tenant` may be left out too: numbers in the scenario's
//! `tenants`. Without it, users are spread over `clients.tenants`.

use hashbrown::HashMap;
use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::scenario::{MODEL, Scenario, ScenarioError};
use crate::prompt::class::Class;

/// Requests at most.
pub const REQUESTS_MAX: usize = 5_000_000;
/// Tokens of a prompt or an answer at most.
pub const TOKENS_MAX: u32 = 10_000_000;

/// Models at most.
pub const MODELS_MAX: usize = 1_000;

/// Marks the absence of a request.
pub const NO_TURN: u32 = u32::MAX;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Columns {
    id: Vec<u64>,
    t: Vec<f64>,
    after: Vec<Option<u64>>,
    think: Vec<f64>,
    region: Vec<String>,
    user: Vec<u64>,
    session: Vec<u64>,
    #[serde(rename = "in")]
    input: Vec<u32>,
    #[serde(rename = "out")]
    output: Vec<u32>,
    block: Vec<u32>,
    runs: Vec<Vec<(u64, u32)>>,
    #[serde(default)]
    model: Option<Vec<String>>,
    #[serde(default)]
    tenant: Option<Vec<u32>>,
}

/// One request of the workload.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Its id in the workload.
    pub id: u64,
    /// Arrival in open loop, in seconds.
    pub t_s: f64,
    /// The request it follows.
    pub after: Option<u32>,
    /// Pause before it in closed loop, in seconds.
    pub think_s: f64,
    /// Number of its region in the scenario.
    pub region: u32,
    /// Number of its model in the workload.
    pub model: u32,
    /// Number of its tenant, if there are any.
    pub tenant: Option<u32>,
    /// How urgent it is.
    pub class: Class,
    /// Its user.
    pub user: u64,
    /// Its session.
    pub session: u64,
    /// Tokens of the prompt, at least 1.
    pub input: u32,
    /// Tokens of the answer, at least 1.
    pub output: u32,
    /// Tokens per block.
    pub block: u32,
    /// Ids of the prompt's blocks.
    pub runs: Box<[(u64, u32)]>,
    /// The requests that follow it: the first of them, and for each the next.
    pub first_follower: u32,
    /// The next request that follows the same one; of first requests, the session's next first.
    pub next_sibling: u32,
}

/// One conversation or program.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its first request that follows none; the others by `next_sibling`.
    pub first_root: u32,
    last_root: u32,
}

/// All requests.
#[derive(Debug)]
pub struct Workload {
    /// Names of the models.
    pub models: Vec<String>,
    /// In the order of the columns.
    pub turns: Vec<Turn>,
    /// In the order of their first requests.
    pub sessions: Vec<Session>,
    /// By region, users in the order of their first requests, and each one's sessions.
    pub users: Vec<Vec<Vec<u32>>>,
}

impl Workload {
    /// Reads and checks the requests of a scenario.
    ///
    /// # Errors
    ///
    /// Columns of unequal length, a value out of range, a request that follows one not listed
    /// before it: the text names column and row.
    pub fn from_json(json: &[u8], scenario: &Scenario) -> Result<Self, ScenarioError> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let columns: Columns = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| ScenarioError(format!("requests.{error}")))?;
        let len = columns.lengths()?;
        let mut rows = Rows::new(scenario, len);
        let Columns {
            id,
            t,
            after,
            think,
            region,
            user,
            session,
            input,
            output,
            block,
            runs,
            model,
            tenant,
        } = columns;
        for (row, runs) in runs.into_iter().enumerate() {
            rows.add(
                row,
                after[row],
                &region[row],
                model.as_ref().map_or(MODEL, |model| &model[row]),
                Turn {
                    id: id[row],
                    t_s: t[row],
                    after: None,
                    think_s: think[row],
                    region: 0,
                    model: 0,
                    tenant: tenant.as_ref().map(|tenant| tenant[row]),
                    class: Class::default(),
                    user: user[row],
                    session: session[row],
                    input: input[row],
                    output: output[row].max(1),
                    block: block[row],
                    runs: runs.into(),
                    first_follower: NO_TURN,
                    next_sibling: NO_TURN,
                },
            )?;
        }
        Ok(rows.workload)
    }
}

impl Columns {
    /// The common length.
    fn lengths(&self) -> Result<usize, ScenarioError> {
        let lengths = [
            ("id", self.id.len()),
            ("t", self.t.len()),
            ("after", self.after.len()),
            ("think", self.think.len()),
            ("region", self.region.len()),
            ("user", self.user.len()),
            ("session", self.session.len()),
            ("in", self.input.len()),
            ("out", self.output.len()),
            ("block", self.block.len()),
            ("runs", self.runs.len()),
            ("model", self.model.as_ref().map_or(self.id.len(), Vec::len)),
            (
                "tenant",
                self.tenant.as_ref().map_or(self.id.len(), Vec::len),
            ),
        ];
        let len = self.id.len();
        if len == 0 || len > REQUESTS_MAX {
            return Err(ScenarioError(format!(
                "requests: expected 1 to {REQUESTS_MAX}, got {len}"
            )));
        }
        match lengths.iter().find(|(_, other)| *other != len) {
            Some((name, other)) => Err(ScenarioError(format!(
                "requests.{name}: {other} values, but {len} ids"
            ))),
            None => Ok(len),
        }
    }
}

type Index<K> = HashMap<K, u32, Xxh3DefaultBuilder>;

/// Rows as they are read.
struct Rows<'a> {
    scenario: &'a Scenario,
    workload: Workload,
    turns: Index<u64>,
    sessions: Index<u64>,
    users: Index<(u32, u64)>,
    /// By turn: the last that follows it.
    last_follower: Vec<u32>,
}

impl<'a> Rows<'a> {
    fn new(scenario: &'a Scenario, len: usize) -> Self {
        Self {
            scenario,
            workload: Workload {
                models: Vec::new(),
                turns: Vec::with_capacity(len),
                sessions: Vec::new(),
                users: vec![Vec::new(); scenario.regions.len()],
            },
            turns: Index::default(),
            sessions: Index::default(),
            users: Index::default(),
            last_follower: Vec::with_capacity(len),
        }
    }

    fn add(
        &mut self,
        row: usize,
        after: Option<u64>,
        region: &str,
        model: &str,
        mut turn: Turn,
    ) -> Result<(), ScenarioError> {
        let fault = |name: &str, text: String| {
            Err(ScenarioError(format!("requests.{name}[{row}]: {text}")))
        };
        let Some(number) = self.scenario.region(region) else {
            return fault("region", format!("there is no region {region}"));
        };
        turn.region = small(number);
        turn.model = self.model(model);
        if self.workload.models.len() > MODELS_MAX {
            return fault("model", format!("more than {MODELS_MAX} models"));
        }
        let tenants = self.scenario.tenants_len();
        if turn.tenant.is_some_and(|tenant| tenant >= tenants) {
            return fault("tenant", format!("there are {tenants}, numbered from 0"));
        }
        turn.tenant = turn.tenant.or_else(|| spread(turn.user, tenants));
        turn.class = self.class(&turn);
        if let Err((name, text)) = check(&turn) {
            return fault(name, text);
        }
        let index = small(row);
        if self.turns.insert(turn.id, index).is_some() {
            return fault("id", format!("{} is there twice", turn.id));
        }
        match after {
            None => self.join_session(index, &turn),
            Some(id) => {
                let parent = self
                    .turns
                    .get(&id)
                    .copied()
                    .filter(|parent| *parent != index);
                let Some(parent) = parent else {
                    return fault("after", format!("no request {id} is listed before"));
                };
                if self.workload.turns[parent as usize].session != turn.session {
                    return fault("after", format!("request {id} is of another session"));
                }
                turn.after = Some(parent);
                self.follow(parent, index);
            }
        }
        self.last_follower.push(NO_TURN);
        self.workload.turns.push(turn);
        Ok(())
    }

    /// How urgent a request is: its tenant's classes, else those of all, are its users' in turn.
    fn class(&self, turn: &Turn) -> Class {
        let tenants = &self.scenario.tenants;
        let own = turn.tenant.and_then(|tenant| tenants.get(tenant as usize));
        let own = own.map(|own| &own.classes).filter(|own| !own.is_empty());
        let classes = own.unwrap_or(&self.scenario.clients.classes);
        let place = turn.user.checked_rem(classes.len() as u64).unwrap_or(0);
        let place = usize::try_from(place).unwrap_or(0);
        classes.get(place).copied().unwrap_or_default()
    }

    /// The number of a model.
    fn model(&mut self, name: &str) -> u32 {
        let models = &mut self.workload.models;
        let known = models.iter().position(|model| model == name);
        small(known.unwrap_or_else(|| {
            models.push(name.to_owned());
            models.len() - 1
        }))
    }

    /// Appends to the requests that follow `parent`.
    fn follow(&mut self, parent: u32, index: u32) {
        let last = std::mem::replace(&mut self.last_follower[parent as usize], index);
        let turns = &mut self.workload.turns;
        if last == NO_TURN {
            turns[parent as usize].first_follower = index;
        } else {
            turns[last as usize].next_sibling = index;
        }
    }

    /// A request that follows none: the session's first, or one more of those.
    fn join_session(&mut self, index: u32, turn: &Turn) {
        let workload = &mut self.workload;
        if let Some(session) = self.sessions.get(&turn.session) {
            let session = &mut workload.sessions[*session as usize];
            let last = std::mem::replace(&mut session.last_root, index);
            workload.turns[last as usize].next_sibling = index;
            return;
        }
        let number = small(workload.sessions.len());
        self.sessions.insert(turn.session, number);
        workload.sessions.push(Session {
            first_root: index,
            last_root: index,
        });
        let users = &mut workload.users[turn.region as usize];
        let user = *self
            .users
            .entry((turn.region, turn.user))
            .or_insert_with(|| {
                users.push(Vec::new());
                small(users.len() - 1)
            });
        users[user as usize].push(number);
    }
}

/// The tenant of a user, where users are spread over so many.
fn spread(user: u64, tenants: u32) -> Option<u32> {
    let tenant = user.checked_rem(u64::from(tenants))?;
    u32::try_from(tenant).ok()
}

/// Column and text of what a request cannot be.
fn check(turn: &Turn) -> Result<(), (&'static str, String)> {
    let tokens = 1..=TOKENS_MAX;
    if !tokens.contains(&turn.input) {
        return Err((
            "in",
            format!("{} is not between 1 and {TOKENS_MAX}", turn.input),
        ));
    }
    if !tokens.contains(&turn.output) {
        return Err((
            "out",
            format!("{} is not between 0 and {TOKENS_MAX}", turn.output),
        ));
    }
    if !(1..=65_536).contains(&turn.block) {
        return Err((
            "block",
            format!("{} is not between 1 and 65536", turn.block),
        ));
    }
    for (name, value) in [("t", turn.t_s), ("think", turn.think_s)] {
        if !(0.0..=1e9).contains(&value) {
            return Err((name, format!("{value} is not between 0 and 1e9")));
        }
    }
    Ok(())
}

/// Counts here are bounded far below 2^32.
pub(super) fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
