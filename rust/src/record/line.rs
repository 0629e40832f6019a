//! One line of the access log, as JSON or as `key=value` text.

use crate::prompt::text::shortened;

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No lines.
    Off,
    /// A short line for people.
    Text,
    /// `key=value` pairs; what is absent is `-`, what is not one plain word is quoted as in JSON.
    Logfmt,
    /// One JSON object per line; what is absent is `null`.
    Json,
}

/// A field's name with its punctuation, in both formats.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// With comma, quotes and colon.
    pub json: &'static str,
    /// With space and equals sign.
    pub text: &'static str,
}

/// A [`Key`], put together at compile time; `first` leaves out what separates it from the last.
macro_rules! key {
    (first $name:literal) => {
        $crate::record::line::Key {
            json: concat!("{\"", $name, "\":"),
            text: concat!($name, "="),
        }
    };
    ($name:literal) => {
        $crate::record::line::Key {
            json: concat!(",\"", $name, "\":"),
            text: concat!(" ", $name, "="),
        }
    };
}
pub(super) use key;

/// Writes one line at the end of a buffer, in a format that is fixed at compile time: twenty fields
/// each with a branch on it, and with keys copied by length, cost twice as much.
#[derive(Debug)]
pub struct Line<'a, const JSON: bool> {
    out: &'a mut Vec<u8>,
}

