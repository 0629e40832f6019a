//! What happened to one request, from its head to its end.

use smallvec::SmallVec;

use super::legs::Trace;
use super::target::Target;
use crate::prompt::class::Class;
use crate::prompt::continuing::Reason;
use crate::tenant::Tenant;

/// Why a stream that broke did not go on elsewhere: [`Reason::word`], and what is found later: it has all its tokens,
/// there is no memory for its body, or no replica or peer goes on (none is ready, its wait is over, or too many
/// were tried).
pub const REASONS: [&str; Reason::ALL.len() + 3] = {
    let mut words = ["length"; Reason::ALL.len() + 3];
    let mut at = 0;
    while at < Reason::ALL.len() {
        words[at] = Reason::ALL[at].word();
        at += 1;
    }
    words[at] = "memory";
    words[at + 1] = "no_place";
    words
};

/// The word of a reason.
#[must_use]
pub fn reason_named(name: &str) -> Option<&'static str> {
    REASONS.into_iter().find(|word| *word == name)
}

/// How a stream went on elsewhere, all its continuations together.
#[derive(Debug, Default)]
pub struct Continued {
    /// The replica or peer that it left last.
    pub from: Option<Target>,
    /// When it was given up there, while nobody goes on.
    pub since_ns: Option<u64>,
    /// Longest time until another went on.
    pub gap_ns: u64,
    /// Why it was given up there, each time that another went on.
    pub causes: SmallVec<[&'static str; 1]>,
    /// Why it was given up there last.
    cause: &'static str,
    /// Why it ended where it was; see [`reason_named`].
    pub refusal: Option<&'static str>,
}

/// The course of one request. It grows while the request lives, and is read when it ends.
#[derive(Debug, Default)]
pub struct Life {
    /// Ours, or the client's where that was acceptable.
    pub request_id: Box<str>,
    /// Where tenants are told apart.
    pub tenant: Tenant<Box<str>>,
    /// Its class, once it is placed.
    pub class: Class,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// When the head was complete.
    pub start_ns: u64,
    /// Since when it is in the hold, while it is.
    pub held_since_ns: Option<u64>,
    /// Time in the hold, all stays together.
    pub held_ns: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Of those, before the stream was last given up at a replica.
    pub attempts_before: u32,
    /// What the stream left, and how it went on.
    pub continued: Continued,
    /// Where the last attempt went.
    pub target: Option<Target>,
    /// Leading blocks of the prompt that the target was believed to cache.
    pub match_blocks: u32,
    /// Predicted time from the push to the first body byte, of a streamed answer.
    pub predicted_ttft_ns: Option<u64>,
    /// First body byte at; 0 while there is none.
    pub first_byte_ns: u64,
    /// Its place in a trace, and what its spans are made of; `None` where spans are not exported.
    pub trace: Option<Box<Trace>>,
}

impl Life {
    /// It enters the hold, if it is not there.
    pub fn hold(&mut self, now_ns: u64) {
        self.held_since_ns.get_or_insert(now_ns);
    }

    /// The header line that tells a trusted client where its request went, and why; with CR LF.
    #[must_use]
    pub fn receipt_line(&self, policy: &str) -> String {
        let seconds = |ns: u64| format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1_000);
        let target = match &self.target {
            Some(Target::Replica(name)) => format!("; replica={}", visible(name)),
            Some(Target::Peer(name)) => format!("; peer={}", visible(name)),
            None => String::new(),
        };
        let predicted = self.predicted_ttft_ns.map(seconds);
        let predicted = predicted.map_or_else(String::new, |text| format!("; predicted={text}"));
        format!(
            "X-SkyLB-Receipt: id={}{target}; match={}{predicted}; held={}; policy={policy}\r\n",
            visible(&self.request_id),
            self.match_blocks,
            seconds(self.held_ns),
        )
    }

    /// It leaves the hold, if it is there.
    pub fn leave_hold(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.held_since_ns.take() {
            self.held_ns += now_ns.saturating_sub(since_ns);
            if let Some(trace) = &mut self.trace {
                trace.stayed(since_ns, now_ns);
            }
        }
    }

    /// The attempt begins that the last push or forward has decided; for spans.
    pub fn attempt_begins(&mut self, now_ns: u64) {
        if let (Some(trace), Some(target)) = (&mut self.trace, &self.target) {
            let figures = (self.attempts, self.match_blocks);
            trace.begin(target.clone(), figures, self.predicted_ttft_ns, now_ns);
        }
    }

    /// The stream left its replica, and is to go on elsewhere.
    pub fn cut(&mut self, outcome: &'static str, status: u16, now_ns: u64) {
        self.attempts_before = self.attempts;
        self.continued.from = self.target.clone();
        self.continued.since_ns.get_or_insert(now_ns);
        self.continued.cause = outcome;
        self.attempt_failed(outcome, status, now_ns);
    }

    /// The first body byte came, of the answer or of what was missing of it.
    pub fn first_byte(&mut self, now_ns: u64) {
        match self.continued.since_ns.take() {
            Some(since_ns) => {
                let gap_ns = now_ns.saturating_sub(since_ns);
                self.continued.causes.push(self.continued.cause);
                self.continued.gap_ns = self.continued.gap_ns.max(gap_ns);
            }
            None => self.first_byte_ns = now_ns,
        }
    }

    /// The attempt has failed, before its answer began; `status` is 0 without an answer.
    pub fn attempt_failed(&mut self, outcome: &'static str, status: u16, now_ns: u64) {
        if let Some(trace) = &mut self.trace {
            trace.fail(outcome, status, now_ns);
        }
    }
}

/// A name as a value of a header's list.
fn visible(name: &str) -> String {
    let fits = |char: &char| char.is_ascii_graphic() && *char != ';';
    let chars = name.chars();
    chars
        .map(|char| Some(char).filter(fits).unwrap_or('?'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_all_stays_in_the_hold_counts() {
        let mut life = Life::default();
        life.leave_hold(5);
        life.hold(10);
        life.leave_hold(15);
        life.leave_hold(100);
        life.hold(200);
        life.leave_hold(201);
        assert_eq!(life.held_ns, 6);
    }

    #[test]
    fn one_stay_in_the_hold_may_be_decided_twice() {
        let mut life = Life::default();
        life.hold(10);
        life.hold(70); // its model was in no list, and then no replica had room
        life.leave_hold(100);
        assert_eq!(life.held_ns, 90);
    }

    #[test]
    fn the_line_of_a_receipt_is_one_line_whatever_names_are_like() {
        let mut life = Life {
            request_id: "a b;c".into(),
            target: Some(Target::Replica("http://gpu\r\nX: y".into())),
            match_blocks: 7,
            predicted_ttft_ns: Some(1_234_567_890),
            held_ns: 5_000_000,
            ..Life::default()
        };
        let pushed = "X-SkyLB-Receipt: id=a?b?c; replica=http://gpu??X:?y; match=7; predicted=1.234; \
                    held=0.005; policy=predictive\r\n";
        assert_eq!(life.receipt_line("predictive"), pushed);
        life.target = Some(Target::Peer("eu".into()));
        life.predicted_ttft_ns = None;
        let forwarded = "X-SkyLB-Receipt: id=a?b?c; peer=eu; match=7; held=0.005; policy=ring\r\n";
        assert_eq!(life.receipt_line("ring"), forwarded);
    }
}
