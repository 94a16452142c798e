//! Answers of the server as people read them. Names come from peers: nothing they hold steers the terminal.

use std::fmt::Write as _;

use serde_json::Value;

pub(crate) fn render_status(status: &Value) -> String {
    let mut out = format!(
        "Ringcast {}  {}  up {}\n{} connections: {} publishers, {} subscribers; {} streams\n\
         received {}, sent {}\n",
        text(&status["version"]),
        text(&status["status"]),
        duration(&status["uptime_ms"]),
        status["connections"],
        status["publishers"],
        status["subscribers"],
        status["streams"],
        size(&status["ingress_bytes"]),
        size(&status["egress_bytes"]),
    );
    let rows = items(&status["workers"]).map(|worker| {
        let healthy = if worker["healthy"] == true { "yes" } else { "NO" };
        let busy = worker["busy_ratio"].as_f64().unwrap_or(0.0) * 100.0;
        [
            text(&worker["worker"]),
            healthy.into(),
            format!("{busy:.0}%"),
            text(&worker["connections"]),
            text(&worker["restarts"]),
        ]
    });
    out.push_str(&table(["worker", "healthy", "busy", "connections", "restarts"], rows));
    out
}

pub(crate) fn render_streams(page: &Value) -> String {
    let head = ["vhost", "stream", "state", "video", "audio", "kb/s", "subs", "lag ms", "up"];
    let rows = items(&page["items"]).map(|stream| {
        let bits = ["video_bitrate_bps", "audio_bitrate_bps"].map(|key| number(&stream[key]));
        let picture = match (stream["width"].as_u64(), stream["height"].as_u64()) {
            (Some(width), Some(height)) => format!(" {width}x{height}"),
            _ => String::new(),
        };
        [
            text(&stream["vhost"]),
            format!("{}/{}", text(&stream["app"]), text(&stream["name"])),
            text(&stream["state"]),
            format!("{}{picture}", text(&stream["video_codec"])),
            text(&stream["audio_codec"]),
            (bits.iter().sum::<u64>() / 1_000).to_string(),
            text(&stream["subscribers"]),
            text(&stream["lag_ms_max"]),
            duration(&stream["uptime_ms"]),
        ]
    });
    table(head, rows) + &footer(page)
}

pub(crate) fn render_clients(page: &Value) -> String {
    let head = ["id", "role", "stream", "peer", "in", "out", "lag ms", "skips", "up", "agent"];
    let rows = items(&page["items"]).map(|client| {
        let stream = match (client["app"].as_str(), client["stream"].as_str()) {
            (Some(app), Some(stream)) => format!("{app}/{stream}"),
            (Some(app), None) => app.to_owned(),
            _ => "-".to_owned(),
        };
        [
            text(&client["id"]),
            text(&client["role"]),
            printable(&stream),
            text(&client["peer"]),
            size(&client["bytes_in"]),
            size(&client["bytes_out"]),
            text(&client["lag_ms"]),
            text(&client["skips"]),
            duration(&client["uptime_ms"]),
            text(&client["flash_ver"]),
        ]
    });
    table(head, rows) + &footer(page)
}

pub(crate) fn render_certs(page: &Value) -> String {
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let head = ["certificate", "state", "ends", "in", "key", "host names", "file"];
    let rows = items(&page["items"]).map(|cert| {
        let names: Vec<_> = items(&cert["names"]).map(text).collect();
        let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(" ");
        let more = match names.len().saturating_sub(3) {
            0 => String::new(),
            more => format!(" +{more}"),
        };
        let left = cert["not_after_unix_s"].as_u64().map(|end| match end.checked_sub(now_s) {
            Some(left) => duration(&(left * 1_000).into()),
            None => "over".to_owned(),
        });
        [
            format!(
                "{}{}",
                text(&cert["name"]),
                if cert["is_default"] == true { " *" } else { "" }
            ),
            text(&cert["state"]),
            text(&cert["not_after"]),
            left.unwrap_or_else(|| "-".to_owned()),
            text(&cert["key_type"]),
            shown + &more,
            text(&cert["cert_file"]),
        ]
    });
    let mut out = table(head, rows);
    for cert in items(&page["items"]) {
        for (kind, message) in std::iter::once(("error", &cert["error"]))
            .filter(|(_, message)| !message.is_null())
            .chain(items(&cert["warnings"]).map(|warning| ("warning", warning)))
        {
            let _ = writeln!(out, "{kind}: {}: {}", text(&cert["name"]), text(message));
        }
    }
    if items(&page["items"]).any(|cert| cert["is_default"] == true) {
        out.push_str("* for clients that ask for no name or an unknown one\n");
    }
    out + &footer(page)
}

