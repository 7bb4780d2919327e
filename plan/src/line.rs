//! The straight line through a latency table.

/// `L(b) = alpha + beta b` through points `(b, L)`: least squares of the relative errors, both
/// figures at least 0. `None` without points.
pub fn through(points: impl Iterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let (mut count, mut last) = (0, (1.0, 0.0));
    let (mut w, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (b, l) in points {
        (count, last) = (count + 1, (b, l));
        let weight = 1.0 / (l * l).max(1e-18);
        w += weight;
        x += weight * b;
        y += weight * l;
        xx += weight * b * b;
        xy += weight * b * l;
    }
    match count {
        0 => return None,
        // One size says nothing of a fixed cost.
        1 => return Some((0.0, last.1 / last.0)),
        _ => {}
    }
    let beta = ((w * xy - x * y) / (w * xx - x * x).max(1e-30)).max(0.0);
    let alpha = (y - beta * x) / w;
    // Without a fixed cost the slope alone carries the measurements.
    Some(if alpha < 0.0 { (0.0, xy / xx) } else { (alpha, beta) })
}
