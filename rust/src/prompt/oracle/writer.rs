//! JSON, written in one of the many ways that mean the same.

use serde_json::Value;

use crate::rng::Rng;

/// Writes a value in one of the many ways: members in any order, space anywhere, any escapes.
pub(super) struct Writer {
    rng: Rng,
    out: String,
}

impl Writer {
    pub(super) fn write(seed: u64, value: &Value) -> Vec<u8> {
        let mut writer = Self {
            rng: Rng::new(seed),
            out: String::new(),
        };
        writer.value(value, false);
        writer.space();
        writer.out.into_bytes()
    }

    fn space(&mut self) {
        let space = ["", "", "", " ", "\n", "\r\n\t "][self.rng.below(6)];
        self.out.push_str(space);
    }

    /// The order of members within `free` JSON is part of the prompt, so it is kept.
    fn value(&mut self, value: &Value, free: bool) {
        self.space();
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.space();
                        self.out.push(',');
                    }
                    self.value(item, free);
                }
                self.space();
                self.out.push(']');
            }
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if !free {
                    for index in (1..members.len()).rev() {
                        members.swap(index, self.rng.below(index + 1));
                    }
                }
                self.out.push('{');
                for (index, (key, value)) in members.into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    self.space();
                    self.string(key);
                    self.space();
                    self.out.push(':');
                    let is_free = ["parameters", "input_schema"].contains(&key.as_str())
                        || key == "input" && value.is_object();
                    self.value(value, free || is_free);
                    self.space();
                }
                self.out.push('}');
            }
            scalar => self.out.push_str(&scalar.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        let eagerness = [0, 2, 30][self.rng.below(3)];
        self.out.push('"');
        for character in text.chars() {
            let must = character < ' ' || character == '"' || character == '\\';
            if !must && self.rng.below(100) >= eagerness {
                self.out.push(character);
            } else if let Some(short) = short_escape(character).filter(|_| self.rng.below(4) > 0) {
                self.out.push_str(short);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let upper = self.rng.below(2) == 0;
                    let unit = if upper {
                        format!("\\u{unit:04X}")
                    } else {
                        format!("\\u{unit:04x}")
                    };
                    self.out.push_str(&unit);
                }
            }
        }
        self.out.push('"');
    }
}

fn short_escape(character: char) -> Option<&'static str> {
    Some(match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '/' => "\\/",
        '\n' => "\\n",
        '\t' => "\\t",
        '\r' => "\\r",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        _ => return None,
    })
}
