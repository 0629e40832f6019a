//! A receipt as JSON.

use serde::Serialize;

use super::reckoned::{Figures, Score, Weights, reads_figures, scores};
use crate::engine::effect::Outcome;
use crate::engine::parts::Parts;
use crate::engine::policy::Policy;
use crate::engine::receipts::decision::{Came, Decision, PeerNote, Peers};
use crate::engine::receipts::search::{Found, Noted, Search};
use crate::engine::receipts::{Asked, End, Receipt};
use crate::id::{PeerId, ReplicaId};
use crate::tenant::Tenant;
use crate::time::{Instant, Span};

/// One line of the listing.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    request_id: &'a str,
    submitted_ns: Instant,
    model: &'a str,
    result: &'static str,
    replica: Option<&'a str>,
    peer: Option<&'a str>,
    over: bool,
    /// How it ended, and the status of its answer, where the engine was told of them.
    outcome: Option<&'static str>,
    status: Option<u16>,
}

impl<'a> Summary<'a> {
    pub(super) fn of(receipt: &'a Receipt, parts: &Parts<'a>) -> Self {
        let last = receipt.decisions.last();
        let came = last.map(|last| last.came);
        Self {
            request_id: &receipt.asked.name,
            submitted_ns: receipt.submitted_ns,
            model: &receipt.asked.model,
            result: came.map_or("open", result),
            replica: came.and_then(|came| replica_of(parts, came)),
            peer: came.and_then(|came| peer_of(parts, came)),
            over: receipt.is_over(),
            outcome: receipt.end.as_ref().map(outcome),
            status: receipt
                .end
                .map(|end| end.status)
                .filter(|status| *status > 0),
        }
    }
}

/// All of one receipt.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    #[serde(flatten)]
    asked: AskedView<'a>,
    now_ns: Instant,
    submitted_ns: Instant,
    weights: Weights,
    decisions: Vec<DecisionView<'a>>,
    decisions_left_out: u32,
    held_ns: Span,
    first_byte_ns: Option<Instant>,
    /// From its submission to its first byte.
    ttft_ns: Option<Span>,
    end: Option<EndView>,
}

impl<'a> View<'a> {
    pub(super) fn of(receipt: &'a Receipt, parts: &Parts<'a>, now: Instant) -> Self {
        let decisions = receipt.decisions.iter();
        Self {
            asked: AskedView::of(&receipt.asked, parts),
            now_ns: now,
            submitted_ns: receipt.submitted_ns,
            weights: Weights::of(parts.config),
            decisions: decisions.map(|of| DecisionView::of(of, parts)).collect(),
            decisions_left_out: receipt.left_out,
            held_ns: receipt.held_ns(now),
            first_byte_ns: receipt.first_byte_ns,
            ttft_ns: receipt
                .first_byte_ns
                .map(|at_ns| at_ns - receipt.submitted_ns),
            end: receipt.end.as_ref().map(EndView::of),
        }
    }
}

/// What the request asks for.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a request is and is not"
)]
pub(super) struct AskedView<'a> {
    request_id: &'a str,
    route: &'static str,
    model: &'a str,
    class: &'static str,
    tenant: Option<&'a str>,
    tenant_known: bool,
    forwarded: bool,
    origin: Option<&'a str>,
    prompt_bytes: usize,
    prompt_blocks: usize,
    session: bool,
    stream: bool,
}

impl<'a> AskedView<'a> {
    pub(super) fn of(asked: &'a Asked, parts: &Parts<'a>) -> Self {
        Self {
            request_id: &asked.name,
            route: asked.route,
            model: &asked.model,
            class: asked.class.name(),
            tenant: asked.tenant.name(),
            tenant_known: asked.tenant != Tenant::Unknown,
            forwarded: asked.forwarded,
            origin: asked.origin.and_then(|origin| peer_name(parts, origin)),
            prompt_bytes: asked.prompt_bytes,
            prompt_blocks: asked.prompt_blocks,
            session: asked.session,
            stream: asked.stream,
        }
    }
}

/// One decision.
#[derive(Debug, Serialize)]
pub(super) struct DecisionView<'a> {
    at_ns: Instant,
    result: &'static str,
    /// Which attempt it is, replicas and peers counted together.
    attempt: Option<u32>,
    replica: Option<&'a str>,
    peer: Option<&'a str>,
    match_blocks: Option<u32>,
    predicted_ttft_ns: Option<Span>,
    /// Why it is held.
    why: Option<&'static str>,
    /// Code of the refusal.
    code: Option<&'static str>,
    /// When the attempt's first byte came.
    first_byte_ns: Option<Instant>,
    /// How the attempt failed, and when.
    failed: Option<&'static str>,
    failed_ns: Option<Instant>,
    search: Option<SearchView<'a>>,
    peers: Option<PeersView<'a>>,
}

