//! What the path of a request means.
//!
//! ```text
//!   /app/stream.flv   /app/stream.mp4   /app/stream.m3u8     a stream, its app may have several levels
//!   /app/stream/KEY/seg-12.m4s                               a file of a packaging run
//! ```
//!
//! Nothing is decoded here: the parts are those of the request, and `live::path` decodes once.

use mux::playlist::Name;
use mux::segment::Container;
use mux::wrap::Wrap;

use crate::access::Suffix;
use crate::framing::FramingKind;

/// Digits of a packaging run's key.
const KEY_DIGITS: usize = 16;
/// Parameters that are ours and not part of a viewer's address.
const OWN_PARAMETERS: [&str; 5] = ["session", "rendition", "_HLS_msn", "_HLS_part", "_HLS_skip"];

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// A stream as it runs.
    Live { app: String, name: String, framing: FramingKind },
    /// A playlist of a stream.
    Playlist { app: String, name: String, query: TokenQuery },
    /// A segment, a part or an init segment.
    File(FileName),
    /// Nothing that is served.
    Unknown,
}

/// A file of a packaging run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileName {
    pub(crate) key: u64,
    pub(crate) name: Name,
}

impl Route {
    /// Reads a raw path and query. `is_websocket`: the request wants one.
    pub(crate) fn read(path: &str, query: &str, is_websocket: bool) -> Self {
        if let Some(file) = FileName::read(path) {
            return Self::File(file);
        }
        let Some((app, file)) = path.trim_start_matches('/').rsplit_once('/') else {
            return Self::Unknown;
        };
        let Some((name, suffix)) = file.rsplit_once('.') else { return Self::Unknown };
        if app.is_empty() || name.is_empty() {
            return Self::Unknown;
        }
        let (app, name) = (app.to_owned(), name.to_owned());
        let framing = match (suffix, is_websocket) {
            ("m3u8", false) => {
                return Self::Playlist { app, name, query: TokenQuery::read(query) };
            }
            ("flv", false) => FramingKind::Flv(Wrap::Chunk),
            ("flv", true) => FramingKind::Flv(Wrap::WebSocket),
            ("mp4", false) => FramingKind::Fmp4(Wrap::Chunk),
            ("mp4", true) => FramingKind::Fmp4(Wrap::WebSocket),
            _ => return Self::Unknown,
        };
        Self::Live { app, name, framing }
    }

    /// The stream asked for, and the kind of address.
    pub(crate) fn stream(&self) -> Option<(&str, &str, Suffix)> {
        match self {
            Self::Live { app, name, framing } => {
                let suffix = match framing {
                    FramingKind::Fmp4(_) => Suffix::Mp4,
                    _ => Suffix::Flv,
                };
                Some((app, name, suffix))
            }
            Self::Playlist { app, name, .. } => Some((app, name, Suffix::M3u8)),
            Self::File(_) | Self::Unknown => None,
        }
    }
}

impl FileName {
    fn read(path: &str) -> Option<Self> {
        let mut levels = path.rsplit('/');
        let (file, key) = (levels.next()?, levels.next()?);
        let is_key = key.len() == KEY_DIGITS
            && key.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        let container = if file.ends_with(".ts") { Container::Ts } else { Container::Fmp4 };
        let name = Name::parse(file, container)?;
        if !is_key {
            return None;
        }
        Some(Self { key: u64::from_str_radix(key, 16).ok()?, name })
    }
}

/// The query of a playlist's address, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TokenQuery {
    /// What the viewer came with: its signature and whatever else is not ours.
    pub(crate) own: String,
    /// The viewer's session, if it has one.
    pub(crate) session: Option<u64>,
    /// The container it wants, if it says.
    pub(crate) container: Option<Container>,
    /// It wants the sound alone.
    pub(crate) is_sound: bool,
}

impl TokenQuery {
    /// Reads a raw query.
    pub(crate) fn read(query: &str) -> Self {
        let mut read = Self { own: String::new(), session: None, container: None, is_sound: false };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value) {
                ("session", value) => read.session = u64::from_str_radix(value, 16).ok(),
                ("rendition", value) => read.is_sound = value == "audio",
                ("container", "ts") => read.container = Some(Container::Ts),
                ("container", "fmp4") => read.container = Some(Container::Fmp4),
                _ => {}
            }
            if !OWN_PARAMETERS.contains(&name) {
                if !read.own.is_empty() {
                    read.own.push('&');
                }
                read.own.push_str(pair);
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(app: &str, name: &str, framing: FramingKind) -> Route {
        Route::Live { app: app.to_owned(), name: name.to_owned(), framing }
    }

    #[test]
    fn the_suffix_tells_the_form_and_the_app_may_have_levels() {
        assert_eq!(
            Route::read("/live/x.flv", "", false),
            live("live", "x", FramingKind::Flv(Wrap::Chunk))
        );
        assert_eq!(
            Route::read("/a/b/x.y.flv", "", true),
            live("a/b", "x.y", FramingKind::Flv(Wrap::WebSocket))
        );
        assert_eq!(
            Route::read("/live/x.mp4", "", true),
            live("live", "x", FramingKind::Fmp4(Wrap::WebSocket))
        );
        assert_eq!(
            Route::read("/live/x.mp4", "", false),
            live("live", "x", FramingKind::Fmp4(Wrap::Chunk))
        );
        let playlist = Route::Playlist {
            app: "live".to_owned(),
            name: "x".to_owned(),
            query: TokenQuery::read("session=7"),
        };
        assert_eq!(Route::read("/live/x.m3u8", "session=7", false), playlist);
    }

    #[test]
    fn what_is_no_stream_is_unknown() {
        for path in
            ["/", "/x.flv", "/live/", "/live/x", "/live/.flv", "/live/x.avi", "//x.flv", "*"]
        {
            assert_eq!(Route::read(path, "", false), Route::Unknown, "{path}");
        }
        assert_eq!(Route::read("/live/x.m3u8", "", true), Route::Unknown);
    }

    #[test]
    fn files_are_named_by_the_key_of_their_run() {
        let file = |path| match Route::read(path, "", false) {
            Route::File(file) => Some(file),
            _ => None,
        };
        let segment = FileName { key: 0x0123_4567_89ab_cdef, name: Name::Segment { sequence: 12 } };
        assert_eq!(file("/live/x/0123456789abcdef/seg-12.ts"), Some(segment));
        assert_eq!(file("/live/x/0123456789abcdef/seg-12.m4s"), Some(segment));
        for path in [
            "/live/x/0123456789ABCDEF/seg-12.ts",
            "/live/x/0123456789abcde/seg-12.ts",
            "/live/x/0123456789abcdef/seg-012.ts",
            "/live/x/0123456789abcdef/other.ts",
        ] {
            assert_eq!(file(path), None, "{path}");
        }
    }

    #[test]
    fn the_viewers_own_query_is_kept_and_ours_is_taken_out() {
        let query =
            TokenQuery::read("auth_key=1-a%2Fb&session=00000000000000ff&_HLS_msn=3&x&container=ts");
        assert_eq!(query.own, "auth_key=1-a%2Fb&x&container=ts");
        assert_eq!(query.session, Some(255));
        assert_eq!(query.container, Some(Container::Ts));
        let sound = TokenQuery::read("a=b&rendition=audio&session=1");
        assert_eq!((sound.own.as_str(), sound.is_sound), ("a=b", true));
        let none = TokenQuery::read("");
        assert_eq!((none.own.as_str(), none.session, none.container), ("", None, None));
    }
}
