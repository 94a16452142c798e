//! A Rust file as lines of code without comments and strings, beside the lines as written.

use std::path::PathBuf;

/// One file, taken apart.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the root of the repository.
    pub path: PathBuf,
    /// Lines as written.
    pub lines: Vec<String>,
    /// The same lines with comments and the inside of literals blanked out.
    pub code: Vec<String>,
    /// For each line, whether it is within an item under `#[cfg(test)]` or `#[test]`.
    pub is_test: Vec<bool>,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: PathBuf, text: String) -> Self {
        let code: Vec<String> = blanked(&text).lines().map(str::to_owned).collect();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let is_test = test_lines(&path, &code);
        Self { path, lines, code, is_test }
    }

    /// Line index at which the block opened on or after `from` closes, or `None` without a block.
    pub fn block_end(&self, from: usize) -> Option<usize> {
        block_end(&self.code, from)
    }
}

fn block_end(code: &[String], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, line) in code.iter().enumerate().skip(from) {
        for character in line.chars() {
            match character {
                ';' if depth == 0 => return None,
                '{' => depth += 1,
                '}' if depth <= 1 => return Some(index),
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    None
}

fn test_lines(path: &std::path::Path, code: &[String]) -> Vec<bool> {
    let is_test_file = path.components().any(|part| {
        let part = part.as_os_str();
        part == "tests" || part == "benches" || part == "fuzz" || part == "tests.rs"
    });
    let mut is_test = vec![is_test_file; code.len()];
    for (index, line) in code.iter().enumerate() {
        let line = line.trim_start();
        let is_attribute = line.starts_with("#[") || line.starts_with("#![");
        let mentions_test = line.contains("(test") || line.contains(" test") || line == "#[test]";
        if !is_attribute || !mentions_test || line.contains("not(test") {
            continue;
        }
        let end = if line.starts_with("#![") { code.len() - 1 } else { item_end(code, index) };
        is_test[index..=end].fill(true);
    }
    is_test
}

/// Last line of the item whose attribute is on line `from`.
fn item_end(code: &[String], from: usize) -> usize {
    let item = (from + 1..code.len())
        .find(|&index| {
            let line = code[index].trim();
            !line.is_empty() && !line.starts_with('#')
        })
        .unwrap_or(from);
    block_end(code, item).unwrap_or_else(|| {
        (item..code.len()).find(|&index| code[index].contains(';')).unwrap_or(item)
    })
}

/// The text with every character of comments, and of literals but for their quotes, as a space.
fn blanked(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = characters.clone();
    let mut at = 0;
    while at < characters.len() {
        let end = token_end(&characters, at);
        if end > at + 1 {
            for place in &mut out[at..end] {
                if *place != '\n' {
                    *place = ' ';
                }
            }
        }
        at = end;
    }
    out.into_iter().collect()
}

/// End of the comment or literal that starts at `at`; `at + 1` for anything else.
fn token_end(text: &[char], at: usize) -> usize {
    let starts = |pattern: &str| text[at..].iter().copied().take(pattern.len()).eq(pattern.chars());
    let is_word = |index: usize| text.get(index).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    if starts("//") {
        return (at..text.len()).find(|&index| text[index] == '\n').unwrap_or(text.len());
    }
    if starts("/*") {
        return comment_end(text, at);
    }
    if starts("\"") {
        return quote_end(text, at + 1, '"');
    }
    if starts("r") && (at == 0 || !is_word(at - 1) || text[at - 1] == 'b') {
        let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
        if text.get(at + 1 + hashes) == Some(&'"') {
            return raw_end(text, at + 2 + hashes, hashes);
        }
    }
    // 'a' is a character, 'a is a lifetime.
    if starts("'") && (text.get(at + 2) == Some(&'\'') || text.get(at + 1) == Some(&'\\')) {
        return quote_end(text, at + 1, '\'');
    }
    at + 1
}

fn comment_end(text: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut index = at;
    while index + 1 < text.len() {
        match (text[index], text[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return index + 2,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
    }
    text.len()
}

fn quote_end(text: &[char], mut index: usize, quote: char) -> usize {
    while index < text.len() {
        match text[index] {
            '\\' => index += 2,
            character if character == quote => return index + 1,
            _ => index += 1,
        }
    }
    text.len()
}

fn raw_end(text: &[char], from: usize, hashes: usize) -> usize {
    let ends_at = |index: usize| {
        text[index] == '"' && text[index + 1..].iter().take_while(|c| **c == '#').count() >= hashes
    };
    (from..text.len()).find(|&index| ends_at(index)).map_or(text.len(), |end| end + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        Source::new("src/a.rs".into(), text.into()).code
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        let text = "a(\"x // { y\"); // {\nb('{', '\\'', r#\"{\"\"#); /* { /* */ } */ c\n&'a str";
        let code = code(text);
        assert_eq!(code[0].trim_end(), "a(          );");
        assert!(!code[1].contains('{') && !code[1].contains('}'), "{}", code[1]);
        assert!(code[1].trim_end().ends_with('c'), "{}", code[1]);
        assert_eq!(code[2], "&'a str");
    }

    #[test]
    fn items_under_cfg_test_are_known() {
        let text = "use std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::io;\n}\nfn f() {}\n\
                    #[cfg(test)]\nuse std::net;\nfn g() {}";
        let source = Source::new("src/a.rs".into(), text.into());
        let expected = [false, true, true, true, true, false, true, true, false];
        assert_eq!(source.is_test, expected);
    }

    #[test]
    fn block_ends_are_found_and_declarations_have_none() {
        let source = Source::new("src/a.rs".into(), "fn f();\nfn g() {\n  if x { y }\n}".into());
        assert_eq!(source.block_end(0), None);
        assert_eq!(source.block_end(1), Some(3));
    }
}
