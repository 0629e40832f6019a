//! The oracle: a balancer that knows each replica's true cache and load, at once.
//!
//! Greedy with perfect knowledge, not optimal. A request is pushed to a replica that can take it
//! into its batch at the next step. That replica has room in its KV cache for the whole request.
//! Among those, it goes to the one where it costs all requests together least. That cost is the
//! prefill of its uncached tokens, which delays it and everything that runs there. To it comes one
//! more sequence in every step until the request ends. If none can, it is held; when one can, the
//! held request that costs least there goes first, unless the oldest has waited long.

use std::collections::VecDeque;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::fleet::Replica;
use crate::engine::effect::{Effect, Push};
use crate::id::{Nanos, ReplicaId, RequestId};

/// Held requests that are looked at when room appears.
const WINDOW: usize = 64;
/// Who has waited so long goes first.
const PATIENCE_NS: Nanos = 2_000_000_000;

/// What a request needs, as the replica that gets it will see it.
#[derive(Debug, Clone)]
pub struct Need {
    /// Number of its model.
    pub model: u32,
    /// Tokens of the prompt.
    pub input: u32,
    /// Tokens of the answer.
    pub output: u32,
    /// Chained hashes of the prompt's KV blocks.
    pub hashes: Vec<u64>,
}

#[derive(Debug)]
struct Held {
    id: RequestId,
    since_ns: Nanos,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    needs: HashMap<RequestId, Need, Xxh3DefaultBuilder>,
    held: VecDeque<Held>,
    /// By replica: requests on their way to it, and the KV blocks they will take.
    coming: Vec<(u32, u32)>,
    flying: HashMap<RequestId, (u32, u32), Xxh3DefaultBuilder>,
    in_flight: HashMap<RequestId, (), Xxh3DefaultBuilder>,
    attempts: HashMap<RequestId, u32, Xxh3DefaultBuilder>,
    hold_timeout_ns: Nanos,
}

impl Oracle {
    /// An oracle for so many replicas.
    #[must_use]
    pub fn new(replicas: usize, hold_timeout_ns: Nanos) -> Self {
        Self {
            needs: HashMap::default(),
            held: VecDeque::new(),
            coming: vec![(0, 0); replicas],
            flying: HashMap::default(),
            in_flight: HashMap::default(),
            attempts: HashMap::default(),
            hold_timeout_ns,
        }
    }

    /// What a request needs; to be told before it is placed.
    pub fn tell(&mut self, id: RequestId, need: Need) {
        self.needs.insert(id, need);
    }

    /// A request arrives, or comes back after a failure: it is held until `dispatch`.
    pub fn place(&mut self, id: RequestId, now_ns: Nanos, out: &mut Vec<Effect>) {
        self.arrived(id);
        self.in_flight.remove(&id);
        self.held.push_back(Held {
            id,
            since_ns: now_ns,
        });
        out.push(Effect::Hold(id));
    }

    /// A push has arrived at its replica, which counts it from now on.
    pub fn arrived(&mut self, id: RequestId) {
        if let Some((replica, blocks)) = self.flying.remove(&id) {
            let coming = &mut self.coming[replica as usize];
            coming.0 -= 1;
            coming.1 -= blocks;
        }
    }

    /// The request is over.
    pub fn forget(&mut self, id: RequestId) {
        self.arrived(id);
        self.needs.remove(&id);
        self.in_flight.remove(&id);
        self.attempts.remove(&id);
        self.held.retain(|held| held.id != id);
    }

    /// Ends the wait of those who have waited too long.
    pub fn expire(&mut self, now_ns: Nanos, out: &mut Vec<Effect>) {
        while let Some(oldest) = self.held.front() {
            if oldest.since_ns.saturating_add(self.hold_timeout_ns) > now_ns {
                return;
            }
            let id = oldest.id;
            self.forget(id);
            out.push(Effect::Expire(id));
        }
    }

    /// Requests held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Requests at replicas, or on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Pushes what can be pushed now.
    pub fn dispatch(&mut self, replicas: &[Replica], now_ns: Nanos, out: &mut Vec<Effect>) {
        while let Some((at, replica)) = self.best(replicas, now_ns) {
            let Some(held) = self.held.remove(at) else {
                return;
            };
            let Some(need) = self.needs.get(&held.id) else {
                continue;
            };
            let blocks = blocks(need, &replicas[replica as usize]);
            let coming = &mut self.coming[replica as usize];
            coming.0 += 1;
            coming.1 += blocks;
            self.flying.insert(held.id, (replica, blocks));
            self.in_flight.insert(held.id, ());
            let attempt = self.attempts.entry(held.id).or_default();
            *attempt += 1;
            out.push(Effect::Push(Push {
                request: held.id,
                replica: ReplicaId(replica),
                attempt: *attempt,
                match_blocks: 0,
                predicted_ttft_ns: None,
                context_len: None,
                shadow: None,
            }));
        }
    }

    /// The cheapest pair of a held request and a replica that can take it.
    fn best(&self, replicas: &[Replica], now_ns: Nanos) -> Option<(usize, u32)> {
        let open = |number: u32| {
            let replica = &replicas[number as usize];
            let (running, waiting) = replica.load();
            let seqs = running + self.coming[number as usize].0 as usize;
            let well = replica.up && !replica.frozen();
            well && waiting == 0 && seqs < replica.model().profile().max_num_seqs as usize
        };
        let open: Vec<u32> = (0..)
            .take(replicas.len())
            .filter(|number| open(*number))
            .collect();
        if open.is_empty() {
            return None;
        }
        let mut best: Option<(f64, usize, u32)> = None;
        for (at, held) in self.held.iter().take(WINDOW).enumerate() {
            let Some(need) = self.needs.get(&held.id) else {
                continue;
            };
            for &number in &open {
                let cost = self.cost(need, number, &replicas[number as usize]);
                if let Some(cost) = cost.filter(|cost| best.is_none_or(|(least, ..)| *cost < least))
                {
                    best = Some((cost, at, number));
                }
            }
            let patient = now_ns.saturating_sub(held.since_ns) < PATIENCE_NS;
            if best.is_some() && !patient {
                break;
            }
        }
        best.map(|(_, at, number)| (at, number))
    }

    /// What all requests together lose, in picoseconds; none where the KV room is too small now.
    fn cost(&self, need: &Need, number: u32, replica: &Replica) -> Option<f64> {
        if !replica.serves(need.model) {
            return None;
        }
        let model = replica.model();
        let profile = model.profile();
        let free = model
            .free_blocks()
            .saturating_sub(self.coming[number as usize].1);
        let idle = replica.load().0 == 0 && self.coming[number as usize].0 == 0;
        if blocks(need, replica) > free && !idle {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a cost, not a count")]
        let float = |value: u64| value as f64;
        let batch =
            1.0 + float(replica.load().0 as u64) + f64::from(self.coming[number as usize].0);
        let uncached = need.input
            - model
                .cached_tokens(need.input, &need.hashes)
                .min(need.input);
        let prefill = f64::from(uncached) * float(profile.prefill_token_ps);
        let context = float(profile.context_token_ps) * f64::from(need.input);
        let decode = f64::from(need.output) * (float(profile.decode_seq_ps) + context);
        Some((prefill + decode) * batch)
    }
}

/// KV blocks that the whole request takes anew.
fn blocks(need: &Need, replica: &Replica) -> u32 {
    let block = replica.block_tokens();
    let cached = replica.model().cached_tokens(need.input, &need.hashes);
    (need.input.saturating_sub(cached) + need.output).div_ceil(block)
}
