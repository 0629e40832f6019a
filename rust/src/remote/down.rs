//! What the engine process tells a worker.

use serde::{Deserialize, Serialize};

use super::frame::Bytes;
use crate::engine::tenants::standing::Standing;
use crate::prompt::class::Class;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down<'a> {
    /// The request was submitted; what becomes of it follows.
    Placed {
        /// The request's number within the worker; likewise below.
        number: u64,
        /// As the engine counts it.
        class: Class,
        /// The most urgent one that its tenant may have.
        highest: Option<Class>,
        /// How its tenant stands with its limits.
        standing: Option<Standing>,
        /// The policy, by its number, where trusted clients are told why their requests went where they went.
        policy: Option<u8>,
    },
    /// Send it to this replica.
    Push {
        /// See `Placed`.
        number: u64,
        /// The replica's id.
        replica: u32,
        /// 1 for the first attempt.
        attempt: u32,
        /// Leading blocks that are believed to be cached there.
        match_blocks: u32,
        /// Predicted time to the first body byte.
        predicted_ttft_ns: Option<u64>,
        /// Tokens of the model's context.
        context_len: Option<u32>,
        /// The replica may lack its model, and another could be tried.
        guessed: bool,
    },
    /// Send it to this peer.
    Forward {
        /// See `Placed`.
        number: u64,
        /// The peer's id.
        peer: u32,
        /// See `Push`.
        attempt: u32,
        /// Replicas that the peer may try.
        attempts_left: u32,
        /// See `Push`.
        match_blocks: u32,
        /// Until when the peer may hold it.
        deadline_ns: u64,
        /// See `Push`.
        context_len: Option<u32>,
    },
    /// It waits.
    Hold(u64),
    /// Answer its client.
    Reject {
        /// See `Placed`.
        number: u64,
        /// A word of the table of errors.
        code: &'a str,
        /// For the client.
        message: &'a str,
        /// When to come back.
        retry_after_s: Option<u32>,
    },
    /// Its time in the hold is over.
    Expire(u64),
    /// Give up its attempt.
    Withdraw(u64),
    /// It is not known here: where its attempt fails or has failed, it is to be submitted again.
    Unknown(u64),
    /// A message for the code around the engine.
    Note(#[serde(borrow)] Bytes<'a>),
}
