//! What receipts say, of requests that are driven by hand.

use serde_json::Value;

use super::spared::{fair, of_tenant};
use super::*;
use crate::engine::config::UnknownModels;
use crate::engine::receipts::End;
use crate::prompt::text::KEPT_BYTES_MAX;

impl Drive {
    fn keep(mut self) -> Self {
        let now = self.now;
        self.router.keep_receipts(64, now);
        self
    }

    /// As the driver does: a receipt is begun, and the effects are noted.
    fn kept(&mut self, ask: &Ask<'_>, digest: Digest) -> Vec<Effect> {
        let (id, now) = (RequestId(self.last_id + 1), self.now);
        let name = format!("r{}", id.0);
        self.router.begin_receipt(id, &name, ask, &digest, now);
        let effects = self.submit_as(*ask, digest);
        self.noted(now, effects)
    }

    /// A request of a tenant that asks for most, which has found no room at a peer.
    fn kept_of_flood(&mut self, family: u64) -> Vec<Effect> {
        let (ask, digest) = of_tenant("flood", family);
        let forwarded = Forwarded {
            hop: 1,
            attempts_left: 1,
            deadline_ns: Some(self.now + 60 * S),
            origin: None,
        };
        let ask = Ask {
            forwarded: Some(forwarded),
            ..ask
        };
        self.kept(&ask, digest)
    }

    fn two_of_polite_run(&mut self) {
        for family in 0..2 {
            let (ask, digest) = of_tenant("polite", family);
            let id = pushed(&self.kept(&ask, digest)).0;
            self.first_byte(id);
        }
    }

    fn noted(&mut self, now: Instant, effects: Vec<Effect>) -> Vec<Effect> {
        self.router.note_effects(&effects, now);
        effects
    }

    fn receipt(&self, id: u64) -> Value {
        let json = self.router.receipt(&format!("r{id}"), self.now);
        serde_json::from_slice(&json.unwrap().unwrap()).unwrap()
    }
}

