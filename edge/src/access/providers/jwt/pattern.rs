//! Patterns of `app/name`: `*` within a level, `**` for any levels.
//!
//! Each kind of star is matched by the usual loop that returns to the last star only, so the time is at
//! most levels × characters, whatever the pattern; nothing is allocated.

/// Whether a pattern names a stream. One slash at the start of the pattern means nothing.
pub(super) fn matches(pattern: &str, [app, name]: [&str; 2]) -> bool {
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let mut wanted = pattern.split('/');
    // The levels of the app, then the name, which has no slash.
    let mut levels = app.split('/').chain(std::iter::once(name));
    // What to try next if the levels after the last `**` do not fit: one level more for it.
    let mut again: Option<(std::str::Split<'_, char>, _)> = None;
    loop {
        let before = levels.clone();
        match (wanted.next(), levels.next()) {
            (Some("**"), _) => {
                levels = before;
                again = Some((wanted.clone(), levels.clone()));
            }
            (Some(pattern), Some(level)) if level_matches(pattern, level) => {}
            (None, None) => return true,
            _ => {
                let Some((after, start)) = &mut again else { return false };
                if start.next().is_none() {
                    return false;
                }
                wanted = after.clone();
                levels = start.clone();
            }
        }
    }
}

fn level_matches(pattern: &str, level: &str) -> bool {
    let (pattern, level) = (pattern.as_bytes(), level.as_bytes());
    let (mut at, mut in_level) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while in_level < level.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                again = Some((at, in_level));
            }
            Some(byte) if *byte == level[in_level] => {
                at += 1;
                in_level += 1;
            }
            _ => {
                let Some((after, start)) = &mut again else { return false };
                *start += 1;
                at = *after;
                in_level = *start;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_characters_of_a_level_and_double_stars_for_levels() {
        for (pattern, path, expected) in [
            ("live/room", ["live", "room"], true),
            ("/live/room", ["live", "room"], true),
            ("live/room", ["live", "room2"], false),
            ("live/room", ["live2", "room"], false),
            ("live/Room", ["live", "room"], false),
            ("live/*", ["live", "room"], true),
            ("live/*", ["live/sub", "room"], false),
            ("*", ["live", "room"], false),
            ("*/*", ["live", "room"], true),
            ("**", ["live/sub", "room"], true),
            ("live/**", ["live/sub", "room"], true),
            ("live/**", ["live", "room"], true),
            ("live/**", ["lively", "room"], false),
            ("**/room", ["a/b/c", "room"], true),
            ("**/room", ["a/b/room", "x"], false),
            ("a/**/c/*", ["a/c/b/c", "x"], true),
            ("a/**/c/*", ["a/b", "x"], false),
            ("**/**/x", ["a", "x"], true),
            ("live/r*m", ["live", "room"], true),
            ("live/r*m", ["live", "roomy"], false),
            ("live/*o*m*", ["live", "room-1"], true),
            ("live/a*b*c", ["live", "aXbYbZc"], true),
            ("live/室*", ["live", "室1"], true),
            ("live/room/", ["live", "room"], false),
            ("", ["live", "room"], false),
            ("live", ["live", "room"], false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = format!("{}b", "*a".repeat(2_000));
        assert!(!matches(&pattern, ["x", &"a".repeat(256)]));
        let pattern = format!("{}b/c", "**/a/".repeat(1_000));
        assert!(!matches(&pattern, [&["a"; 128].join("/"), "a"]));
    }
}