impl<'a, const JSON: bool> Line<'a, JSON> {
    /// Begins a line; the first field's key is a `first` one.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A field whose value needs no escaping.
    #[inline]
    pub fn plain(&mut self, key: Key, value: &[u8]) {
        self.key(key);
        if JSON {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(value);
        if JSON {
            self.out.push(b'"');
        }
    }

    /// A field of any text.
    #[inline]
    pub fn text(&mut self, key: Key, value: Option<&str>) {
        self.key(key);
        match value.map(shortened) {
            None => self.absent(),
            Some(value) if JSON || !is_word(value) => quote(self.out, value),
            Some(value) => self.out.extend_from_slice(value.as_bytes()),
        }
    }

    /// A whole number.
    #[inline]
    pub fn int(&mut self, key: Key, value: u64) {
        self.key(key);
        if value < 10 {
            self.out.push(b'0' + u8::try_from(value).unwrap_or(0));
        } else {
            self.out
                .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// A field whose value is JSON already.
    pub fn raw(&mut self, key: Key, json: &[u8]) {
        self.key(key);
        self.out.extend_from_slice(json);
    }

    /// A yes or no.
    #[inline]
    pub fn bool(&mut self, key: Key, value: bool) {
        self.key(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A duration, in seconds with six digits after the point.
    #[inline]
    pub fn seconds(&mut self, key: Key, value_ns: Option<u64>) {
        let Some(value_ns) = value_ns else {
            self.key(key);
            return self.absent();
        };
        let micros = u32::try_from(value_ns % 1_000_000_000 / 1000).unwrap_or(0);
        self.int(key, value_ns / 1_000_000_000);
        self.out.push(b'.');
        self.out.extend_from_slice(&six_digits(micros));
    }

    /// A duration, in seconds with three digits after the point and the unit; for people.
    pub fn short_seconds(&mut self, key: Key, value_ns: u64) {
        let millis = u32::try_from(value_ns % 1_000_000_000 / 1_000_000).unwrap_or(0);
        self.int(key, value_ns / 1_000_000_000);
        self.out.push(b'.');
        self.out.extend_from_slice(&six_digits(millis)[3..]);
        self.out.push(b's');
    }

    /// Ends the line.
    pub fn end(self) {
        self.out
            .extend_from_slice(if JSON { b"}\n" } else { b"\n" });
    }

    #[inline]
    fn key(&mut self, key: Key) {
        let key = if JSON { key.json } else { key.text };
        self.out.extend_from_slice(key.as_bytes());
    }

    #[inline]
    fn absent(&mut self) {
        self.out
            .extend_from_slice(if JSON { b"null" } else { b"-" });
    }
}

/// A number below a million with its leading zeros.
#[must_use]
#[inline]
pub fn six_digits(value: u32) -> [u8; 6] {
    let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
    [
        digit(value / 100_000),
        digit(value / 10_000),
        digit(value / 1000),
        digit(value / 100),
        digit(value / 10),
        digit(value),
    ]
}

/// Each byte of a word set to `byte`.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Non-zero where a byte of `word` is below `limit`, which is at most 128. A byte's borrow can only mark
/// bytes above one that is itself below the limit: as a test of the whole word it is exact.
const fn any_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(repeated(limit)) & !word & repeated(0x80)
}

/// Non-zero where a byte of `word` is `byte`.
const fn any_equal(word: u64, byte: u8) -> u64 {
    any_below(word ^ repeated(byte), 1)
}

/// Whether a byte must be escaped in a JSON string (RFC 8259 section 7), or should be: DEL.
fn any_escaped(word: u64) -> bool {
    any_below(word, b' ') | any_equal(word, b'"') | any_equal(word, b'\\') | any_equal(word, 0x7f)
        != 0
}

/// Whether a byte keeps a text from standing in a `key=value` line as it is.
fn any_odd(word: u64) -> bool {
    any_escaped(word)
        || any_below(word, b'!') | any_equal(word, b'=') | (word & repeated(0x80)) != 0
}

/// Whether `test` finds a byte, eight at a time: most fields are short, and this is most of a line's cost.
#[inline]
fn holds(bytes: &[u8], test: impl Fn(u64) -> bool) -> bool {
    match bytes.last_chunk::<8>() {
        Some(last) => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .chain([last])
            .any(|word| test(u64::from_ne_bytes(*word))),
        None => bytes.iter().any(|byte| test(repeated(*byte))),
    }
}

fn is_word(value: &str) -> bool {
    !matches!(value, "" | "-") && !holds(value.as_bytes(), any_odd)
}

/// Writes a JSON string.
fn quote(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    out.push(b'"');
    if holds(bytes, any_escaped) {
        escape(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

#[cold]
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            _ if !any_escaped(repeated(byte)) => out.push(byte),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line<const JSON: bool>(value: Option<&str>) -> String {
        let mut out = Vec::new();
        let mut line = Line::<JSON>::begin(&mut out);
        line.text(key!(first "a"), value);
        line.seconds(key!("b"), Some(12_034_567_890));
        line.seconds(key!("c"), None);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_separated_and_absent_ones_are_marked() {
        assert_eq!(
            line::<true>(None),
            "{\"a\":null,\"b\":12.034567,\"c\":null}\n"
        );
        assert_eq!(line::<false>(Some("x:1")), "a=x:1 b=12.034567 c=-\n");
    }

    #[test]
    fn text_that_could_be_taken_for_another_field_is_quoted() {
        for odd in ["", "-", "a b", "a=b", "a\nb", "a\"b", "\u{e9}"] {
            assert!(line::<false>(Some(odd)).starts_with("a=\""), "{odd:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "\u{20ac}".repeat(200);
        let cut = line::<true>(Some(&long));
        assert_eq!(
            cut.matches('\u{20ac}').count(),
            crate::prompt::text::KEPT_BYTES_MAX / 3
        );
    }

    proptest! {
        #[test]
        fn a_json_line_reads_back_as_it_was(value in any::<String>()) {
            let written = line::<true>(Some(&value));
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(shortened(&value)));
            prop_assert_eq!(written.matches('\n').count(), 1);
        }

        #[test]
        fn a_text_line_is_one_line_of_printable_characters(value in any::<String>()) {
            let written = line::<false>(Some(&value));
            prop_assert!(written.ends_with('\n'));
            prop_assert!(!written[..written.len() - 1].chars().any(|c| c.is_ascii_control()));
        }

        #[test]
        fn eight_bytes_at_a_time_find_what_one_at_a_time_finds(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let escaped = |byte: &u8| matches!(byte, 0..b' ' | b'"' | b'\\' | 0x7f);
            let odd = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b'\\' | b'=');
            prop_assert_eq!(super::holds(&bytes, any_escaped), bytes.iter().any(escaped));
            prop_assert_eq!(super::holds(&bytes, any_odd), bytes.iter().any(odd));
        }

        #[test]
        fn six_digits_are_the_padded_number(value in 0..1_000_000u32) {
            prop_assert_eq!(String::from_utf8(six_digits(value).to_vec()).unwrap(), format!("{value:06}"));
        }
    }
}
