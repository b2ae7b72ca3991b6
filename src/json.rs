//! JSON for people: indented without being parsed, so that numbers, escapes and the order of keys stay as they came.

/// The text of one JSON value, indented by two blanks a level; `text` is valid JSON.
pub fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut chars = text.chars().peekable();
    let mut level = 0;
    let line = |out: &mut String, level: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", level));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    level += 1;
                    line(&mut out, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                line(&mut out, level);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, level);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::indented;

    #[test]
    fn nothing_but_blanks_changes() {
        let text = r#"{"a":[1,2.50,{"b":"x, {y}: \"z\""}],"e":{ },"l":[ ],"big":12345678901234567890123,"u":"\u00e9"}"#;
        let shown = indented(text);
        assert_eq!(
            shown,
            "{\n  \"a\": [\n    1,\n    2.50,\n    {\n      \"b\": \"x, {y}: \\\"z\\\"\"\n    }\n  ],\n  \"e\": {},\n  \"l\": [],\n  \
             \"big\": 12345678901234567890123,\n  \"u\": \"\\u00e9\"\n}"
        );
        assert_eq!(indented("\"a\""), "\"a\"");
    }
}
