//! Where a head ends: lines and fields are counted before anything is parsed.

use memchr::{memchr, memchr_iter};

/// A complete head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes, the final empty line included.
    pub len: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of the first line without CR LF.
    pub line_len: usize,
}

/// What was found of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    Complete(Extent),
    /// Incomplete; the length of the first line, where that is here.
    Partial(Option<usize>),
}

/// What can be wrong with the lines of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A line ends otherwise than with CR LF.
    Line,
    /// The first line is empty.
    Empty,
    /// A field line begins with white space (obs-fold).
    Fold,
    /// Too many fields.
    Fields,
    /// Too many bytes.
    Bytes,
}

/// Measures the head that `data` begins with. One pass over its line ends.
pub(crate) fn measure(
    data: &[u8],
    bytes_max: usize,
    fields_max: usize,
) -> Result<Measured, Problem> {
    let window = &data[..data.len().min(bytes_max)];
    let mut start = 0;
    let mut lines = 0;
    let mut line_len = None;
    for lf in memchr_iter(b'\n', window) {
        if lf == 0 || window[lf - 1] != b'\r' {
            return Err(Problem::Line);
        }
        if lf - start == 1 {
            return match line_len {
                None => Err(Problem::Empty),
                Some(line_len) => Ok(Measured::Complete(Extent {
                    len: lf + 1,
                    fields: lines - 1,
                    line_len,
                })),
            };
        }
        if line_len.is_none() {
            line_len = Some(lf - 1);
        } else if matches!(window[start], b' ' | b'\t') {
            return Err(Problem::Fold);
        }
        lines += 1;
        if lines > fields_max + 1 {
            return Err(Problem::Fields);
        }
        start = lf + 1;
    }
    let line = &window[start..];
    if memchr(b'\r', line).is_some_and(|cr| cr + 1 < line.len()) {
        return Err(Problem::Line);
    }
    if data.len() >= bytes_max {
        return Err(Problem::Bytes);
    }
    Ok(Measured::Partial(line_len))
}
