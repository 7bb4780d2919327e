//! What does a decision of the scheduling core cost?
//!
//! `cargo run --release -p benches --bin core_cost -- [OPTIONS]` drives the core through a bare world
//! in virtual time (`scheduler_sim::bare`) on one thread and times every call into it. The world's own
//! work lies outside; the cost of reading the clock is measured and subtracted; what the frame
//! index costs within a poll is measured apart and printed.
//!
//! - `--subscriptions N`: default 10,000 over 3,000 cameras, 100 models and 8 devices; other numbers
//!   in proportion.
//! - `--seconds S`, `--warm-up S`: virtual, default 3 and 3. `--repetitions R`: default 3.
//! - `--only NAME`: one of the scenarios steady, overload, mix. `--no-fit`: its headline run alone
//!   (for a profiler).
//! - `--scale`: 100 to 100,000 subscriptions, a table; `--svg FILE`: its plot.
//! - `--json FILE`: all figures.
//!
//! Repetitions make the same calls in the same order (checked), so each call counts with its
//! shortest time: what others take of the processor meanwhile is no cost of the core. Lines marked
//! `raw` are of the repetitions as they were. Per sampled frame and per launch: least squares of
//! the core's whole CPU time over setups whose batches differ in size.

mod figures;
mod plot;
mod recording;

use benches::counting_allocator::CountingAllocator;
use benches::ticks::ns_per_tick;
use figures::{Figures, Fit};
use plot::Curve;
use recording::{Plan, allocations, index_cost, index_of, record, unread};
use scheduler::Config;
use scheduler_sim::bare::{Call, Rates, Setup};
use serde_json::{Value, json};
use std::time::Duration;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// alpha/beta and largest batch of the setups that the fit is made of, beside the one that is
/// printed (chosen: batches of about 2 to 60 frames).
const FIT_SETUPS: [(f64, u32); 2] = [(0.5, 4), (24.0, 64)];
/// Subscriptions of `--scale`.
const SCALE: [u32; 7] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];

fn value<T: std::str::FromStr>(name: &str) -> Fallible<Option<T>> {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    if !flag(name) {
        return Ok(None);
    }
    let text = arguments.next().ok_or(format!("{name} needs a value"))?;
    Ok(Some(text.parse().map_err(|_| format!("{name} can't be {text}"))?))
}

fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

