//! Fuzz targets: one function for each parser of foreign bytes.
//!
//! A target takes any bytes and panics where a property does not hold. The first bytes choose options
//! and where the rest is cut; the rest is the input of the parser. `../replay.rs` runs every target
//! over its seeds and its stored corpus, `../src/main.rs` under libFuzzer.

mod body;
mod chunked;
mod events;
mod frames;
mod head;
mod merge;
mod messages;
mod metrics;
mod multipart;
mod relay;
mod respell;
mod state;
mod stream;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory in `../corpus`.
    pub name: &'static str,
    /// Checks one input.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "head",
        run: head::run,
        seeds: head::seeds,
    },
    Target {
        name: "chunked",
        run: chunked::run,
        seeds: chunked::seeds,
    },
    Target {
        name: "body",
        run: body::run,
        seeds: body::seeds,
    },
    Target {
        name: "multipart",
        run: multipart::run,
        seeds: multipart::seeds,
    },
    Target {
        name: "relay",
        run: relay::run,
        seeds: relay::seeds,
    },
    Target {
        name: "events",
        run: events::run,
        seeds: events::seeds,
    },
    Target {
        name: "metrics",
        run: metrics::run,
        seeds: metrics::seeds,
    },
    Target {
        name: "messages",
        run: messages::run,
        seeds: messages::seeds,
    },
    Target {
        name: "merge",
        run: merge::run,
        seeds: merge::seeds,
    },
    Target {
        name: "state",
        run: state::run,
        seeds: state::seeds,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
    },
];

/// `data` in pieces: whole for `[0, _]`, else of 1 to `how[0]` bytes, drawn from `how[1]`.
pub fn pieces(data: &[u8], how: [u8; 2]) -> impl Iterator<Item = &[u8]> {
    let most = match how[0] {
        0 => usize::MAX,
        most => usize::from(most),
    };
    let mut state = u32::from(how[1]);
    let mut rest = data;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match most {
            usize::MAX => rest.len(),
            most => 1 + (state >> 16) as usize % most,
        };
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The raw requests or responses of a table in `tests/data`; characters are bytes (latin-1).
pub fn table(json: &str) -> Vec<Vec<u8>> {
    let cases: Vec<serde_json::Value> = serde_json::from_str(json).expect("a list of cases");
    let raw = cases.iter().map(|case| {
        let raw = case["raw"].as_str().unwrap_or_default();
        let fill = &case["fill"];
        let text = fill["text"].as_str().unwrap_or_default();
        let count = fill["count"].as_u64().unwrap_or(0);
        raw.replace("@@", &text.repeat(usize::try_from(count).unwrap_or(0)))
    });
    raw.map(|raw| {
        raw.chars()
            .map(|c| u8::try_from(c).unwrap_or(b'?'))
            .collect()
    })
    .filter(|raw: &Vec<u8>| raw.len() < 20_000)
    .collect()
}

/// Each of `inputs` behind `options`.
pub fn behind(options: &[u8], inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let inputs = inputs.into_iter();
    inputs.map(|input| [options, &input].concat()).collect()
}
