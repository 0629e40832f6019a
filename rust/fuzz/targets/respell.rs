//! The same JSON, written otherwise.

/// Valid JSON with other space between its tokens, and some letters of its strings escaped.
pub fn respell(json: &[u8], seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut draw = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                in_string = !in_string;
                out.push(byte);
            }
            b'\\' => {
                out.push(byte);
                out.extend(json.get(at));
                at += 1;
            }
            _ if in_string && byte.is_ascii_alphabetic() && !is_escape_digit(json, at) => {
                if draw(4) == 0 {
                    out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                } else {
                    out.push(byte);
                }
            }
            b' ' | b'\n' | b'\t' | b'\r' if !in_string => {}
            b',' | b':' | b'{' | b'}' | b'[' | b']' if !in_string => {
                space(&mut out, draw(6));
                out.push(byte);
                space(&mut out, draw(6));
            }
            _ => out.push(byte),
        }
    }
    out
}

fn space(out: &mut Vec<u8>, kind: u32) {
    let space: &[u8] = [&b" "[..], b"\n\t", b"\r\n  "]
        .get(kind as usize)
        .copied()
        .unwrap_or_default();
    out.extend_from_slice(space);
}

/// The byte before `at` belongs to the digits of a `\u` escape.
fn is_escape_digit(json: &[u8], at: usize) -> bool {
    (2..=5).any(|back| {
        let Some(start) = at.checked_sub(back + 1) else {
            return false;
        };
        json[start..].starts_with(b"\\u") && backslashes_before(json, start).is_multiple_of(2)
    })
}

fn backslashes_before(json: &[u8], at: usize) -> usize {
    json[..at]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
}
