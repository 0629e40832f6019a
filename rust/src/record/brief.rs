//! The access log for people: one short line for each request that ended.

use super::ended::{Ended, ROUTE_INVALID};
use super::line::{Key, Line, key};
use super::stamp::STAMP_LEN;

/// Stands before a field without a name.
const GAP: Key = Key {
    json: ",",
    text: " ",
};
/// Stands before the first field.
const NOTHING: Key = Key { json: "", text: "" };

/// Length of `2026-01-02T03:04:05.678`.
const MILLIS_LEN: usize = 23;

const MILLISECOND_NS: u64 = 1_000_000;

/// Writes the line of a request at the end of a buffer. `ts` is when it ended.
///
/// Time, status, method, route, model and replica or peer stand in each line. What follows has a name and
/// stands there only if there is something to say. `names`: each line has the request's id, and not only those with
/// an error.
pub(super) fn write(out: &mut Vec<u8>, ended: &Ended<'_>, ts: &[u8; STAMP_LEN], names: bool) {
    let course = ended.life;
    let known = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let mut line = Line::<false>::begin(out);
    line.plain(NOTHING, &ts[..MILLIS_LEN]);
    line.plain(NOTHING, b"Z");
    line.int(GAP, u64::from(ended.status));
    line.text(GAP, known(ended.method()));
    match ended.path() {
        Some(path) => line.text(GAP, Some(path)),
        None if ended.route() == ROUTE_INVALID => line.text(GAP, None),
        None => line.plain(GAP, ended.route().as_bytes()),
    }
    line.text(GAP, ended.model());
    match (ended.replica(), ended.peer()) {
        (Some(replica), origin) => {
            line.text(GAP, Some(replica.trim_start_matches("http://")));
            if origin.is_some() {
                line.text(key!("from"), origin);
            }
        }
        (None, Some(peer)) => line.text(key!("peer"), Some(peer)),
        (None, None) => line.text(GAP, None),
    }
    if let Some(ttft_ns) = ended.ttft_ns() {
        line.short_seconds(key!("ttft"), ttft_ns);
    }
    line.short_seconds(key!("total"), ended.total_ns());
    if course.held_ns >= MILLISECOND_NS {
        line.short_seconds(key!("held"), course.held_ns);
    }
    if course.attempts > 1 {
        line.int(key!("attempts"), u64::from(course.attempts));
    }
    if let tenant @ Some(_) = course.tenant.name() {
        line.text(key!("tenant"), tenant);
    }
    if let code @ Some(_) = ended.error_code {
        line.text(key!("error"), code);
    }
    if names || ended.error_code.is_some() {
        line.text(key!("id"), known(&course.request_id));
    }
    line.end();
}
