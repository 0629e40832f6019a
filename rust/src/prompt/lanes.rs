//! Searches over 16 bytes at a time, in portable vectors.

use wide::u8x16;

/// Bytes in a vector.
const LANES: usize = 16;
/// Bytes in a run of four vectors.
pub(super) const RUN: usize = 4 * LANES;

/// Bit `i` is set where byte `i` ends a run of plain string content: `"`, `\` or a control byte.
#[inline]
fn special(chunk: &[u8; LANES]) -> u32 {
    special_lanes(chunk).to_bitmask()
}

/// As [`special`], for a run of four vectors.
#[inline]
pub(super) fn special_in_run(run: &[u8; RUN]) -> u64 {
    let lanes = run.as_chunks::<LANES>().0;
    (0_u32..).zip(lanes).fold(0, |mask, (index, chunk)| {
        mask | u64::from(special(chunk)) << (16 * index)
    })
}

#[inline]
fn special_lanes(chunk: &[u8; LANES]) -> u8x16 {
    let bytes = u8x16::new(*chunk);
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | control
}

/// The first special byte at `at` or after it; `bytes.len()` where there is none.
#[inline]
pub(super) fn find_special(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    // Most strings are short: names, roles, ids.
    for _ in 0..4 {
        let Some(chunk) = chunk_at(bytes, at) else {
            return find_special_in_rest(bytes, at);
        };
        let mask = special(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += LANES;
    }
    find_special_far(bytes, at)
}

#[inline(never)]
fn find_special_far(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(run) = bytes.get(at..).and_then(|rest| rest.first_chunk::<RUN>()) {
        let lanes = run.as_chunks::<LANES>().0;
        let any = lanes
            .iter()
            .fold(u8x16::splat(0), |any, chunk| any | special_lanes(chunk));
        if any.to_bitmask() != 0 {
            break;
        }
        at += RUN;
    }
    while let Some(chunk) = chunk_at(bytes, at) {
        let mask = special(chunk);
        if mask != 0 {
            return at + mask.trailing_zeros() as usize;
        }
        at += LANES;
    }
    find_special_in_rest(bytes, at)
}

fn find_special_in_rest(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let found = rest
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    found.map_or(bytes.len(), |offset| at + offset)
}

/// The vector that starts at `at`, where one fits.
#[inline]
fn chunk_at(bytes: &[u8], at: usize) -> Option<&[u8; LANES]> {
    bytes.get(at..)?.first_chunk::<LANES>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found_wherever_it_is(length in 0_usize..300, special in prop::collection::btree_map(0_usize..300, prop::sample::select(vec![b'"', b'\\', 0, 0x1f, b'\n']), 0..3), from in 0_usize..300) {
            let mut bytes: Vec<u8> = (0..length).map(|index| [b' ', b'!', b'#', 0x7f, 0x80, 0xff, b'['][index % 7]).collect();
            for (&at, &byte) in &special {
                if let Some(slot) = bytes.get_mut(at) {
                    *slot = byte;
                }
            }
            let expected = special.keys().copied().find(|&at| at >= from && at < length).unwrap_or(length.max(from.min(length)));
            prop_assert_eq!(find_special(&bytes, from.min(length)), expected);
        }
    }
}
