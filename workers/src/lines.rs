//! Events as lines (NDJSON), byte for byte. A document may have line breaks between its tokens, where JSON takes any white
//! space: in a line they stand as other white space that tells them again. A reader of JSON sees the same value.

/// Appends a document as one line, with its end: `\n` becomes `\r` and a space, `\r` becomes `\r` and a tab.
/// (Inside a string neither can stand as it is: RFC 8259 section 7.)
pub fn write(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 1);
    for byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\r "),
            b'\r' => out.extend_from_slice(b"\r\t"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\n');
}

/// The document of a line, which may end in `\n` or, as other systems write it, in `\r\n`.
pub fn read(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let meant = match (byte, bytes.peek()) {
            (b'\r', Some(b' ')) => b'\n',
            (b'\r', Some(b'\t')) => b'\r',
            _ => {
                text.push(byte);
                continue;
            }
        };
        bytes.next();
        text.push(meant);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again_from_one_line(text in "[{}a\" \t\r\n]*") {
            let mut line = Vec::new();
            write(text.as_bytes(), &mut line);
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            prop_assert_eq!(read(&line), text.as_bytes());
            // The last line of a file may have no end, and one from elsewhere may end otherwise.
            line.pop();
            prop_assert_eq!(read(&line), text.as_bytes());
            line.extend_from_slice(b"\r\n");
            prop_assert_eq!(read(&line), text.as_bytes());
        }
    }

    #[test]
    fn a_line_is_the_same_json() {
        let text = "{\"a\":\r\n [1,\n\t2] }\n";
        let mut line = Vec::new();
        write(text.as_bytes(), &mut line);
        let parsed = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        assert_eq!(parsed(&line), parsed(text.as_bytes()));
    }
}
