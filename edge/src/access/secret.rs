//! Keys of domains: where they are read from, and how they are kept from being printed.
//!
//! A [`SecretText`] shows itself as `***` wherever it could be printed or serialised; only the store and
//! the schemes ask for its text, by name. What people see of a key is its [`SecretText::fingerprint`],
//! which tells whether two servers have the same key and nothing else.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest key, in bytes: room for a private key in PEM, and a bound for files named by mistake.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Box<str>);

impl SecretText {
    /// Takes a text without the line end that editors put behind it.
    ///
    /// # Errors
    /// A phrase; it does not hold the text.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err("the key is empty");
        }
        if text.len() > SECRET_BYTES_MAX {
            return Err("the key is longer than 16384 bytes");
        }
        Ok(Self(Box::from(text)))
    }

    /// The secret itself, for computing with it and for the store. Not for logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Eight hexadecimal digits that differ for different keys.
    pub fn fingerprint(&self) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"ringcast key fingerprint\0");
        context.update(self.0.as_bytes());
        let digest = context.finish();
        digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Any, so that a wrong type comes to the visitor, which does not repeat it.
        deserializer.deserialize_any(KeyVisitor)
    }
}

/// Takes text only, and never repeats in an error what it was given instead.
struct KeyVisitor;

impl serde::de::Visitor<'_> for KeyVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key as a string in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretText, E> {
        SecretText::new(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretText, E> {
        Err(E::custom("a key is a string in quotes"))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<SecretText, E> {
        Err(E::custom("a key is a string in quotes"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<SecretText, E> {
        Err(E::custom("a key is a string in quotes"))
    }
}

/// Where one key is: written in place, in a file, or in an environment variable.
#[derive(Copy, Clone, Debug)]
pub struct KeyPlace<'s> {
    /// Name of the field, for messages: `key` or `backup_key`.
    pub name: &'static str,
    /// Written in place.
    pub text: Option<&'s SecretText>,
    /// First line of a file, or all of it.
    pub file: Option<&'s Path>,
    /// An environment variable of the server.
    pub env: Option<&'s str>,
}

impl KeyPlace<'_> {
    /// How many of the three are set.
    pub fn count(&self) -> usize {
        [self.text.is_some(), self.file.is_some(), self.env.is_some()]
            .iter()
            .filter(|s| **s)
            .count()
    }

    /// Reads the key; `None` if none is configured.
    ///
    /// # Errors
    /// A phrase that names the place and never the key.
    pub fn read(&self) -> Result<Option<SecretText>, String> {
        let name = self.name;
        if self.count() > 1 {
            return Err(format!("set only one of {name}, {name}_file and {name}_env"));
        }
        if let Some(text) = self.text {
            return Ok(Some(text.clone()));
        }
        if let Some(path) = self.file {
            let at = |error: &str| format!("{name}_file {}: {error}", path.display());
            let text = read_file(path).map_err(|error| at(&error))?;
            return SecretText::new(&text).map(Some).map_err(at);
        }
        if let Some(variable) = self.env {
            let at = |error: &str| format!("{name}_env {variable}: {error}");
            let text = std::env::var(variable).map_err(|_| at("the variable is not set"))?;
            return SecretText::new(&text).map(Some).map_err(at);
        }
        Ok(None)
    }

    /// Where it is, for people.
    pub fn shown(&self) -> String {
        match (self.file, self.env) {
            (Some(path), _) => format!("file {}", path.display()),
            (_, Some(variable)) => format!("environment variable {variable}"),
            _ => "written in place".to_owned(),
        }
    }
}

/// A whole file of at most [`SECRET_BYTES_MAX`], as text.
///
/// # Errors
/// What the system said.
pub fn read_file(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.len() > SECRET_BYTES_MAX as u64 {
        return Err(format!("larger than {SECRET_BYTES_MAX} bytes"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_itself_as_stars_and_by_its_fingerprint_only() {
        let key = SecretText::new("5d41402abc4b2a76").unwrap();
        let shown = format!("{key:?}{}{}", serde_json::to_string(&key).unwrap(), key.fingerprint());
        assert!(!shown.contains("5d41402abc"), "{shown}");
        assert_eq!(key.fingerprint().len(), 8);
        assert_ne!(key.fingerprint(), SecretText::new("5d41402abc4b2a77").unwrap().fingerprint());
    }

    #[test]
    fn a_key_of_the_wrong_type_is_not_repeated_in_the_error() {
        for json in ["12345678", "1234.5678", "-12345678"] {
            let error = serde_json::from_str::<SecretText>(json).unwrap_err().to_string();
            assert!(!error.contains("5678") && error.contains("string in quotes"), "{error}");
        }
    }

    #[test]
    fn a_key_is_read_from_exactly_one_place_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "sesame\n").unwrap();
        let none = KeyPlace { name: "key", text: None, file: None, env: None };
        assert_eq!(none.read(), Ok(None));
        let file = KeyPlace { file: Some(&path), ..none };
        assert_eq!(file.read().unwrap().unwrap().expose(), "sesame");
        let two = KeyPlace { env: Some("PATH"), ..file };
        assert!(two.read().unwrap_err().contains("only one of key, key_file and key_env"));
        let unset = KeyPlace { env: Some("RINGCAST_NO_SUCH_VARIABLE"), ..none };
        assert!(unset.read().unwrap_err().contains("not set"));
        fs::write(&path, "\n").unwrap();
        assert!(file.read().unwrap_err().ends_with("the key is empty"));
    }
}
