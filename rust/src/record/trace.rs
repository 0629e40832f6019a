//! The lines of a recording: which request follows which, and numbers in place of hashes.
//!
//! Hashes stay here. A block, a user and a session each get the next free number when they are first seen.
//! So a file says which prompts share how much, and nothing that could be compared with a text.
//!
//! A request *follows* an earlier one if its prompt contains the other's prompt and answer. Where the answer
//! is not known by its blocks, the other's prompt is enough, if its end was said for the first time there.

mod aging;

use aging::Aging;

use super::arrivals::Arrival;
use super::line::{Line, key};
use crate::prompt::class::Class;

/// Tokens of an answer that is not known, before there is a mean.
const ANSWER_TOKENS: f64 = 256.0;
/// Bytes of a prompt's token, before they are learned.
const TOKEN_BYTES: f64 = 4.0;
/// Weight of the newest value in both means.
const MEAN_NEW: f64 = 1.0 / 64.0;

/// The end of a request's prompt and answer, which the next one of its session begins with.
#[derive(Debug, Clone, Copy)]
struct End {
    id: u64,
    session: u64,
    user: u64,
    turn: u32,
    at_ns: u64,
    key: Option<u64>,
}

/// How a request joins those before it.
#[derive(Debug, Clone, Copy)]
struct Place {
    after: Option<End>,
    session: u64,
    user: u64,
    turn: u32,
}

/// What lines look like.
#[derive(Debug, Clone)]
pub struct Form {
    /// Region of the balancer.
    pub region: Box<str>,
    /// When the recording began: time 0 of its lines.
    pub start_ns: u64,
    /// Tokens of a block, about.
    pub block_tokens: u32,
    /// Blocks, users and ends of requests that are remembered, each; twice as many at most.
    pub known_max: usize,
}

/// Writes the lines of one recording.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    blocks: Aging<u64>,
    users: Aging<u64>,
    ends: Aging<End>,
    next_block: u64,
    next_id: u64,
    next_session: u64,
    next_user: u64,
    answer_tokens: f64,
    token_bytes: f64,
    runs: Vec<(u64, u32)>,
    text: Vec<u8>,
}