impl<'a> DecisionView<'a> {
    pub(super) fn of(decision: &Decision, parts: &Parts<'a>) -> Self {
        let came = decision.came;
        let (attempt, match_blocks, predicted_ttft_ns) = match came {
            Came::Pushed {
                attempt,
                match_blocks,
                predicted_ttft_ns,
                ..
            } => (Some(attempt), Some(match_blocks), predicted_ttft_ns),
            Came::Forwarded {
                attempt,
                match_blocks,
                ..
            } => (Some(attempt), Some(match_blocks), None),
            Came::Held | Came::Refused(_) | Came::Expired | Came::Withdrawn => (None, None, None),
        };
        let code = match came {
            Came::Refused(code) => Some(code),
            _ => None,
        };
        let (search, peers) = (decision.search.as_ref(), decision.peers.as_ref());
        Self {
            at_ns: decision.at_ns,
            result: result(came),
            attempt,
            replica: replica_of(parts, came),
            peer: peer_of(parts, came),
            match_blocks,
            predicted_ttft_ns,
            why: (came == Came::Held).then(|| why_held(decision)),
            code,
            first_byte_ns: decision.first_byte_ns,
            failed: decision.failed.map(|(failure, _)| failure),
            failed_ns: decision.failed.map(|(_, at_ns)| at_ns),
            search: search.map(|search| SearchView::of(search, parts)),
            peers: peers.map(|peers| PeersView::of(peers, parts)),
        }
    }
}

/// The replicas that were looked at.
#[derive(Debug, Serialize)]
struct SearchView<'a> {
    at_ns: Instant,
    policy: Option<&'static str>,
    found: &'static str,
    may_wait: bool,
    spared_room_only: bool,
    /// On what the choice rests.
    basis: Option<&'static str>,
    chosen: Option<&'a str>,
    /// The policy's choice without regard to room, where that has none.
    preferred: Option<&'a str>,
    /// Where the session was pushed last.
    home: Option<&'a str>,
    candidates: Vec<CandidateView<'a>>,
    candidates_left_out: u32,
    closed: Vec<ClosedView<'a>>,
    closed_left_out: u32,
}

impl<'a> SearchView<'a> {
    fn of(search: &Search, parts: &Parts<'a>) -> Self {
        let name = |replica| replica_name(parts, replica);
        let chosen = search.second.or(search.preferred);
        let preferred = search.preferred.filter(|_| search.second.is_some());
        let candidates = search.candidates.iter();
        let closed = search.closed.iter();
        Self {
            at_ns: search.at_ns,
            policy: search.policy.map(Policy::name),
            found: match search.found {
                Found::Here => "room",
                Found::Awaits => "better_to_wait",
                Found::NoRoom => "no_room",
                Found::NoneReady => "none_ready",
            },
            may_wait: search.may_wait,
            spared_room_only: search.spared,
            basis: chosen.map(|(_, basis)| basis.name()),
            chosen: chosen.and_then(|(replica, _)| name(replica)),
            preferred: preferred.and_then(|(replica, _)| name(replica)),
            home: search.home.and_then(|(_, replica)| name(replica)),
            candidates: candidates
                .map(|noted| CandidateView::of(noted, search, parts))
                .collect(),
            candidates_left_out: search.left_out,
            closed: closed
                .map(|&(id, why)| ClosedView {
                    replica: name(id),
                    id,
                    why,
                })
                .collect(),
            closed_left_out: search.closed_left_out,
        }
    }
}

/// A candidate. What its policy did not read is absent.
#[derive(Debug, Serialize)]
struct CandidateView<'a> {
    replica: Option<&'a str>,
    id: ReplicaId,
    room: bool,
    closed: Option<&'static str>,
    in_flight: u32,
    match_blocks: u32,
    tree_blocks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Score>,
}

impl<'a> CandidateView<'a> {
    fn of(noted: &Noted, search: &Search, parts: &Parts<'a>) -> Self {
        let of = &noted.candidate;
        Self {
            replica: replica_name(parts, noted.replica),
            id: noted.replica,
            room: of.room,
            closed: noted.closed,
            in_flight: of.in_flight,
            match_blocks: of.match_blocks,
            tree_blocks: of.tree_blocks,
            figures: reads_figures(search.policy).then(|| Figures::of(of)),
            score: scores(search.policy).then(|| Score::of(of, parts.config)),
        }
    }
}

