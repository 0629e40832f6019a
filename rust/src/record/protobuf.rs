//! The wire format of Protocol Buffers, as far as spans need it: writes messages into a buffer.
//!
//! OTLP's field numbers are stable (opentelemetry-proto, from 1.0 on). So a span is written once, as the bytes
//! that a collector takes, and nothing is built of it in between.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LEN: u32 = 2;
const FIXED32: u32 = 5;

/// A number in groups of seven bits.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// Bytes that [`varint`] writes.
fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

/// A field of kind `int32`, `int64`, `bool` or an enumeration.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// A field of kind `fixed64` or `double`.
pub(super) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of kind `fixed32`.
pub(super) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    tag(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of kind `bytes` or `string`.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    open(out, field, value.len());
    out.extend_from_slice(value);
}

/// The beginning of a field that is a message of so many bytes, which follow.
pub(super) fn open(out: &mut Vec<u8>, field: u32, len: usize) {
    tag(out, field, LEN);
    varint(out, len as u64);
}

/// Bytes of a field that is a message of so many bytes.
pub(super) fn len(field: u32, inner: usize) -> usize {
    varint_len(u64::from(field << 3)) + varint_len(inner as u64) + inner
}

/// A field that is a message, which `write` writes.
pub(super) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LEN);
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    let more = varint_len(len as u64) - 1;
    if more > 0 {
        // The length takes more than the byte that was left for it.
        out.resize(out.len() + more, 0);
        out.copy_within(at + 1..at + 1 + len, at + 1 + more);
    }
    let mut value = len;
    for (index, byte) in out[at..=at + more].iter_mut().enumerate() {
        let last = index == more;
        *byte = u8::try_from(value & 0x7f).unwrap_or(0) | if last { 0 } else { 0x80 };
        value >>= 7;
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Int(u64),
    Bool(bool),
    Double(f64),
}

/// A field that is an attribute: `KeyValue` of OTLP's common messages.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: Value<'_>) {
    message(out, field, |out| {
        bytes(out, 1, key.as_bytes());
        message(out, 2, |out| match value {
            Value::Text(text) => bytes(out, 1, text.as_bytes()),
            Value::Bool(on) => number(out, 2, u64::from(on)),
            Value::Int(count) => number(out, 3, count),
            Value::Double(number) => fixed64(out, 4, number.to_bits()),
        });
    });
}

/// Field number, and the place of the bytes or the number, of each field of a message; ends at what is malformed.
pub(super) fn fields(data: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let key = read_varint(&mut rest)?;
        let field = match key & 7 {
            0 => Field::Number(read_varint(&mut rest)?),
            1 => Field::Bytes(take(&mut rest, 8)?),
            2 => {
                let len = usize::try_from(read_varint(&mut rest)?).ok()?;
                Field::Bytes(take(&mut rest, len)?)
            }
            5 => Field::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        Some((key >> 3, field))
    })
}

/// A field as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(taken)
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples_of_the_specification() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        bytes(&mut out, 2, b"testing");
        message(&mut out, 3, |out| number(out, 1, 150));
        let expected = [
            8, 0x96, 1, 0x12, 7, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67, 0x1a, 3, 8, 0x96, 1,
        ];
        assert_eq!(out, expected); // protobuf.dev, "Encoding"
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(numbers in prop::collection::vec(any::<u64>(), 0..8), len in 0..40_000_usize) {
            let mut out = Vec::new();
            message(&mut out, 4, |out| {
                for value in &numbers {
                    number(out, 1, *value);
                }
                bytes(out, 2, &vec![7; len]);
            });
            let all: Vec<_> = fields(&out).collect();
            let [(4, Field::Bytes(inner))] = all[..] else { panic!("{all:?}") };
            let mut read: Vec<_> = fields(inner).collect();
            prop_assert_eq!(read.pop(), Some((2, Field::Bytes(&vec![7; len]))));
            let read: Vec<_> = read.into_iter().map(|(_, field)| field).collect();
            prop_assert_eq!(read, numbers.into_iter().map(Field::Number).collect::<Vec<_>>());
        }

        #[test]
        fn malformed_bytes_end_the_reading(data in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&data).count() <= data.len());
        }
    }
}
