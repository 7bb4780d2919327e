//! The plots of a report as SVG.

use super::{colour, escape};
use crate::report::{Comparison, RunReport};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Drawing area in user units: the page scales it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 24.0;

/// Colours of models in a timeline.
const MODELS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#666666"];

/// A linear axis pair.
struct Axes {
    x_max: f64,
    y_max: f64,
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (value / self.x_max).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value / self.y_max).clamp(0.0, 1.0)
    }

    fn frame(&self, x_title: &str, x_percent: bool) -> String {
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for tick in ticks(self.y_max) {
            let y = self.y(tick);
            let label = format!("{:.0} %", tick * 100.0);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e6ebf0\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let base = HEIGHT - BOTTOM;
        for tick in ticks(self.x_max) {
            let x = self.x(tick);
            let _ = write!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{base}\" y2=\"{}\" stroke=\"#8a97a5\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                base + 4.0,
                base + 16.0,
                if x_percent { format!("{:.0} %", tick * 100.0) } else { number(tick) }
            );
        }
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\" stroke=\"#8a97a5\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{x_title}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            HEIGHT - 3.0
        );
        svg
    }

    /// A dashed line with its name to the left, where no age is.
    fn upright(&self, x: f64, label: &str) -> String {
        let x = self.x(x);
        format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#5d6b7a\" \
             stroke-dasharray=\"4 3\"/><text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            HEIGHT - BOTTOM,
            x - 5.0,
            TOP + 12.0
        )
    }
}

/// Round steps: 4 to 8 of them.
fn ticks(max: f64) -> Vec<f64> {
    let rough = max / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough);
    let step = step.unwrap_or(max);
    (0..).map(|n| f64::from(n) * step).take_while(|t| *t <= max * 1.000_1).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(points: impl Iterator<Item = (f64, f64)>, number: usize, policy: &str) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
    }
    format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" \
         stroke-linejoin=\"round\"><title>{}</title></path>",
        colour(number),
        if number == 0 { 2.8 } else { 1.3 },
        escape(policy)
    )
}

/// The rows in drawing order: the production policy last, on top.
fn rows(c: &Comparison) -> impl Iterator<Item = (usize, &RunReport)> {
    c.rows.iter().enumerate().rev()
}

/// Age distributions, one line for each policy, with B2 and the deadline.
pub(super) fn ages(c: &Comparison) -> String {
    // What no policy reaches 97 % of is cut off; at least twice the largest p99 of production.
    let fab = c.rows.first().map_or(1.0, |r| r.age_p99_ms);
    let most = c.rows.iter().map(|r| r.age_p99_ms).fold(0.0, f64::max);
    let axes = Axes { x_max: most.min(3.0 * fab).max(1.0) * 1.04, y_max: 1.0 };
    let mut svg = axes.frame("age, ms", false);
    if let Some(b2) = c.bounds.as_ref().and_then(|b| b.b2_ms) {
        svg += &axes.upright(b2, "B2");
    }
    for (number, row) in rows(c).filter(|(_, r)| r.results > 0) {
        let last = (row.plots.ages_ms.len() - 1) as f64;
        let points = row.plots.ages_ms.iter().enumerate();
        let inside = points.filter(|(_, age)| **age <= axes.x_max);
        let place = |(i, age): (usize, &f64)| (axes.x(*age), axes.y(i as f64 / last));
        svg += &line(inside.map(place), number, &row.policy);
    }
    svg + "</svg>"
}

/// Served share of each assignment, from the worst to the best served.
pub(super) fn shares(c: &Comparison) -> String {
    let axes = Axes { x_max: 1.0, y_max: 1.05 };
    let mut svg = axes.frame("assignments, the worst served first", true);
    for (number, row) in rows(c).filter(|(_, r)| !r.plots.shares.is_empty()) {
        let last = (row.plots.shares.len() - 1).max(1) as f64;
        let place = |(i, x): (usize, &f64)| (axes.x(i as f64 / last), axes.y(*x));
        svg += &line(row.plots.shares.iter().enumerate().map(place), number, &row.policy);
    }
    svg + "</svg>"
}

/// Executions as bars, a row for each model on each device.
pub(super) fn launches(row: &RunReport) -> String {
    let launches = &row.plots.launches;
    let lanes: BTreeSet<(&str, &str)> =
        launches.iter().map(|l| (l.device.as_str(), l.model.as_str())).collect();
    let models: BTreeSet<&str> = lanes.iter().map(|(_, model)| *model).collect();
    let (width, left, lane_height, right) = (1120.0, 170.0, 26.0, 24.0);
    let base = lanes.len() as f64 * lane_height + 6.0;
    let height = base + 30.0;
    let x = |ms: f64| left + (width - left - right) * ms / 400.0;
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">");
    for tick in ticks(400.0) {
        let x = x(tick);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{base}\" stroke=\"#e6ebf0\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{} ms</text>",
            base + 16.0,
            number(tick)
        );
    }
    for (number, (device, model)) in lanes.iter().enumerate() {
        let y = number as f64 * lane_height + 6.0;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} {}</text>",
            left - 8.0,
            y + 15.0,
            escape(device),
            escape(model)
        );
        let place = models.iter().position(|m| m == model).unwrap_or(0);
        for l in launches.iter().filter(|l| l.device == *device && l.model == *model) {
            let (from, to) = (x(l.start_ms), x(l.end_ms));
            let _ = write!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" rx=\"1.5\" fill=\"{}\" \
                 fill-opacity=\"0.85\"><title>{} frames, {:.1} to {:.1} ms</title></rect>",
                (to - from).max(0.6),
                lane_height - 6.0,
                MODELS[place % MODELS.len()],
                l.batch,
                l.start_ms,
                l.end_ms
            );
            if to - from > 16.0 {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"fill:#fff\">{}</text>",
                    f64::midpoint(from, to),
                    y + 14.5,
                    l.batch
                );
            }
        }
    }
    svg + "</svg>"
}