impl Writer {
    /// A recording without a line.
    #[must_use]
    pub fn new(form: Form) -> Self {
        let aging = form.known_max;
        Self {
            form,
            blocks: Aging::new(aging),
            users: Aging::new(aging),
            ends: Aging::new(aging),
            next_block: 0,
            next_id: 0,
            next_session: 0,
            next_user: 0,
            answer_tokens: ANSWER_TOKENS,
            token_bytes: TOKEN_BYTES,
            runs: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Blocks, users and ends of requests that were forgotten because there were too many.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.blocks.forgotten() + self.users.forgotten() + self.ends.forgotten()
    }

    /// Appends a line per request, in the order of their ends.
    pub fn write(&mut self, arrivals: &[Arrival], out: &mut Vec<u8>) {
        for arrival in arrivals {
            self.put(arrival, out);
        }
    }

    fn put(&mut self, arrival: &Arrival, out: &mut Vec<u8>) {
        let place = self.place(arrival);
        let id = self.next_id;
        self.next_id += 1;
        let said_first = self.number(&arrival.prompt.blocks);
        self.keep_end(arrival, id, place, said_first);
        self.line(arrival, id, place, out);
    }

    /// The request that it follows, its session and its user.
    fn place(&mut self, arrival: &Arrival) -> Place {
        if let Some(end) = self.followed(arrival) {
            return Place {
                after: Some(end),
                session: end.session,
                user: end.user,
                turn: end.turn.saturating_add(1),
            };
        }
        let session = self.next_session;
        self.next_session += 1;
        Place {
            after: None,
            session,
            user: self.user(arrival),
            turn: 1,
        }
    }

    /// The latest end that the prompt contains, of a request that had ended before.
    fn followed(&mut self, arrival: &Arrival) -> Option<End> {
        let prompt = &arrival.prompt;
        let fits = |end: &End| {
            let other = matches!((end.key, prompt.key), (Some(one), Some(two)) if one != two);
            end.at_ns <= arrival.start_ns && !other
        };
        let mut ends = prompt.blocks.iter().rev();
        ends.find_map(|hash| self.ends.get(*hash).filter(fits))
    }

    /// The number of its user: that of the key it names, else a new one.
    fn user(&mut self, arrival: &Arrival) -> u64 {
        let known = arrival.prompt.key.and_then(|key| self.users.get(key));
        known.unwrap_or_else(|| {
            let user = self.next_user;
            self.next_user += 1;
            if let Some(key) = arrival.prompt.key {
                self.users.put(key, user);
            }
            user
        })
    }

    /// Numbers a prompt's blocks, as runs; whether its last one is new.
    fn number(&mut self, blocks: &[u64]) -> bool {
        self.runs.clear();
        let mut is_new = false;
        for hash in blocks {
            let known = self.blocks.get(*hash);
            is_new = known.is_none();
            let number = known.unwrap_or_else(|| {
                let number = self.next_block;
                self.next_block += 1;
                self.blocks.put(*hash, number);
                number
            });
            match self.runs.last_mut() {
                Some((start, len)) if *start + u64::from(*len) == number => *len += 1,
                _ => self.runs.push((number, 1)),
            }
        }
        is_new
    }

    /// What a request that follows this one will contain.
    fn keep_end(&mut self, arrival: &Arrival, id: u64, place: Place, said_first: bool) {
        let prompt = &arrival.prompt;
        let end = End {
            id,
            session: place.session,
            user: place.user,
            turn: place.turn,
            at_ns: arrival.end_ns,
            key: prompt.key,
        };
        // Whose answer is known is followed by nobody who does not repeat it.
        let alone = || prompt.blocks.last().filter(|_| said_first);
        if let Some(hash) = prompt.answer.last().or_else(alone) {
            self.ends.put(*hash, end);
        }
    }

    fn line(&mut self, arrival: &Arrival, id: u64, place: Place, out: &mut Vec<u8>) {
        let (input, input_guessed) = self.input(arrival);
        let (output, output_guessed) = self.output(arrival);
        let start_ns = self.form.start_ns;
        let mut line = Line::<true>::begin(out);
        line.int(key!(first "id"), id);
        let at_ns = arrival.start_ns.saturating_sub(start_ns);
        line.seconds(key!("t"), Some(at_ns));
        if let Some(end) = place.after {
            line.int(key!("after"), end.id);
            let pause_ns = arrival.start_ns.saturating_sub(end.at_ns);
            line.seconds(key!("think"), Some(pause_ns));
        }
        line.text(key!("region"), Some(&self.form.region));
        line.int(key!("user"), place.user);
        line.int(key!("session"), place.session);
        line.int(key!("turn"), u64::from(place.turn));
        line.int(key!("in"), input);
        line.int(key!("out"), output);
        line.int(key!("block"), u64::from(self.form.block_tokens));
        runs(&self.runs, &mut self.text);
        line.raw(key!("runs"), &self.text);
        line.int(key!("bytes"), arrival.prompt_bytes as u64);
        line.text(key!("model"), Some(&arrival.model));
        line.plain(key!("route"), arrival.route.as_bytes());
        if arrival.tenant.is_some() {
            line.text(key!("tenant"), arrival.tenant.as_deref());
        }
        if arrival.class != Class::default() {
            line.plain(key!("class"), arrival.class.name().as_bytes());
        }
        line.int(key!("status"), u64::from(arrival.status));
        line.seconds(key!("held"), Some(arrival.held_ns));
        if arrival.ttft_ns.is_some() {
            line.seconds(key!("ttft"), arrival.ttft_ns);
        }
        let end_ns = arrival.end_ns.saturating_sub(start_ns);
        line.seconds(key!("end"), Some(end_ns));
        if let Some(cached) = arrival.cached_tokens {
            line.int(key!("cached"), u64::from(cached));
        }
        for (key, is) in [
            (key!("forwarded"), arrival.forwarded),
            (key!("in_guessed"), input_guessed),
            (key!("out_guessed"), output_guessed),
        ] {
            if is {
                line.bool(key, true);
            }
        }
        line.end();
    }

    /// Tokens of the prompt, and whether they are a guess by its bytes.
    fn input(&mut self, arrival: &Arrival) -> (u64, bool) {
        let bytes = f64::from(u32::try_from(arrival.prompt_bytes).unwrap_or(u32::MAX));
        if let Some(tokens) = arrival.prompt_tokens.filter(|tokens| *tokens > 0) {
            if !arrival.has_media && bytes > 0.0 {
                let ratio = (bytes / f64::from(tokens)).clamp(0.25, 64.0);
                self.token_bytes += (ratio - self.token_bytes) * MEAN_NEW;
            }
            return (u64::from(tokens), false);
        }
        (whole(bytes / self.token_bytes).max(1), true)
    }

    /// Tokens of the answer, and whether they are a guess: by events, or where there is no answer by the mean.
    fn output(&mut self, arrival: &Arrival) -> (u64, bool) {
        if let Some(tokens) = arrival.answer_tokens {
            if arrival.status < 400 {
                self.answer_tokens += (f64::from(tokens) - self.answer_tokens) * MEAN_NEW;
            }
            return (u64::from(tokens), false);
        }
        if arrival.events_tokens > 0 {
            return (arrival.events_tokens, true);
        }
        if !arrival.generates {
            return (0, false);
        }
        let most = arrival.tokens_max.map_or(u64::MAX, u64::from);
        (whole(self.answer_tokens).min(most), true)
    }
}

/// Numbers of blocks as JSON.
fn runs(runs: &[(u64, u32)], out: &mut Vec<u8>) {
    out.clear();
    out.push(b'[');
    for (place, (start, len)) in runs.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.push(b'[');
        out.extend_from_slice(itoa::Buffer::new().format(*start).as_bytes());
        out.push(b',');
        out.extend_from_slice(itoa::Buffer::new().format(*len).as_bytes());
        out.push(b']');
    }
    out.push(b']');
}

/// A count of tokens, rounded.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never below 0, and `as` saturates"
)]
fn whole(tokens: f64) -> u64 {
    tokens.round() as u64
}

#[cfg(test)]
mod tests;
