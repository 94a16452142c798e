//! Addresses in playlists and redirections, relative to where they were found.
//!
//! Pure. Only the same server is followed: a load stays where it was aimed at. Spec: RFC 3986 §5.2.

/// The path and query that `reference` means when it was found at the path `base` of `authority`.
/// `None`: it is on another server, or none of HTTP.
pub(crate) fn resolve(authority: &str, base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let base_path = base.split('?').next().unwrap_or_default();
    if let Some(rest) = without_scheme(reference) {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (found, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        return found.eq_ignore_ascii_case(authority).then(|| straighten(&path));
    }
    if reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    if reference.is_empty() {
        return Some(base.to_owned());
    }
    if reference.starts_with('?') {
        return Some(format!("{base_path}{reference}"));
    }
    if reference.starts_with('/') {
        return Some(straighten(reference));
    }
    let folder = base_path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(straighten(&format!("{folder}/{reference}")))
}

/// What is behind `http://`, `https://` or `//`.
fn without_scheme(reference: &str) -> Option<&str> {
    let schemes = ["http://", "https://", "//"];
    schemes.into_iter().find_map(|scheme| reference.strip_prefix(scheme))
}

/// Takes `.` and `..` out of a path.
fn straighten(reference: &str) -> String {
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for part in path.split('/').skip(1) {
        is_folder = matches!(part, "." | "..");
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut straight = format!("/{}", parts.join("/"));
    if is_folder && !straight.ends_with('/') {
        straight.push('/');
    }
    if let Some(query) = query {
        straight.push('?');
        straight.push_str(query);
    }
    straight
}

/// `path` with these parameters behind those it has.
pub(crate) fn query(path: &str, parameters: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_to_the_playlist_they_stand_in() {
        let found = |reference| resolve("h:1", "/live/a/x.m3u8?s=1", reference);
        for (reference, wanted) in [
            ("seg-1.ts", "/live/a/seg-1.ts"),
            ("x/k/seg-1.ts?t=2", "/live/a/x/k/seg-1.ts?t=2"),
            ("../b/y.m3u8", "/live/b/y.m3u8"),
            ("../../../y", "/y"),
            ("./z", "/live/a/z"),
            ("..", "/live/"),
            ("/z?a=/../b", "/z?a=/../b"),
            ("?t=3", "/live/a/x.m3u8?t=3"),
            ("", "/live/a/x.m3u8?s=1"),
            ("http://H:1/z#part", "/z"),
            ("//h:1?q", "/?q"),
        ] {
            assert_eq!(found(reference).as_deref(), Some(wanted), "{reference}");
        }
    }

    #[test]
    fn other_servers_are_not_followed() {
        for reference in
            ["http://other/z", "https://h:2/z", "//h/z", "data:text/plain,a", "ftp://h:1"]
        {
            assert_eq!(resolve("h:1", "/a", reference), None, "{reference}");
        }
    }

    #[test]
    fn parameters_join_those_that_are_there() {
        assert_eq!(query("/a", "b=1"), "/a?b=1");
        assert_eq!(query("/a?c=2", "b=1"), "/a?c=2&b=1");
    }
}
