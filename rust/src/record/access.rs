//! The access log: one line for each request that ended, with all its fields.

use super::ended::Ended;
use super::line::{Line, key};
use crate::tenant::Tenant;

/// Writes the line of a request at the end of a buffer. `ts` is when it ended, `policy` the name of
/// the process's policy.
pub(super) fn write<const JSON: bool>(
    out: &mut Vec<u8>,
    ended: &Ended<'_>,
    ts: &[u8],
    policy: &str,
) {
    let course = ended.life;
    let known = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let mut line = Line::<JSON>::begin(out);
    line.plain(key!(first "ts"), ts);
    if JSON {
        line.plain(key!("type"), b"access");
    }
    line.text(key!("request_id"), known(&course.request_id));
    line.text(key!("trace_id"), ended.trace_id());
    line.text(key!("tenant"), course.tenant.name());
    if course.tenant == Tenant::Unknown {
        line.bool(key!("tenant_known"), false);
    }
    line.text(key!("client"), ended.client);
    line.text(key!("method"), known(ended.method()));
    line.plain(key!("route"), ended.route().as_bytes());
    if let path @ Some(_) = ended.path() {
        line.text(key!("path"), path);
    }
    line.text(key!("model"), ended.model());
    line.int(key!("status"), u64::from(ended.status));
    line.text(key!("error_code"), ended.error_code);
    line.text(key!("replica"), ended.replica());
    line.text(key!("peer"), ended.peer());
    line.plain(key!("policy"), policy.as_bytes());
    line.int(key!("attempts"), u64::from(course.attempts));
    let continued = &course.continued;
    if let Some(from) = &continued.from {
        line.int(key!("continued"), continued.causes.len() as u64);
        line.text(key!("continued_from"), Some(from.name()));
        line.seconds(key!("continued_gap_s"), Some(continued.gap_ns));
    }
    if continued.refusal.is_some() {
        line.text(key!("not_continued"), continued.refusal);
    }
    line.int(key!("prompt_blocks"), ended.prompt_blocks);
    line.int(key!("match_blocks"), u64::from(course.match_blocks));
    line.seconds(key!("held_s"), Some(course.held_ns));
    line.seconds(key!("predicted_ttft_s"), course.predicted_ttft_ns);
    line.seconds(key!("ttft_s"), ended.ttft_ns());
    line.seconds(key!("total_s"), Some(ended.total_ns()));
    line.int(key!("bytes_in"), course.bytes_in);
    line.int(key!("bytes_out"), ended.bytes_out());
    line.end();
}
