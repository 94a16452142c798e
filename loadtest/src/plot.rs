//! A drawing of a run: latency and the server's CPU over the number of players, as SVG.
//!
//! A run without a ramp has one number of players all the time: time is drawn across then. Written
//! by hand, since two axes and some lines need no library.

use crate::run::Sample;
use std::fmt::Write as _;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 55.0;
/// Lines across the drawing.
const STEPS: u32 = 5;

/// One line of the drawing.
struct Series {
    name: &'static str,
    colour: &'static str,
    /// It is measured by the right-hand axis.
    is_right: bool,
    points: Vec<(f64, f64)>,
}

/// Draws the samples of a run.
pub(crate) fn svg(title: &str, samples: &[Sample]) -> String {
    let is_ramp = has_ramp(samples);
    let across = |sample: &Sample| if is_ramp { sample.gauge.playing as f64 } else { sample.at_s };
    let points = |of: &dyn Fn(&Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        samples.iter().filter_map(|sample| Some((across(sample), of(sample)?))).collect()
    };
    let series = [
        Series {
            name: "latency p50, ms",
            colour: "#4a90d9",
            is_right: false,
            points: points(&|sample| sample.latency_ms_p50),
        },
        Series {
            name: "latency p99, ms",
            colour: "#1b4f8a",
            is_right: false,
            points: points(&|sample| sample.latency_ms_p99),
        },
        Series {
            name: "server CPU, % of a core",
            colour: "#c0392b",
            is_right: true,
            points: points(&|sample| sample.server.map(|server| server.total_percent())),
        },
        Series {
            name: "generator CPU, % of a core",
            colour: "#95a5a6",
            is_right: true,
            points: points(&|sample| Some(sample.own_cpu_percent_max())),
        },
    ];
    let x_label = if is_ramp { "players" } else { "seconds" };
    draw(title, x_label, &series)
}

/// Whether the number of players differs enough to draw over it.
fn has_ramp(samples: &[Sample]) -> bool {
    let counts = || samples.iter().map(|sample| sample.gauge.playing).filter(|&count| count > 0);
    let mut different: Vec<u64> = counts().collect();
    different.dedup();
    different.len() >= 4
}

fn draw(title: &str, x_label: &str, series: &[Series; 4]) -> String {
    let largest = |of: &dyn Fn(&Series) -> Vec<f64>| -> f64 {
        round_up(series.iter().flat_map(of).fold(0.0, f64::max))
    };
    let x_max = largest(&|one| one.points.iter().map(|point| point.0).collect());
    let of_side = |is_right: bool| {
        largest(&|one| match one.is_right == is_right {
            true => one.points.iter().map(|point| point.1).collect(),
            false => Vec::new(),
        })
    };
    let (left_max, right_max) = (of_side(false), of_side(true));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    axes(&mut svg, x_label, (x_max, left_max, right_max));
    for (index, one) in series.iter().enumerate() {
        let y_max = if one.is_right { right_max } else { left_max };
        let mut points = String::new();
        for &(x, y) in &one.points {
            let _ = write!(points, "{:.1},{:.1} ", place_x(x, x_max), place_y(y, y_max));
        }
        let colour = one.colour;
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>"
        );
        let x = LEFT + 170.0 * index as f64;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"40\" fill=\"{colour}\">{}</text>", one.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, x_label: &str, (x_max, left_max, right_max): (f64, f64, f64)) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for step in 0..=STEPS {
        let share = f64::from(step) / f64::from(STEPS);
        let (x, y) = (place_x(share, 1.0), place_y(share, 1.0));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{}\" y=\"{:.1}\">{}</text>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            label(share * left_max),
            right + 8.0,
            y + 4.0,
            label(share * right_max),
            bottom + 18.0,
            label(share * x_max),
        );
    }
    let middle = f64::midpoint(LEFT, right);
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_label}</text>",
        bottom + 40.0
    );
}

fn place_x(x: f64, x_max: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * x / x_max
}

fn place_y(y: f64, y_max: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / y_max
}

/// The next number with one leading 1, 2 or 5.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let size = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * size)
        .find(|&end| end >= value)
        .unwrap_or(value)
}

fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Gauge;

    fn sample(at_s: f64, playing: u64) -> Sample {
        let gauge = Gauge { playing, ..Gauge::default() };
        Sample { at_s, gauge, latency_ms_p99: Some(at_s * 2.0), ..Sample::default() }
    }

    #[test]
    fn a_ramp_is_drawn_over_players_and_a_plateau_over_time() {
        let ramp: Vec<_> = (1..6u32).map(|n| sample(f64::from(n), u64::from(n) * 10)).collect();
        assert!(svg("a", &ramp).contains(">players<"));
        let plateau: Vec<_> = (1..6u32).map(|n| sample(f64::from(n), 10)).collect();
        assert!(svg("a", &plateau).contains(">seconds<"));
    }

    #[test]
    fn a_drawing_of_nothing_is_still_one() {
        let drawing = svg("a < b", &[]);
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"));
        assert!(drawing.contains("a &lt; b") && !drawing.contains("NaN"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.7, 1.0, 3.0, 120.0].map(round_up);
        assert_eq!(ends, [1.0, 1.0, 1.0, 5.0, 200.0]);
    }
}
