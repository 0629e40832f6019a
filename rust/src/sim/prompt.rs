//! What prompts consist of, as hashes: no text is ever made or hashed.
//!
//! A prompt is a sequence of pieces: tokens `from..to` of the text that a block id stands for. It
//! is cut into units of `unit` tokens (the router's 64 bytes and vLLM's default block are both 16
//! tokens). A unit's hash is that of its pieces. Units are chained, so that equal hashes mean
//! equal prompts up to there, as with text.
//!
//! A block that a prompt fills in part has an id of its own in the trace. The rest after the last
//! listed one has none. The next turn has another id there. The next turn's block *continues* it:
//! its first tokens are those of the block before. Where the next turn has room for the answer,
//! the answer's text is what the next turn has in its place. So turn 2 finds not only its first
//! prompt cached but also the answer to it.

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::workload::{NO_TURN, Turn, Workload};

/// Ids from here on are ours: the text after a prompt's last listed block, and answers.
const OWN_IDS: u64 = 1 << 62;
/// Odd constants of the mix (those of `SplitMix64`).
const MIX: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
];
/// Blocks may continue each other over so many turns; the trace says no more.
const CONTINUED_MAX: u32 = 64;

/// Tokens `from..to` of a block's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    id: u64,
    from: u32,
    to: u32,
}

/// The texts behind a workload's requests.
#[derive(Debug)]
pub struct Prompts {
    /// By block id: the block whose first tokens it takes over, and how many.
    continued: HashMap<u64, (u64, u32), Xxh3DefaultBuilder>,
    /// By turn: the follower whose prompt contains the answer.
    answers: Vec<u32>,
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(MIX[0]);
    z = (z ^ (z >> 30)).wrapping_mul(MIX[1]);
    z = (z ^ (z >> 27)).wrapping_mul(MIX[2]);
    z ^ (z >> 31)
}

impl Prompts {
    /// Finds what continues what, in one pass.
    #[must_use]
    pub fn new(workload: &Workload) -> Self {
        let mut prompts = Self {
            continued: HashMap::default(),
            answers: vec![NO_TURN; workload.turns.len()],
        };
        for (index, child) in (0..).zip(&workload.turns) {
            if let Some(parent) = child.after {
                prompts.join(&workload.turns, parent, index);
            }
        }
        prompts
    }

    /// A request's prompt continues that of the one it follows, if its blocks say so.
    fn join(&mut self, turns: &[Turn], parent_index: u32, child_index: u32) {
        let (parent, child) = (&turns[parent_index as usize], &turns[child_index as usize]);
        let depth = parent.input / parent.block;
        let filled = parent.input % parent.block;
        if child.input <= parent.input
            || child.block != parent.block
            || !extends(parent, child, depth)
        {
            return;
        }
        if filled > 0 {
            self.go_on(block_at(child, depth), (block_at(parent, depth), filled));
        }
        let answer = &mut self.answers[parent_index as usize];
        if *answer == NO_TURN && child.input >= parent.input.saturating_add(parent.output) {
            *answer = child_index;
        }
    }

    fn go_on(&mut self, id: u64, before: (u64, u32)) {
        if self.continued.contains_key(&id) {
            return;
        }
        let mut source = Some(before);
        for _ in 0..CONTINUED_MAX {
            match source {
                None => {
                    self.continued.insert(id, before);
                    return;
                }
                Some((other, _)) if other == id => return,
                Some((other, _)) => source = self.continued.get(&other).copied(),
            }
        }
    }

    /// Appends to `out` the chained hashes of the whole units of a request's prompt, or of prompt
    /// and answer together. `salt` keeps repetitions of the workload apart.
    pub fn hashes(
        &self,
        turns: &[Turn],
        index: u32,
        with_answer: bool,
        unit: u32,
        salt: u64,
        out: &mut Vec<u64>,
    ) {
        let turn = &turns[index as usize];
        let follower = self.answers[index as usize];
        let mut chain = Chain {
            texts: &self.continued,
            unit: unit.max(1),
            left: unit.max(1),
            before: mix(salt),
            hash: 0,
            out,
        };
        let total = turn.input.saturating_add(turn.output);
        if with_answer && follower != NO_TURN {
            chain.blocks(&turns[follower as usize], total);
            return;
        }
        chain.blocks(turn, turn.input);
        if with_answer {
            let id = OWN_IDS | mix(turn.id ^ MIX[1]);
            chain.text(Piece {
                id,
                from: 0,
                to: turn.output,
            });
        }
    }
}

/// Units as they fill.
struct Chain<'a> {
    texts: &'a HashMap<u64, (u64, u32), Xxh3DefaultBuilder>,
    unit: u32,
    /// Tokens that the unit under way lacks.
    left: u32,
    before: u64,
    hash: u64,
    out: &'a mut Vec<u64>,
}

impl Chain<'_> {
    /// The first `tokens` of a prompt.
    fn blocks(&mut self, turn: &Turn, tokens: u32) {
        let mut left = tokens;
        for (start, len) in &turn.runs {
            for id in *start..start.saturating_add(u64::from(*len)) {
                if left == 0 {
                    return;
                }
                let to = left.min(turn.block);
                self.resolve(Piece { id, from: 0, to });
                left -= to;
            }
        }
        if left > 0 {
            self.resolve(Piece {
                id: rest_id(turn),
                from: 0,
                to: left,
            });
        }
    }

    /// Replaces what a block takes over from another by that one's text.
    fn resolve(&mut self, piece: Piece) {
        let Some((source, taken)) = self.texts.get(&piece.id).copied() else {
            self.text(piece);
            return;
        };
        let at = taken.clamp(piece.from, piece.to);
        if at > piece.from {
            self.resolve(Piece {
                id: source,
                from: piece.from,
                to: at,
            });
        }
        if at < piece.to {
            self.text(Piece { from: at, ..piece });
        }
    }

    fn text(&mut self, piece: Piece) {
        let mut from = piece.from;
        while from < piece.to {
            let taken = (piece.to - from).min(self.left);
            let place = u64::from(from) << 32 | u64::from(from + taken);
            self.hash = mix(self.hash ^ piece.id.wrapping_mul(MIX[2]) ^ place.wrapping_mul(MIX[0]));
            from += taken;
            self.left -= taken;
            if self.left == 0 {
                self.before = mix(self.before.rotate_left(23) ^ self.hash);
                self.out.push(self.before);
                self.left = self.unit;
                self.hash = 0;
            }
        }
    }
}