/// A replica that was no candidate.
#[derive(Debug, Serialize)]
struct ClosedView<'a> {
    replica: Option<&'a str>,
    id: ReplicaId,
    why: &'static str,
}

/// The peers that were looked at.
#[derive(Debug, Serialize)]
struct PeersView<'a> {
    at_ns: Instant,
    best: Option<&'a str>,
    /// What the replica here was predicted to take, where a peer was compared with it.
    here_ttft_ns: Option<Span>,
    /// The peer answers sooner by more than the settings ask for.
    leaves: Option<bool>,
    looked_at: Vec<PeerView<'a>>,
    left_out: u32,
}

impl<'a> PeersView<'a> {
    fn of(peers: &Peers, parts: &Parts<'a>) -> Self {
        let looked_at = peers.looked_at.iter();
        Self {
            at_ns: peers.at_ns,
            best: peers.best.and_then(|peer| peer_name(parts, peer)),
            here_ttft_ns: peers.compared.map(|compared| compared.here_ns),
            leaves: peers.compared.map(|compared| compared.leaves),
            looked_at: looked_at.map(|note| PeerView::of(note, parts)).collect(),
            left_out: peers.left_out,
        }
    }
}

#[derive(Debug, Serialize)]
struct PeerView<'a> {
    peer: Option<&'a str>,
    /// Absent while nothing was measured.
    rtt_ns: Option<Span>,
    room: u64,
    in_flight: u32,
    match_blocks: u32,
    reported: bool,
    ttft_ns: Option<Span>,
    closed: Option<&'static str>,
}

impl<'a> PeerView<'a> {
    fn of(note: &PeerNote, parts: &Parts<'a>) -> Self {
        Self {
            peer: peer_name(parts, note.peer),
            rtt_ns: Some(note.rtt_ns).filter(|rtt_ns| !rtt_ns.is_zero()),
            room: note.room,
            in_flight: note.in_flight,
            match_blocks: note.match_blocks,
            reported: note.reported,
            ttft_ns: note.ttft_ns.filter(|ttft_ns| *ttft_ns != Span::MAX),
            closed: note.closed,
        }
    }
}

#[derive(Debug, Serialize)]
struct EndView {
    at_ns: Instant,
    outcome: &'static str,
    /// Status of the answer, where one came.
    status: Option<u16>,
    prompt_tokens: Option<u32>,
    cached_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

impl EndView {
    fn of(end: &End) -> Self {
        Self {
            at_ns: end.at_ns,
            outcome: outcome(end),
            status: (end.status > 0).then_some(end.status),
            prompt_tokens: end.usage.prompt_tokens,
            cached_tokens: end.usage.cached_tokens,
            completion_tokens: end.usage.completion_tokens,
        }
    }
}

/// How it ended, in one word.
fn outcome(end: &End) -> &'static str {
    match end.outcome {
        Outcome::Ok => "ok",
        Outcome::ClientLeft => "client_left",
        Outcome::ReplicaFailed => "replica_failed",
        Outcome::GivenUp => "given_up",
    }
}

/// Why a request is held.
fn why_held(decision: &Decision) -> &'static str {
    let found = decision.search.as_ref().map(|search| search.found);
    match (decision.held, found) {
        (Some(held), _) => held.name(),
        (None, Some(Found::Awaits)) => "better_to_wait",
        (None, Some(Found::NoneReady)) => "none_ready",
        (None, Some(Found::Here | Found::NoRoom) | None) => "no_room",
    }
}

fn result(came: Came) -> &'static str {
    match came {
        Came::Pushed { .. } => "push",
        Came::Forwarded { .. } => "forward",
        Came::Held => "hold",
        Came::Refused(_) => "refuse",
        Came::Expired => "expire",
        Came::Withdrawn => "withdraw",
    }
}

/// The replica that a request was pushed to, if it is there still.
fn replica_of<'a>(parts: &Parts<'a>, came: Came) -> Option<&'a str> {
    match came {
        Came::Pushed { replica, .. } => replica_name(parts, replica),
        _ => None,
    }
}

fn peer_of<'a>(parts: &Parts<'a>, came: Came) -> Option<&'a str> {
    match came {
        Came::Forwarded { peer, .. } => peer_name(parts, peer),
        _ => None,
    }
}

fn replica_name<'a>(parts: &Parts<'a>, replica: ReplicaId) -> Option<&'a str> {
    let slot = parts.fleet.slot(replica)?;
    Some(parts.fleet.member(slot)?.name())
}

fn peer_name<'a>(parts: &Parts<'a>, peer: PeerId) -> Option<&'a str> {
    let slot = parts.mesh.slot(peer)?;
    parts.mesh.peer(slot).map(|peer| peer.name.as_str())
}
