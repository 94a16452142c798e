//! Admin API route of QR codes: a text, usually an address, as a picture for a phone.
//!
//! A POST, because an address holds a signature and the body of a request is written nowhere.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::JsonRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use qrcodegen::{QrCode, QrCodeEcc};
use serde::Deserialize;

use super::Control;
use super::api::ApiError;

/// Longest text, in bytes. The largest code holds 2,331 of them at its second level of correction.
const TEXT_BYTES_MAX: usize = 2_048;
/// Largest request body, in bytes: a text that is escaped throughout.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Empty modules around the code, which readers need.
const BORDER: i32 = 4;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new().route("/api/v1/qr", post(make)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    text: String,
}

async fn make(body: Result<Json<Wanted>, JsonRejection>) -> Result<Response, ApiError> {
    let Json(Wanted { text }) = body?;
    let invalid = |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text);
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(invalid(format!("a text of 1..={TEXT_BYTES_MAX} bytes is needed")));
    }
    let code = QrCode::encode_text(&text, QrCodeEcc::Medium)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg(&code)).into_response())
}

/// The code as SVG: one white square, and one path with a rectangle for each run of dark modules.
fn svg(code: &QrCode) -> String {
    let side = code.size() + 2 * BORDER;
    let mut path = String::new();
    for y in 0..code.size() {
        let mut x = 0;
        while x < code.size() {
            let run = (x..code.size()).take_while(|&x| code.get_module(x, y)).count();
            let run = i32::try_from(run).unwrap_or(i32::MAX);
            if run > 0 {
                // Writing into a string cannot fail.
                let _ = write!(path, "M{} {}h{run}v1h-{run}z", x + BORDER, y + BORDER);
            }
            x += run.max(1);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
         shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/>\
         <path d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws the picture again, as a browser would, four pixels a module.
    fn pixels(svg: &str) -> (usize, Vec<bool>) {
        const SCALE: usize = 4;
        let side: usize =
            svg.split('"').nth(3).unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        let mut dark = vec![false; side * side];
        let path = svg.rsplit("d=\"").next().unwrap().split('"').next().unwrap();
        for rectangle in path.split('M').filter(|text| !text.is_empty()) {
            let (start, rest) = rectangle.split_once('h').unwrap();
            let (x, y) = start.split_once(' ').unwrap();
            let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
            let run: usize = rest.split_once('v').unwrap().0.parse().unwrap();
            dark[y * side + x..][..run].fill(true);
        }
        let wide = side * SCALE;
        let all = (0..wide * wide).map(|at| dark[at / wide / SCALE * side + at % wide / SCALE]);
        (wide, all.collect())
    }

    #[test]
    fn a_reader_finds_the_text_again_up_to_the_longest_one() {
        let address = "rtmp://push.example.com/live/cam?txSecret=9f2c5a&txTime=68FFA1B2";
        let long = "rtmp://push.example.com/live/".to_owned() + &"x".repeat(TEXT_BYTES_MAX - 29);
        for text in ["a", address, &long] {
            let code = QrCode::encode_text(text, QrCodeEcc::Medium).unwrap();
            let (wide, dark) = pixels(&svg(&code));
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(wide, wide, |x, y| {
                if dark[y * wide + x] { 0 } else { 255 }
            });
            let grids = image.detect_grids();
            assert_eq!(grids.len(), 1, "{} bytes", text.len());
            assert_eq!(grids[0].decode().unwrap().1, text);
        }
    }
}