/// Replica and reason of what was closed to the decision.
fn closed(decision: &Value) -> Vec<(String, String)> {
    let closed = decision["search"]["closed"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = closed
        .iter()
        .map(|of| (text(&of["replica"]), text(&of["why"])));
    pairs.collect()
}

#[test]
fn replicas_that_spare_nothing_for_a_flood_are_called_so() {
    let mut drive = Drive::new(fair(0.5), 2).keep();
    drive.two_of_polite_run();
    let mut held = Vec::new();
    while held.is_empty() {
        let id = drive.last_id + 1;
        assert!(id < 20, "no replica has something pending");
        let effects = drive.kept_of_flood(id);
        drive.first_byte(id);
        held.extend((effects == [hold(id)]).then_some(id));
    }
    let decision = &drive.receipt(held[0])["decisions"][0];
    assert_eq!(decision["search"]["spared_room_only"], true, "{decision}");
    let closed = closed(decision);
    assert_eq!(closed.len(), 2, "{decision}");
    assert!(closed.iter().all(|(_, why)| why == "spared"), "{closed:?}");
}

#[test]
fn of_some_that_spare_room_the_others_are_named_too() {
    let mut drive = Drive::new(fair(0.5), 3).keep();
    drive.two_of_polite_run();
    for id in 3..9 {
        drive.kept_of_flood(id);
        drive.first_byte(id);
    }
    let mut spared = 0;
    for id in 1..=drive.last_id {
        for decision in drive.receipt(id)["decisions"].as_array().unwrap() {
            let search = &decision["search"];
            if search.is_null() {
                continue;
            }
            let shown = search["candidates"].as_array().unwrap().len() + closed(decision).len();
            assert_eq!(shown, 3, "each replica stands somewhere: {decision}");
            spared += closed(decision)
                .iter()
                .filter(|(_, why)| why == "spared")
                .count();
        }
    }
    assert!(spared > 0);
}

#[test]
fn a_replica_that_light_requests_fill_is_at_its_most_in_flight() {
    let filled = Config {
        in_flight_max: 2,
        ..config()
    };
    let mut drive = Drive::new(filled, 1).keep();
    for _ in 0..2 {
        pushed(&drive.kept(&ask(Route::Tokenize), digest("m", &[])));
    }
    let held = drive.kept(&ask(Route::ChatCompletions), digest("m", &[1, 2]));
    assert_eq!(held, [hold(3)]);
    let receipt = drive.receipt(3);
    let why = closed(&receipt["decisions"][0]);
    assert_eq!(
        why,
        [("http://replica-0".to_owned(), "in_flight_max".to_owned())]
    );
}

#[test]
fn the_reason_of_a_hold_is_the_one_for_which_it_was_held() {
    let mut drive = Drive::new(config(), 1).keep();
    drive.router.set_looks(true);
    let asked = |model| digest(model, &[]);
    let why = |drive: &mut Drive, model| {
        let effects = drive.kept(&ask(Route::ChatCompletions), asked(model));
        let id = drive.last_id;
        assert!(effects.contains(&hold(id)), "{effects:?}");
        let receipt = drive.receipt(id);
        receipt["decisions"][0]["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(why(&mut drive, "new"), "lists_are_read");
    let first = drive.kept(&ask(Route::ChatCompletions), asked("m"));
    assert_eq!(pushed(&first).0, 2);
    assert_eq!(why(&mut drive, "m"), "no_room");
    // The model of the first comes into a list: it waits for room, and no longer for the list.
    let now = drive.now;
    let effects = drive.set_models(0, &["m", "new"]);
    drive.noted(now, effects);
    let receipt = drive.receipt(1);
    let decisions = receipt["decisions"].as_array().unwrap();
    assert_ne!(
        decisions.last().unwrap()["why"],
        "lists_are_read",
        "{receipt}"
    );
}

#[test]
fn a_name_that_some_replica_takes_unseen_is_not_said_to_wait_for_lists() {
    let passes = Config {
        unknown_models: UnknownModels::Pass,
        in_flight_max: 1,
        ..config()
    };
    let mut drive = Drive::new(passes, 1).keep();
    pushed(&drive.kept(&ask(Route::ChatCompletions), digest("m", &[])));
    drive.kept(&ask(Route::ChatCompletions), digest("m", &[]));
    let held = drive.kept(&ask(Route::ChatCompletions), digest("unseen", &[]));
    assert_eq!(held, [hold(3)]);
    assert_ne!(drive.receipt(3)["decisions"][0]["why"], "lists_are_read");
}

#[test]
fn a_failure_stands_on_the_attempt_and_all_stays_in_the_hold_add_up() {
    let mut drive = Drive::new(
        Config {
            attempts_max: 64,
            ..config()
        },
        1,
    )
    .keep();
    pushed(&drive.kept(&ask(Route::ChatCompletions), digest("m", &[7])));
    let id = drive.last_id;
    let mut held_ns = 0;
    for _ in 0..12 {
        // The replica says that it is full, and after a while has room again.
        let now = drive.now;
        let effects = drive.retry(id, Failure::Full, true);
        drive.router.note_failure(RequestId(id), Failure::Full, now);
        if drive.noted(now, effects) != [hold(id)] {
            break;
        }
        let began = now;
        let mut effects = Vec::new();
        while effects.is_empty() {
            let now = drive.now + S;
            drive.observe(0, idle());
            effects = drive.tick_at(now);
            drive.noted(now, effects.clone());
            if drive.now - began > 60 * S {
                break;
            }
        }
        if effects.is_empty() || !matches!(effects[0], Effect::Push(_)) {
            break;
        }
        held_ns += (drive.now - MS - began).ns();
    }
    let receipt = drive.receipt(id);
    let decisions = receipt["decisions"].as_array().unwrap();
    for decision in decisions {
        let begins = decision["result"] == "push";
        assert!(begins || decision["failed"].is_null(), "{decision}");
    }
    assert!(receipt["held_ns"].as_u64().unwrap() >= held_ns, "{receipt}");
}

#[test]
fn a_model_s_name_is_kept_in_part_only() {
    let mut drive = Drive::new(config(), 1).keep();
    let long = "m".repeat(1 << 20);
    rejected(&drive.kept(&ask(Route::ChatCompletions), digest(&long, &[])));
    let receipt = drive.receipt(1);
    assert_eq!(receipt["model"].as_str().unwrap().len(), KEPT_BYTES_MAX);
}

#[test]
fn a_request_that_the_balancer_gives_up_is_not_called_left_by_its_client() {
    let mut drive = Drive::new(config(), 1).keep();
    pushed(&drive.kept(&ask(Route::ChatCompletions), digest("m", &[])));
    let now = drive.now;
    drive.end(1, Outcome::GivenUp);
    let end = End {
        at_ns: now,
        outcome: Outcome::GivenUp,
        status: 0,
        usage: Usage::default(),
    };
    drive.router.note_end(RequestId(1), end);
    assert_eq!(drive.receipt(1)["end"]["outcome"], "given_up");
    assert_eq!(drive.counter("completed_client_left"), 1);
}