/// The id of one block of a prompt; after the listed ones, that of the rest.
fn block_at(turn: &Turn, index: u32) -> u64 {
    let mut index = index;
    for (start, len) in &turn.runs {
        if index < *len {
            return start + u64::from(index);
        }
        index -= len;
    }
    rest_id(turn)
}

/// The text after the last listed block: equal prompts of one session stay equal, and other
/// sessions say something else.
fn rest_id(turn: &Turn) -> u64 {
    let last = turn
        .runs
        .last()
        .map_or(u64::MAX, |(start, len)| start + u64::from(*len));
    OWN_IDS | mix(mix(turn.session) ^ last)
}

/// The child's prompt begins with the parent's whole blocks, all of them listed.
fn extends(parent: &Turn, child: &Turn, depth: u32) -> bool {
    let listed = |turn: &Turn| {
        turn.runs
            .iter()
            .map(|(_, len)| u64::from(*len))
            .sum::<u64>()
    };
    if listed(parent) < u64::from(depth) || listed(child) < u64::from(depth) {
        return false;
    }
    let (mut ours, mut theirs) = (parent.runs.iter().copied(), child.runs.iter().copied());
    let (mut one, mut other) = (None, None);
    let mut left = depth;
    while left > 0 {
        let (Some((a, a_len)), Some((b, b_len))) =
            (one.or_else(|| ours.next()), other.or_else(|| theirs.next()))
        else {
            return false;
        };
        let both = a_len.min(b_len).min(left);
        if a != b && both > 0 {
            return false;
        }
        let rest =
            |start: u64, len: u32| (len > both).then_some((start + u64::from(both), len - both));
        (one, other) = (rest(a, a_len), rest(b, b_len));
        left -= both;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turn(id: u64, after: Option<u32>, input: u32, output: u32, runs: &[(u64, u32)]) -> Turn {
        Turn {
            id,
            t_s: 0.0,
            after,
            think_s: 0.0,
            region: 0,
            model: 0,
            tenant: None,
            class: crate::prompt::class::Class::default(),
            user: 1,
            session: 1,
            input,
            output,
            block: 64,
            runs: runs.into(),
            first_follower: NO_TURN,
            next_sibling: NO_TURN,
        }
    }

    fn workload(turns: Vec<Turn>) -> Workload {
        Workload {
            models: Vec::new(),
            turns,
            sessions: Vec::new(),
            users: Vec::new(),
        }
    }

    fn hashes(workload: &Workload, index: u32, with_answer: bool) -> Vec<u64> {
        let mut out = Vec::new();
        Prompts::new(workload).hashes(&workload.turns, index, with_answer, 16, 0, &mut out);
        out
    }

    fn common(one: &[u64], other: &[u64]) -> usize {
        one.iter().zip(other).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn the_next_turn_begins_with_prompt_and_answer() {
        let first = turn(0, None, 100, 60, &[(1, 1), (50, 1)]);
        let second = turn(1, Some(0), 200, 10, &[(1, 1), (70, 3)]);
        let both = workload(vec![first, second]);
        let whole = hashes(&both, 0, true);
        assert_eq!(whole.len(), 10);
        assert_eq!(common(&whole, &hashes(&both, 1, false)), 10);
        assert_eq!(common(&hashes(&both, 0, false), &whole), 6);
    }

    #[test]
    fn an_answer_that_nobody_follows_is_like_no_other() {
        let all = workload(vec![
            turn(0, None, 128, 64, &[(1, 2)]),
            turn(1, None, 128, 64, &[(1, 2)]),
        ]);
        assert_eq!(common(&hashes(&all, 0, true), &hashes(&all, 1, true)), 8);
    }

    #[test]
    fn a_salt_shares_nothing() {
        let all = workload(vec![turn(0, None, 128, 64, &[(1, 2)])]);
        let mut salted = Vec::new();
        Prompts::new(&all).hashes(&all.turns, 0, false, 16, 1, &mut salted);
        assert_eq!(common(&hashes(&all, 0, false), &salted), 0);
    }

    proptest! {
        #[test]
        fn prompts_share_what_their_block_ids_share(
            shared in 0u32..6, one in 1u32..400, other in 1u32..400, unit in prop::sample::select(vec![8u32, 16, 24, 64]),
        ) {
            let ids = |own: u64| if shared > 0 { vec![(1, shared), (own, 9)] } else { vec![(own, 9)] };
            let all = workload(vec![turn(0, None, one, 5, &ids(1000)), turn(1, None, other, 5, &ids(2000))]);
            let prompts = Prompts::new(&all);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            prompts.hashes(&all.turns, 0, false, unit, 0, &mut a);
            prompts.hashes(&all.turns, 1, false, unit, 0, &mut b);
            prop_assert_eq!(a.len(), (one / unit) as usize);
            let expected = (shared * 64).min(one).min(other) / unit;
            prop_assert_eq!(common(&a, &b), expected as usize);
        }
    }
}
