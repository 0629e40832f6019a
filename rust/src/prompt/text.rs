//! Texts that clients choose, as far as they are kept.

/// Bytes that are kept of a text.
pub const KEPT_BYTES_MAX: usize = 256;

/// At most [`KEPT_BYTES_MAX`] bytes of a text, whole characters only.
#[must_use]
pub fn shortened(value: &str) -> &str {
    let mut end = value.len().min(KEPT_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}