pub(crate) fn render_reload(report: &Value) -> String {
    let mut out = String::new();
    for (key, title) in [("changed", "changed"), ("restart_required", "needs a restart")] {
        for change in items(&report[key]) {
            let (name, from, to) =
                (text(&change["key"]), text(&change["from"]), text(&change["to"]));
            let _ = writeln!(out, "{title}: {name}: {from} -> {to}");
        }
    }
    for warning in items(&report["warnings"]) {
        let _ = writeln!(out, "warning: {}", text(warning));
    }
    let certificates = &report["certificates"];
    for (key, title) in [("loaded", "taken"), ("removed", "removed"), ("failed_total", "refused")] {
        if number(&certificates[key]) > 0 {
            let _ = writeln!(out, "certificates {title}: {}", certificates[key]);
        }
    }
    for failure in items(&certificates["failed"]) {
        let _ = writeln!(out, "  {}: {}", text(&failure["name"]), text(&failure["error"]));
    }
    for problem in items(&certificates["problems"]) {
        let _ = writeln!(out, "warning: {}", text(problem));
    }
    if out.is_empty() { "nothing changed\n".to_owned() } else { out }
}

pub(crate) fn render_fields(value: &Value) -> String {
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let _ = writeln!(out, "{name:<20} {}", text(value));
    }
    out
}

fn footer(page: &Value) -> String {
    let (total, shown) = (number(&page["total"]), items(&page["items"]).count() as u64);
    let mut out = String::new();
    if shown < total {
        let _ = writeln!(out, "{shown} of {total} shown");
    }
    if items(&page["missing_workers"]).count() > 0 {
        let _ = writeln!(out, "no answer from workers {}", page["missing_workers"]);
    }
    out
}

pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A value as people read it. Names come from peers: control characters are made harmless.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

pub(crate) fn size(bytes: &Value) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut rest = bytes.as_f64().unwrap_or(0.0);
    let mut unit = 0;
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{rest} B") } else { format!("{rest:.1} {}", UNITS[unit]) }
}

pub(crate) fn duration(ms: &Value) -> String {
    let seconds = number(ms) / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

pub(crate) fn table<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut out = String::new();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_peers_cannot_steer_the_terminal() {
        let page =
            json!({"total": 1, "items": [{"app": "a", "name": "\u{1b}[2J", "state": "live"}]});
        let shown = render_streams(&page);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert!(shown.contains("a/\u{FFFD}[2J"));
    }

    #[test]
    fn a_certificate_shows_its_end_its_names_and_what_is_wrong_with_it() {
        let page = json!({"total": 1, "items": [{
            "name": "a", "state": "stale", "is_default": true, "names": ["a", "b", "c", "d", "e"],
            "not_after": "1970-01-02T00:00:00Z", "not_after_unix_s": 86_400, "key_type": "RSA 2048",
            "cert_file": "/a.crt", "error": "/a.crt: line 3: damaged", "warnings": ["odd"]
        }]});
        let shown = render_certs(&page);
        for part in [
            "a *  ",
            "over",
            "a b c +2",
            "error: a: /a.crt: line 3: damaged\n",
            "warning: a: odd\n",
        ] {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(size(&json!(512)), "512 B");
        assert_eq!(size(&json!(1_572_864)), "1.5 MiB");
        assert_eq!(duration(&json!(61_000)), "1m01s");
        assert_eq!(duration(&json!(90_061_000)), "1d01h");
    }
}
