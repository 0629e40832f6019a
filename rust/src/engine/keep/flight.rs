//! The requests that a process which drains still has at replicas, as it tells its successor.
//!
//! Each message says all of them. The successor counts them like requests that another balancer of the
//! region has pushed ([`crate::engine::fleet::replica`]), until a message no longer has them. While the old
//! process holds requests for a replica, the successor leaves it half of the room there.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::engine::config::Config;
use crate::engine::fleet::Fleet;
use crate::engine::fleet::replica::{Need, Own, Split, theirs};
use crate::engine::mesh::Local;
use crate::engine::mesh::region::message::Began;
use crate::engine::mesh::region::{began, wanted};
use crate::id::{PeerId, ReplicaSlot, RequestId};
use crate::time::{Instant, Span};

/// The form that is written and read here.
const VERSION: u8 = 1;
/// The number of the predecessor among those whose requests are counted here; no peer has it.
pub(in crate::engine) const PREDECESSOR: PeerId = PeerId((1 << 23) - 1);

/// What the old process has at one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Its name.
    pub replica: String,
    /// The old process holds something that may go there.
    pub wants: bool,
    /// Not ended.
    pub began: Vec<Began>,
}

/// All that the old process has at replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flight {
    /// By replica.
    pub at: Vec<At>,
}

impl Flight {
    /// What is in flight here, and where more of it may go.
    pub(in crate::engine) fn of(local: &Local<'_>) -> Self {
        let wanted = wanted(local);
        let members = local.fleet.members();
        let at = members.map(|(slot, member)| At {
            replica: member.name().to_owned(),
            wants: wanted.get(slot.index()).copied().unwrap_or(false) && !member.declined(),
            began: (member.replica().own())
                .map(|own| began(&own, local.now))
                .collect(),
        });
        Self {
            at: at.filter(|at| at.wants || !at.began.is_empty()).collect(),
        }
    }

    /// The encoded form.
    ///
    /// # Errors
    ///
    /// None is known: what is encoded has no bound of its own.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_extend(self, vec![VERSION])
    }

    /// Reads the encoded form; `None` where it is another version's, or none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(())?;
        postcard::from_bytes(rest).ok()
    }

    /// Counts them here in place of those that were counted before.
    pub(in crate::engine) fn count(&self, fleet: &mut Fleet, config: &Config, now: Instant) {
        let slots: HashMap<String, ReplicaSlot, FixedState> = fleet
            .members()
            .map(|(slot, member)| (member.name().to_owned(), slot))
            .collect();
        let known = self.at.iter();
        let known: Vec<(ReplicaSlot, &At)> = known
            .filter_map(|at| Some((*slots.get(&at.replica)?, at)))
            .collect();
        let mut told: HashSet<(ReplicaSlot, RequestId), FixedState> = HashSet::default();
        for (slot, at) in &known {
            let numbers = at.began.iter().map(|began| began.number);
            told.extend(numbers.map(|number| (*slot, theirs(PREDECESSOR, number))));
        }
        fleet.keep_theirs(PREDECESSOR, |slot, id| told.contains(&(slot, id)));
        let wanted: HashSet<ReplicaSlot, FixedState> = (known.iter())
            .filter(|(_, at)| at.wants)
            .map(|(slot, _)| *slot)
            .collect();
        share_room(fleet, &wanted, config, now);
        for (slot, at) in known {
            let began = at.began.iter().map(|began| own_of(began, now)).collect();
            fleet.push_theirs(slot, began, config, now);
            for began in &at.began {
                if let Some(age_us) = began.started_us {
                    let id = theirs(PREDECESSOR, began.number);
                    fleet.first_byte_theirs(slot, id, ago(now, age_us));
                }
            }
        }
    }
}

/// Half of the room is the old process's where it holds something. What it does not use in time is ours.
fn share_room(
    fleet: &mut Fleet,
    wanted: &HashSet<ReplicaSlot, FixedState>,
    config: &Config,
    now: Instant,
) {
    for slot in fleet.all_slots() {
        let split = Split {
            others: 1,
            ahead: 1,
            unsent: 0,
        };
        if wanted.contains(&slot) {
            fleet.set_split(slot, split);
            fleet.note_open(slot, config, now);
        } else if fleet.split(slot) == Some(split) {
            fleet.set_split(slot, Split::default());
        }
    }
}

fn ago(now: Instant, age_us: u32) -> Instant {
    now - Span::from_ns(u64::from(age_us) * 1_000)
}

fn own_of(began: &Began, now: Instant) -> Own {
    Own {
        id: theirs(PREDECESSOR, began.number),
        pushed_ns: ago(now, began.age_us),
        first_byte_ns: began.started_us.map(|age_us| ago(now, age_us)),
        need: Need {
            prefill: began.prefill,
            kv: began.kv,
        },
    }
}
