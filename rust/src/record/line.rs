//! One line of the access log, as JSON or as `key=value` text.

/// Longest text of one field, in bytes before escaping. A model's name is the client's to choose.
const FIELD_BYTES_MAX: usize = 256;

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No lines.
    Off,
    /// `key=value` pairs; what is absent is `-`, what is not one plain word is quoted as in JSON.
    Text,
    /// One JSON object per line; what is absent is `null`.
    Json,
}

/// A field's name with its punctuation, in both formats.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// With leading comma.
    pub json: &'static str,
    /// With leading space.
    pub text: &'static str,
}

/// A [`Key`], put together at compile time.
macro_rules! key {
    ($name:literal) => {
        $crate::record::line::Key {
            json: concat!(",\"", $name, "\":"),
            text: concat!(" ", $name, "="),
        }
    };
}
pub(super) use key;

/// Writes one line at the end of a buffer.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
    /// Bytes of the next key's punctuation to leave out: the first has none before it.
    skip: usize,
}

impl<'a> Line<'a> {
    /// Begins a line.
    pub fn begin(out: &'a mut Vec<u8>, format: Format) -> Self {
        let json = format == Format::Json;
        if json {
            out.push(b'{');
        }
        Self { out, json, skip: 1 }
    }

    /// A field whose value needs no escaping.
    pub fn plain(&mut self, key: Key, value: &[u8]) {
        self.key(key);
        if self.json {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(value);
        if self.json {
            self.out.push(b'"');
        }
    }

    /// A field of any text.
    pub fn text(&mut self, key: Key, value: Option<&str>) {
        self.key(key);
        match value.map(shortened) {
            None => self.absent(),
            Some(value) if self.json || !is_word(value) => quote(self.out, value),
            Some(value) => self.out.extend_from_slice(value.as_bytes()),
        }
    }

    /// A whole number.
    pub fn int(&mut self, key: Key, value: u64) {
        self.key(key);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A duration, in seconds with six digits after the point.
    pub fn seconds(&mut self, key: Key, value_ns: Option<u64>) {
        self.key(key);
        let Some(value_ns) = value_ns else {
            return self.absent();
        };
        let micros = u32::try_from(value_ns % 1_000_000_000 / 1000).unwrap_or(0);
        self.out.extend_from_slice(
            itoa::Buffer::new()
                .format(value_ns / 1_000_000_000)
                .as_bytes(),
        );
        self.out.push(b'.');
        self.out.extend_from_slice(&six_digits(micros));
    }

    /// Ends the line.
    pub fn end(self) {
        self.out
            .extend_from_slice(if self.json { b"}\n" } else { b"\n" });
    }

    fn key(&mut self, key: Key) {
        let key = if self.json { key.json } else { key.text };
        self.out.extend_from_slice(&key.as_bytes()[self.skip..]);
        self.skip = 0;
    }

    fn absent(&mut self) {
        self.out
            .extend_from_slice(if self.json { b"null" } else { b"-" });
    }
}

/// A number below a million with its leading zeros.
#[must_use]
pub fn six_digits(mut value: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    digits
}

/// At most [`FIELD_BYTES_MAX`] bytes of a text, whole characters only.
fn shortened(value: &str) -> &str {
    let mut end = value.len().min(FIELD_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// Whether a text can stand in a `key=value` line as it is.
fn is_word(value: &str) -> bool {
    !value.is_empty()
        && value != "-"
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
}

/// Writes a JSON string (RFC 8259 section 7).
fn quote(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= b' ' && !matches!(byte, b'"' | b'\\' | 0x7f) {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(format: Format, value: Option<&str>) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, format);
        line.text(key!("a"), value);
        line.seconds(key!("b"), Some(12_034_567_890));
        line.seconds(key!("c"), None);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_separated_and_absent_ones_are_marked() {
        assert_eq!(
            line(Format::Json, None),
            "{\"a\":null,\"b\":12.034567,\"c\":null}\n"
        );
        assert_eq!(line(Format::Text, Some("x:1")), "a=x:1 b=12.034567 c=-\n");
    }

    #[test]
    fn text_that_could_be_taken_for_another_field_is_quoted() {
        for odd in ["", "-", "a b", "a=b", "a\nb", "a\"b", "\u{e9}"] {
            assert!(line(Format::Text, Some(odd)).starts_with("a=\""), "{odd:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "\u{20ac}".repeat(200);
        let cut = line(Format::Json, Some(&long));
        assert_eq!(cut.matches('\u{20ac}').count(), FIELD_BYTES_MAX / 3);
    }

    proptest! {
        #[test]
        fn a_json_line_reads_back_as_it_was(value in any::<String>()) {
            let written = line(Format::Json, Some(&value));
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(shortened(&value)));
            prop_assert_eq!(written.matches('\n').count(), 1);
        }

        #[test]
        fn a_text_line_is_one_line_of_printable_characters(value in any::<String>()) {
            let written = line(Format::Text, Some(&value));
            prop_assert!(written.ends_with('\n'));
            prop_assert!(!written[..written.len() - 1].chars().any(|c| c.is_ascii_control()));
        }

        #[test]
        fn six_digits_are_the_padded_number(value in 0..1_000_000u32) {
            prop_assert_eq!(String::from_utf8(six_digits(value).to_vec()).unwrap(), format!("{value:06}"));
        }
    }
}
