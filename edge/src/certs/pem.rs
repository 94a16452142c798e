//! Cuts a PEM file into its sections and remembers the line each begins on.
//!
//! Decoding is left to the TLS library; this exists so that a message can say where in the file something
//! is wrong. Called by [`super::pair`] only, on files of bounded size.

/// One `-----BEGIN X-----` to `-----END X-----`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Section<'a> {
    /// What stands after BEGIN.
    pub label: &'a str,
    /// Line of its BEGIN, from 1.
    pub line: usize,
    /// All of it, both markers included.
    pub text: &'a str,
}

/// All sections in file order. What stands between them is ignored, as every reader of PEM does.
///
/// # Errors
/// What is wrong, with its line.
pub(crate) fn sections(text: &str) -> Result<Vec<Section<'_>>, String> {
    let mut found = Vec::new();
    // Label, line and offset of the section that is open.
    let mut open: Option<(&str, usize, usize)> = None;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let (start, number) = (offset, index + 1);
        offset += line.len();
        let line = line.trim_start_matches('\u{feff}').trim();
        if let Some(label) = marker(line, "-----BEGIN ") {
            if let Some((label, began, _)) = open {
                return Err(format!("line {number}: {label} of line {began} has no END before it"));
            }
            open = Some((label, number, start));
        } else if let Some(label) = marker(line, "-----END ") {
            match open.take() {
                Some((began_label, line, start)) if began_label == label => {
                    found.push(Section { label, line, text: &text[start..offset] });
                }
                Some((other, began, _)) => {
                    return Err(format!("line {number}: END {label} ends {other} of line {began}"));
                }
                None => return Err(format!("line {number}: END {label} without its BEGIN")),
            }
        }
    }
    match open {
        Some((label, line, _)) => Err(format!("line {line}: {label} has no END; half written?")),
        None => Ok(found),
    }
}

fn marker<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_know_their_lines_whatever_stands_between_them() {
        let text = "bag attributes\r\n-----BEGIN A-----\r\nAA==\r\n-----END A-----\r\n\r\n# note\n\
                    -----BEGIN B C-----\nAA==\n-----END B C-----";
        let found = sections(text).unwrap();
        let told: Vec<_> = found.iter().map(|section| (section.label, section.line)).collect();
        assert_eq!(told, [("A", 2), ("B C", 7)]);
        assert!(found[0].text.starts_with("-----BEGIN A") && found[0].text.ends_with("A-----\r\n"));
    }

    #[test]
    fn a_file_that_stops_in_the_middle_is_told_with_the_line_it_began_on() {
        for (text, expected) in [
            ("x\n-----BEGIN A-----\nAA", "line 2: A has no END; half written?"),
            ("-----BEGIN A-----\n-----BEGIN B-----\n", "line 2: A of line 1 has no END before it"),
            ("-----BEGIN A-----\n-----END B-----\n", "line 2: END B ends A of line 1"),
            ("-----END B-----\n", "line 1: END B without its BEGIN"),
        ] {
            assert_eq!(sections(text).unwrap_err(), expected);
        }
        assert_eq!(sections("no PEM at all").unwrap(), []);
    }
}
