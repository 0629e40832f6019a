//! The queue of requests that wait for room.
