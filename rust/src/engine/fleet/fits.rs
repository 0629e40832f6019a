//! Whether a held request may use the room of a replica.

use super::member::Offer;
use crate::engine::choose::policy::Slot;
use crate::engine::config::Config;
use crate::engine::fleet::Fleet;
use crate::engine::requests::request::Request;
use crate::id::Nanos;

/// The request may go to this replica: it has not failed there, or nowhere else is one ready, and it
/// does not wait for a peer's room.
pub(in crate::engine) fn fits(
    fleet: &Fleet,
    config: &Config,
    request: &Request,
    slot: Slot,
    now_ns: Nanos,
) -> bool {
    let Some(member) = fleet.member(slot) else {
        return false;
    };
    if !request.may_use(member.region_bit) || request.is_leaving(now_ns) {
        return false;
    }
    if !request.tried.contains(&member.id) {
        return true;
    }
    let model = request.model.and_then(|id| fleet.models.get(id.0 as usize));
    let serving = model.map_or(&[][..], |model| &model.serving);
    let untried = serving.iter().filter_map(|&slot| fleet.member(slot));
    !untried
        .filter(|member| request.bound.is_none_or(|bound| bound == member.id))
        .filter(|member| request.may_use(member.region_bit))
        .filter(|member| !request.tried.contains(&member.id))
        .any(|member| member.offer(request.lane, config, now_ns) != Offer::None)
}
