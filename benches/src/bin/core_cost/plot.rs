//! Curves over the number of subscriptions as an SVG, both axes logarithmic.

use std::fmt::Write;

/// One curve.
pub struct Curve {
    pub name: String,
    /// Subscriptions and nanoseconds.
    pub points: Vec<(f64, f64)>,
    pub colour: &'static str,
    pub dashed: bool,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// The picture.
pub fn svg(title: &str, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|c| &c.points).filter(|(_, y)| *y > 0.0);
    let decade = |value: f64, up: bool| {
        let log = value.log10();
        if up { log.ceil() } else { log.floor() }
    };
    let (x0, x1) = (
        decade(all().map(|p| p.0).fold(f64::MAX, f64::min), false),
        decade(all().map(|p| p.0).fold(1.0, f64::max), true),
    );
    let (y0, y1) = (
        decade(all().map(|p| p.1).fold(f64::MAX, f64::min), false),
        decade(all().map(|p| p.1).fold(1.0, f64::max), true),
    );
    let x = |v: f64| LEFT + (v.log10() - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| HEIGHT - BOTTOM - (v.log10() - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{title}</text>\n"
    );
    for e in x0 as i32..=x1 as i32 {
        let (at, label) = (x(10f64.powi(e)), 10f64.powi(e));
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for e in y0 as i32..=y1 as i32 {
        let at = y(10f64.powi(e));
        let label = match e {
            ..3 => format!("{} ns", 10f64.powi(e)),
            3..6 => format!("{} us", 10f64.powi(e - 3)),
            _ => format!("{} ms", 10f64.powi(e - 6)),
        };
        let right = WIDTH - RIGHT;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (i, curve) in curves.iter().enumerate() {
        let points = curve.points.iter().filter(|(_, y)| *y > 0.0);
        let path: Vec<_> = points.map(|(n, v)| format!("{:.1},{:.1}", x(*n), y(*v))).collect();
        let dashes = if curve.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let (colour, row) = (curve.colour, TOP + 14.0 + 20.0 * i as f64);
        let (from, to) = (WIDTH - RIGHT + 14.0, WIDTH - RIGHT + 38.0);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\
             <path d=\"M{from} {row}H{to}\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            path.join(" "),
            to + 6.0,
            row + 4.0,
            curve.name
        );
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let _ = writeln!(
        out,
        "<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">subscriptions</text>\n</svg>",
        HEIGHT - 12.0
    );
    out
}
