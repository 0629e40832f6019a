//! How many replicas the work at hand would fill: a signal for those who scale the fleet.
//!
//! The work that replicas have counts as the share of a full batch that it is ([`Replica::fill`]). A held request
//! takes a place in a batch for as long as it runs. So by Little's law its work is that time over the size of a
//! batch, in seconds of a replica. The signal counts as many replicas for what is held as would do it within
//! [`HELD_WITHIN_S`].
//!
//! [`Replica::fill`]: super::replica::Replica::fill

use super::Fleet;
use super::forecast::fleet_line;
use super::member::Member;
use super::models::Model;
use super::replica::Replica;
use crate::engine::config::Config;
use crate::engine::hold::Hold;
use crate::id::ReplicaSlot;
use crate::time::{Instant, Span};

/// Within this time what is held should be done.
const HELD_WITHIN_S: f64 = 60.0;
/// Models with a signal, at most.
const MODELS_MAX: usize = 64;
/// The batch of a fleet that has never been full.
const BATCH_ASSUMED: f64 = 8.0;
const NS_PER_S: f64 = 1e9;

/// How many replicas a model has, and how many it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale<'a> {
    /// Its name.
    pub model: &'a str,
    /// Replicas that the work at hand would fill.
    pub wanted: f64,
    /// Replicas that serve it and may be chosen.
    pub ready: usize,
}

impl<'a> From<Scale<'a>> for (&'a str, f64, usize) {
    fn from(of: Scale<'a>) -> Self {
        (of.model, of.wanted, of.ready)
    }
}

impl Fleet {
    /// Replicas wanted for each model that some list has: the work at all that serve it, and what is held for it
    /// and for models that share their room with it. Beside them those that serve it and are ready.
    pub(in crate::engine) fn wanted(
        &self,
        hold: &Hold,
        config: &Config,
        now: Instant,
    ) -> Vec<Scale<'_>> {
        let mut works: Vec<(Option<ReplicaSlot>, f64)> = Vec::new();
        for line in hold.lines() {
            let model = self.model_of(Some(line.model));
            let each = model.map_or(0.0, |model| self.work_s(model, config));
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let work = each * hold.partition_len(line) as f64 / HELD_WITHIN_S;
            let pool = self.pool_of(Some(line.model));
            match works.iter_mut().find(|(known, _)| *known == pool) {
                Some((_, sum)) => *sum += work,
                None => works.push((pool, work)),
            }
        }
        let fill = |slot: &ReplicaSlot| self.member(*slot).map(|of| of.replica().fill(config, now));
        let models = self.listed_models().take(MODELS_MAX);
        models
            .map(|(_, model)| {
                let pool = model.serving().first().copied();
                let waits = works.iter().find(|(known, _)| *known == pool);
                let runs: f64 = model.serving().iter().filter_map(fill).sum();
                let members = model.serving().iter().filter_map(|slot| self.member(*slot));
                let ready = members.filter(|member| member.ready(config, now)).count();
                Scale {
                    model: model.name(),
                    wanted: runs + waits.map_or(0.0, |(_, work)| *work),
                    ready,
                }
            })
            .collect()
    }

    /// Seconds that a request of a model takes a replica for.
    fn work_s(&self, model: &Model, config: &Config) -> f64 {
        let members = model.serving().iter().filter_map(|slot| self.member(*slot));
        let replicas = members.map(Member::replica);
        let batch = mean(replicas.clone().filter_map(Replica::batch));
        let prompt = mean(replicas.filter_map(Replica::prompt_mean));
        let tokens = f64::from(model.output_mean.unwrap_or(config.output_tokens));
        let assumed_ns = tokens * NS_PER_S / config.decode_tokens_per_s;
        let stay_ns = model.stay_ns.map_or(assumed_ns, Span::ns_f64);
        let ttft_ns = fleet_line(Some(model), 0, config).at(prompt.unwrap_or(0.0));
        (stay_ns + ttft_ns) / NS_PER_S / batch.unwrap_or(BATCH_ASSUMED)
    }
}

fn mean(values: impl Iterator<Item = u32>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| {
        (sum + f64::from(value), count + 1.0)
    });
    (count > 0.0).then_some(sum / count)
}
