//! Messages under way between balancers of different regions, and figures about them.

use slab::Slab;

use super::result::Forwards;
use super::scenario::seconds;
use crate::engine::effect::Message;
use crate::engine::mesh::peer::Presence;
use crate::id::Nanos;

/// A message under way.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) kind: Message,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) sent_ns: Nanos,
    pub(super) bytes: Vec<u8>,
}

/// One direction between two balancers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    /// When the newest summary that has been taken over was sent.
    pub(super) word_ns: Option<Nanos>,
    pub(super) bytes: u64,
    pub(super) digest_bytes: u64,
    /// Forwards of the second under way.
    sent: u32,
    /// Sign of the net flow of the last second that had one, and its changes; of the direction from
    /// the smaller number to the larger.
    sign: i8,
    flips: u64,
}

/// What goes between balancers.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// By balancer; empty where nobody shares.
    pub(super) peers: Vec<Vec<u32>>,
    /// By sender, then receiver.
    pub(super) links: Vec<Vec<Link>>,
    pub(super) letters: Slab<Letter>,
    /// By balancer, then peer: what it has found out, and of which process.
    pub(super) presences: Vec<Vec<(Presence, u64)>>,
    pub(super) counts: Forwards,
}

impl Exchange {
    /// The balancers of other regions.
    pub(super) fn peers_of(&self, at: u32) -> &[u32] {
        self.peers.get(at as usize).map_or(&[], Vec::as_slice)
    }

    /// What a balancer has found out about a peer of another region.
    pub(super) fn presence(&mut self, at: u32, of: u32) -> &mut (Presence, u64) {
        &mut self.presences[at as usize][of as usize]
    }

    /// The age of what `at` knows of `of`, by the time when it was sent.
    pub(super) fn age_ns(&self, at: u32, of: u32, now_ns: Nanos) -> Option<Nanos> {
        let link = self.links.get(of as usize)?.get(at as usize)?;
        Some(now_ns.saturating_sub(link.word_ns?))
    }

    /// A request is forwarded.
    pub(super) fn forwarded(&mut self, from: u32, to: u32) {
        self.counts.sent += 1;
        self.links[from as usize][to as usize].sent += 1;
    }

    /// A second has passed.
    pub(super) fn second(&mut self) {
        for low in 0..self.links.len() {
            for high in low + 1..self.links.len() {
                let back = std::mem::take(&mut self.links[high][low].sent);
                let link = &mut self.links[low][high];
                let sign = match std::mem::take(&mut link.sent).cmp(&back) {
                    std::cmp::Ordering::Less => -1,
                    std::cmp::Ordering::Equal => continue,
                    std::cmp::Ordering::Greater => 1,
                };
                link.flips += u64::from(link.sign == -sign);
                link.sign = sign;
            }
        }
    }

    /// The form of the result.
    pub(super) fn report(&self, duration_ns: Nanos) -> Option<Forwards> {
        let links = || self.links.iter().flatten();
        let most = |of: fn(&Link) -> u64| links().map(of).max().unwrap_or(0);
        let per_s =
            |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds(duration_ns);
        (!self.peers.is_empty()).then(|| Forwards {
            flips: links().map(|link| link.flips).sum(),
            flips_per_10s_max: 10.0 * per_s(most(|link| link.flips)),
            summary_bytes_per_s_max: per_s(most(|link| link.bytes)),
            digest_bytes_per_s_max: per_s(most(|link| link.digest_bytes)),
            ..self.counts.clone()
        })
    }
}
