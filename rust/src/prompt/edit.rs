//! Changes of a body on its way to an engine.

use std::borrow::Cow;

use smallvec::SmallVec;

/// The same change at every place of a key: engines differ in which of several they take.
pub type Edits = SmallVec<[Edit; 1]>;

/// Bytes that others take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where, as an offset into the body.
    pub at: usize,
    /// Bytes that go.
    pub gone: usize,
    /// Bytes that come.
    pub text: Cow<'static, [u8]>,
}

impl Edit {
    /// `text` put in at `at`.
    pub(super) fn insert(at: usize, text: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            at,
            gone: 0,
            text: text.into(),
        }
    }
}

/// The body with its changes; they lie within it and apart from each other.
#[must_use]
pub fn edited(body: &[u8], mut edits: Vec<&Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.at);
    let more: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    let mut at = 0;
    for edit in edits {
        out.extend_from_slice(body.get(at..edit.at).unwrap_or_default());
        out.extend_from_slice(&edit.text);
        at = edit.at + edit.gone;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    out
}

/// The same edits for a body that `others` have changed. None of these lies within one of those; what both
/// put in at one place comes in this order.
#[must_use]
pub fn moved(edits: &Edits, others: &[&Edit]) -> Edits {
    let mut edits = edits.clone();
    for edit in &mut edits {
        let before = others.iter().filter(|other| other.at < edit.at);
        let (come, gone) = before.fold((0, 0), |(come, gone), other| {
            (come + other.text.len(), gone + other.gone)
        });
        edit.at = edit.at + come - gone; // all that goes lies before it
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_the_order_of_their_places() {
        let edit = |at, gone, text: &'static [u8]| Edit {
            at,
            gone,
            text: Cow::Borrowed(text),
        };
        let (late, early, same) = (edit(6, 2, b"0"), edit(1, 0, b"x"), edit(1, 0, b"y"));
        assert_eq!(
            edited(b"01234567", vec![&late, &early, &same]),
            b"0xy123450"
        );
        assert_eq!(edited(b"", vec![]), b"");
    }

    #[test]
    fn edits_in_two_turns_come_to_the_same_as_in_one() {
        let edit = |at, gone, text: &'static [u8]| Edit {
            at,
            gone,
            text: Cow::Borrowed(text),
        };
        let body = b"0123456789abcdef";
        for others in [
            vec![],
            vec![edit(0, 8, b"")],
            vec![edit(0, 5, b""), edit(6, 2, b"much more")],
            vec![edit(1, 0, b"xx"), edit(15, 1, b"yyyy")],
            vec![edit(7, 0, b"before"), edit(11, 4, b"")],
        ] {
            let others: Vec<&Edit> = others.iter().collect();
            for first in [edit(8, 0, b"salt"), edit(8, 1, b"salt")] {
                let late = Edits::from_iter([first, edit(9, 2, b"again")]);
                let all = late.iter().chain(others.iter().copied()).collect();
                let once = edited(body, all);
                let then = moved(&late, &others);
                let twice = edited(&edited(body, others.clone()), then.iter().collect());
                assert_eq!(
                    String::from_utf8_lossy(&once),
                    String::from_utf8_lossy(&twice)
                );
            }
        }
    }
}
