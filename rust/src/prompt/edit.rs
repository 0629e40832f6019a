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
}
