//! Answers of HTTP/1.1 with a length, as a client that keeps its connection reads them.

const HEAD_BYTES_MAX: usize = 2_000;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Takes the next whole answer out of `input`.
    pub fn take(input: &mut Vec<u8>) -> Result<Option<Self>, String> {
        let Some(end) = input.windows(4).take(HEAD_BYTES_MAX).position(|four| four == b"\r\n\r\n")
        else {
            let is_long = input.len() > HEAD_BYTES_MAX;
            return if is_long { Err("a head without an end".to_owned()) } else { Ok(None) };
        };
        let head = std::str::from_utf8(&input[..end]).map_err(|error| error.to_string())?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no head: {head}"))?;
        let length = field(head, "Content-Length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or_else(|| format!("no length: {head}"))?;
        if input.len() < end + 4 + length {
            return Ok(None);
        }
        let head = head.to_owned();
        let body = input[end + 4..end + 4 + length].to_vec();
        input.drain(..end + 4 + length);
        Ok(Some(Self { status, head, body }))
    }

    /// Whether the connection ends behind it.
    pub fn is_last(&self) -> bool {
        field(&self.head, "Connection") == Some("close")
    }

    pub fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.body).map_err(|error| error.to_string())
    }
}

/// A field of a head.
pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
}
