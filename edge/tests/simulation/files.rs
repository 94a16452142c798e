//! What viewers of HLS were given under each address: the same for everybody, for ever.

use std::collections::HashMap;
use std::rc::Rc;

use super::playlist::{Playlist, Segment};

/// Looked up by address alone, never walked: the run does not depend on how addresses hash.
#[derive(Debug, Default)]
pub struct Files {
    bodies: HashMap<String, Rc<[u8]>>,
    segments: HashMap<String, Segment>,
}

impl Files {
    pub fn has(&self, uri: &str) -> bool {
        self.bodies.contains_key(uri)
    }

    /// A body that somebody was given.
    pub fn take(&mut self, uri: &str, body: &[u8]) -> Result<(), String> {
        match self.bodies.get(uri) {
            Some(known) if **known == *body => Ok(()),
            Some(known) => Err(format!(
                "{uri} of {} bytes is not the {} bytes another viewer was given",
                body.len(),
                known.len()
            )),
            None => {
                self.bodies.insert(uri.to_owned(), body.into());
                Ok(())
            }
        }
    }

    /// A segment as a playlist has it, with the parts that somebody loaded: it is what they are, joined.
    pub fn tell(&mut self, playlist: &Playlist) -> Result<(), String> {
        for segment in &playlist.segments {
            let known = self.segments.entry(segment.uri.clone()).or_insert_with(|| segment.clone());
            // Parts are listed for the newest segments only.
            if segment.parts.len() > known.parts.len() {
                known.parts.clone_from(&segment.parts);
            }
            let told = Segment { parts: known.parts.clone(), ..segment.clone() };
            if told != *known {
                return Err(format!("{known:?} was told to another viewer as {told:?}"));
            }
            self.compare_parts(segment)?;
        }
        Ok(())
    }

    fn compare_parts(&self, segment: &Segment) -> Result<(), String> {
        let Some(whole) = self.bodies.get(&segment.uri) else { return Ok(()) };
        let mut rest = &whole[..];
        for uri in &segment.parts {
            let Some(part) = self.bodies.get(uri) else { return Ok(()) };
            rest = rest
                .strip_prefix(&**part)
                .ok_or_else(|| format!("{uri} is no part of {}", segment.uri))?;
        }
        if rest.is_empty() || segment.parts.is_empty() {
            Ok(())
        } else {
            Err(format!("{} goes on for {} bytes behind its parts", segment.uri, rest.len()))
        }
    }
}