fn main() -> Fallible<()> {
    let tick = ns_per_tick();
    let seconds = |name, default| -> Fallible<Duration> {
        Ok(Duration::from_secs_f64(value(name)?.unwrap_or(default)))
    };
    let plan = Plan {
        warm_up: seconds("--warm-up", 3.0)?,
        measured: seconds("--seconds", 3.0)?,
        repetitions: value("--repetitions")?.unwrap_or(3),
    };
    let cpu = cpu_model();
    println!("{cpu}");
    let figures = if flag("--scale") {
        scale(plan, tick, &cpu)?
    } else {
        let subscriptions = value("--subscriptions")?.unwrap_or(10_000);
        scenarios(&Setup::of(subscriptions), plan, tick)?
    };
    if let Some(path) = value::<String>("--json")? {
        let all = json!({ "cpu": cpu, "figures": figures });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

fn scenarios(base: &Setup, plan: Plan, tick: f64) -> Fallible<Value> {
    let only: Option<String> = value("--only")?;
    let all = [
        ("steady", *base),
        ("overload", Setup { load: 1.3, ..*base }),
        ("mix", Setup { rates: Rates::Mix, ..*base }),
    ];
    if let Some(name) = &only
        && !all.iter().any(|(n, _)| n == name)
    {
        return Err(format!("--only can be steady, overload or mix, not {name}").into());
    }
    let mut out = serde_json::Map::new();
    for (name, setup) in all {
        if only.as_ref().is_none_or(|n| n == name) {
            out.insert(name.into(), scenario(name, &setup, plan, tick)?);
        }
    }
    Ok(out.into())
}

fn scenario(name: &str, setup: &Setup, plan: Plan, tick: f64) -> Fallible<Value> {
    println!(
        "\n{name}: {} subscriptions ({:?}), {} cameras at {} fps with {:?} jitter, {} models, {} \
         devices at load {}, seed {}",
        setup.subscriptions,
        setup.rates,
        setup.cameras,
        setup.source_fps,
        setup.jitter,
        setup.models,
        setup.devices,
        setup.load,
        setup.seed
    );
    let config = Config::default();
    let index_each = index_cost(&index_of(setup), setup.cameras, tick);
    let recording = record(setup, &config, plan, tick);
    let figures = Figures::of(&recording, index_each);
    print_figures(&figures, index_each);
    let unread = unread(setup, &config, plan, tick) / figures.members;
    println!(
        "the run without reading the clock, core and world: {unread:.1} ns per frame; a pair of \
         readings, subtracted above: {:.1} ns",
        figures.reading_ns
    );
    let counted = allocations(setup, &config, plan);
    let per_1000 = |n: u64| n as f64 / figures.members * 1e3;
    println!(
        "allocations per 1000 results {:.2} ({:.0} bytes), frees {:.2}",
        per_1000(counted.allocations),
        per_1000(counted.bytes),
        per_1000(counted.frees)
    );
    let mut json = figures.json();
    json["core_and_world_without_clock_ns_per_frame"] = unread.into();
    json["allocations_per_1000_results"] = per_1000(counted.allocations).into();
    json["frees_per_1000_results"] = per_1000(counted.frees).into();
    if !flag("--no-fit") {
        let (fit, sizes) = fit(setup, &config, plan, tick, &figures);
        println!("fit over batches of {sizes} frames, worst miss {:.1} %:", fit.worst * 100.0);
        print_targets(&figures, &fit);
        json["fit"] = fit.json();
    }
    Ok(json)
}

/// The fit over the setup behind `headline` and those that batch less and more.
fn fit(setup: &Setup, config: &Config, plan: Plan, tick: f64, headline: &Figures) -> (Fit, String) {
    let point = |f: &Figures| (f.launches, f.members, f.total_ns);
    let mut points = vec![point(headline)];
    for (alpha_over_beta, batch_max) in FIT_SETUPS {
        let setup = Setup { alpha_over_beta, batch_max, ..*setup };
        points.push(point(&Figures::of(&record(&setup, config, plan, tick), 0.0)));
    }
    let sizes: Vec<_> = points.iter().map(|(l, m, _)| format!("{:.1}", m / l)).collect();
    (Fit::of(&points), sizes.join(", "))
}

/// The targets, and whether this setup meets them.
fn print_targets(f: &Figures, fit: &Fit) {
    let longest = f.longest_poll_of_second.iter().copied().fold(0.0, f64::max);
    let rows = [
        ("ns per sampled frame", fit.frame_ns, 150.0, 1.0),
        ("us per launch", fit.launch_ns, 2_000.0, 1e3),
        ("us, p99 of a decision", f.decisions.p99, 50_000.0, 1e3),
        ("us, p99 of a launching poll", f.launching.p99, 50_000.0, 1e3),
        ("ms, longest poll (a replan is one)", longest, 10e6, 1e6),
    ];
    for (name, ns, target, unit) in rows {
        let word = if ns <= target { "met" } else { "missed" };
        println!("  {:10.3} {name}: target {}, {word}", ns / unit, target / unit);
    }
}

fn print_figures(f: &Figures, index_each: f64) {
    println!("call                 count/s  mean ns   p50 ns   p99 ns   max ns  share of the time");
    for (call, t) in &f.per_call {
        println!(
            "{:<18} {:9.0} {:8.0} {:8.0} {:8.0} {:8.0} {:6.1} %",
            call.name(),
            t.count as f64 / f.seconds,
            t.mean(),
            t.p50,
            t.p99,
            t.max,
            t.total / f.total_ns * 100.0
        );
    }
    for (name, t) in
        [("a decision", &f.decisions), ("of these launches", &f.launching), ("a unit", &f.units)]
    {
        println!(
            "{name:<18} {:9.0} {:8.0} {:8.0} {:8.0} {:8.0}",
            t.count as f64 / f.seconds,
            t.mean(),
            t.p50,
            t.p99,
            t.max
        );
    }
    println!("a decision, raw: p99 {:.0} ns, max {:.0} ns (medians)", f.raw_p99_ns, f.raw_max_ns);
    let raw = |ns: f64| ns / f.seconds / 1e9 * 100.0;
    let least = f.raw_total_ns.iter().copied().fold(f64::MAX, f64::min);
    println!(
        "core busy {:.2} % of one CPU (raw: min {:.2}, median {:.2}), of it frame index {:.2} ({index_each:.1} ns each)",
        raw(f.total_ns),
        raw(least),
        raw(figures::median(f.raw_total_ns.clone())),
        raw(f.index_ns)
    );
    println!(
        "{:.0} decisions, {:.0} launches, {:.0} frames per virtual second; {:.0} decisions per CPU second",
        f.decisions.count as f64 / f.seconds,
        f.launches / f.seconds,
        f.members / f.seconds,
        f.decisions.count as f64 / f.total_ns * 1e9
    );
    println!(
        "all of the core per sampled frame {:.1} ns, without the frame index {:.1} ns; {:.1} frames per launch",
        f.total_ns / f.members,
        (f.total_ns - f.index_ns) / f.members,
        f.members / f.launches
    );
    println!(
        "longest poll of a second: median {:.1} us, max {:.1} us",
        figures::median(f.longest_poll_of_second.clone()) / 1e3,
        f.longest_poll_of_second.iter().copied().fold(0.0, f64::max) / 1e3
    );
    println!(
        "desired state: {:.2} ms from nothing, {:.2} ms unchanged",
        f.desired.0 / 1e6,
        f.desired.1 / 1e6
    );
}

fn scale(plan: Plan, tick: f64, cpu: &str) -> Fallible<Value> {
    println!(
        "\n{:>13} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}",
        "subscriptions",
        "ns/frame",
        "us/launch",
        "all ns/f",
        "decision ns",
        "launch ns",
        "wait ns",
        "p99 ns",
        "max us"
    );
    let mut rows = Vec::new();
    let mut curves: Vec<Curve> = [
        ("per sampled frame (fit)", "#1f77b4"),
        ("per launch (fit)", "#d62728"),
        ("a poll that launches, mean", "#2ca02c"),
        ("a poll that waits, mean", "#9467bd"),
        ("a decision, p99", "#ff7f0e"),
    ]
    .into_iter()
    .map(|(name, colour)| Curve { name: name.into(), points: Vec::new(), colour, dashed: false })
    .collect();
    let largest = value("--subscriptions")?.unwrap_or(u32::MAX);
    for subscriptions in SCALE.into_iter().filter(|n| *n <= largest) {
        let setup = Setup::of(subscriptions);
        // Fewer virtual seconds where each brings more decisions; periods are learned in two. All
        // end before the twelfth, in which steering is tried: first timetables are a cost of their own.
        let share = (10_000.0 / f64::from(subscriptions)).clamp(0.125, 1.5);
        let plan = Plan {
            warm_up: plan.warm_up.mul_f64(share.max(0.5)),
            measured: plan.measured.mul_f64(share),
            ..plan
        };
        let config = Config::default();
        let index_each = index_cost(&index_of(&setup), setup.cameras, tick);
        let f = Figures::of(&record(&setup, &config, plan, tick), index_each);
        let (fit, _) = fit(&setup, &config, plan, tick, &f);
        let waits = f.per_call.iter().find(|(call, _)| *call == Call::Wait);
        let wait_ns = waits.map_or(0.0, |(_, t)| t.mean());
        println!(
            "{subscriptions:>13} {:9.1} {:9.3} {:9.1} {:11.0} {:9.0} {wait_ns:9.0} {:9.0} {:9.1}",
            fit.frame_ns,
            fit.launch_ns / 1e3,
            f.total_ns / f.members,
            f.decisions.mean(),
            f.launching.mean(),
            f.decisions.p99,
            f.decisions.max / 1e3,
        );
        let values = [fit.frame_ns, fit.launch_ns, f.launching.mean(), wait_ns, f.decisions.p99];
        for (curve, value) in curves.iter_mut().zip(values) {
            curve.points.push((f64::from(subscriptions), value));
        }
        let mut row = f.json();
        row["subscriptions"] = subscriptions.into();
        row["fit"] = fit.json();
        rows.push(row);
    }
    if let Some(path) = value::<String>("--svg")? {
        // What logarithmic growth from the first point of the launching poll would look like.
        let first = curves[2].points[0];
        let log = |n: f64| (n, first.1 * n.ln() / first.0.ln());
        let points = curves[2].points.iter().map(|(n, _)| log(*n)).collect();
        let name = "log n from its first point".to_owned();
        curves.push(Curve { name, points, colour: "#2ca02c", dashed: true });
        std::fs::write(path, plot::svg(&format!("Cost of the scheduling core on {cpu}"), &curves))?;
    }
    Ok(rows.into())
}

/// The processor's name as the system has it.
fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| "unknown CPU".into());
    match (field("cpu family"), field("model\t")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}
