//! Escape sequences of JSON strings.

use super::fault::{Checked, Malformed};

/// The escape sequence at `at`: its length and the character it stands for.
#[inline]
pub(super) fn escape(bytes: &[u8], at: usize) -> Checked<(usize, char)> {
    let letter = bytes.get(at + 1).copied().unwrap_or_default();
    match ESCAPES[usize::from(letter)] {
        0 if letter == b'u' => unicode_escape(bytes, at).map_err(|what| Malformed {
            at,
            what,
            is_bound: false,
        }),
        0 => Err(Malformed {
            at,
            what: "an escape sequence",
            is_bound: false,
        }),
        character => Ok((2, char::from(character))),
    }
}

/// What a letter after a backslash stands for; 0 for none.
pub(super) const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'/' as usize] = b'/';
    table[b'b' as usize] = 0x08;
    table[b'f' as usize] = 0x0c;
    table[b'n' as usize] = b'\n';
    table[b'r' as usize] = b'\r';
    table[b't' as usize] = b'\t';
    table
};

fn unicode_escape(bytes: &[u8], at: usize) -> Result<(usize, char), &'static str> {
    let unit = hex4(bytes, at + 2).ok_or("four hexadecimal digits after '\\u'")?;
    let (length, code) = match unit {
        0xd800..=0xdbff => {
            let is_escape = bytes.get(at + 6..at + 8) == Some(b"\\u");
            let low =
                hex4(bytes, at + 8).filter(|low| is_escape && (0xdc00..=0xdfff).contains(low));
            let low = low.ok_or("a low surrogate after a high one")?;
            (12, 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
        }
        _ => (6, unit),
    };
    let character = char::from_u32(code).ok_or("a high surrogate before a low one")?;
    Ok((length, character))
}

/// Four hexadecimal digits as a number.
fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)?)
    })
}
