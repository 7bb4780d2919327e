//! CPU and wake-ups per result outside copy, preprocess, inference and storage: looking at rings,
//! deciding, sockets, encoding and decoding on both sides.
//!
//! usage: result_cost [--cameras N] [--fps F] [--seconds S] [--against PROGRAM [--rounds N]]
//!
//! Four processes as in production: the real scheduler loop; the real runner of a synthetic model that
//! takes no time and finds one object per frame; the intake of serve, behind which events are dropped;
//! and this one, which publishes small frames into real rings. CPU is user and system time of each
//! process over the measured seconds, a wake-up is a thread that went to sleep, both divided by the
//! results of that time. A batch holds one frame, so that every one costs a launch.
//!
//! With --against another build of this program (of an older state of the code) is run in turn with this one, N
//! times (5) each, and the medians are compared.

use benches::node::{self, Cameras, Fallible, Process, Root, Used};
use scheduler_driver::Steering;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MODEL: &str = "bench";
const DEVICE: &str = "cpu";
const WARM_UP: Duration = Duration::from_secs(3);
/// In the order in which they are started.
const PARTS: [&str; 3] = ["serve", "runner", "scheduler"];

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = |at: usize| arguments.get(at).map(Path::new).ok_or("a directory is missing");
    match arguments.first().map(String::as_str) {
        Some("as-scheduler") => node::scheduler(node::directories(root(1)?), Steering::default()),
        Some("as-runner") => node::runner(root(1)?, MODEL, DEVICE),
        Some("as-serve") => serve(root(1)?, number(&arguments, "--cameras", 0.0)? as usize),
        _ => match option(&arguments, "--against") {
            Some(other) => compare(&arguments, other),
            None => measure(&arguments),
        },
    }
}

fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a String> {
    arguments.get(arguments.iter().position(|a| a == name)? + 1)
}

fn number(arguments: &[String], name: &str, default: f64) -> Fallible<f64> {
    Ok(option(arguments, name).map_or(Ok(default), |text| text.parse())?)
}

/// Takes results; prints their number and their mean age when told to on standard input.
fn serve(root: &Path, cameras: usize) -> Fallible<()> {
    let socket = node::directories(root).events_socket();
    let intake = api::BareIntake::bind(&socket, node::cameras(cameras)?)?;
    let taken = intake.taken();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            let (results, age) = taken();
            println!("{results} {}", age.as_secs_f64() * 1e3);
        }
    });
    Ok(intake.run()?)
}

/// Asks serve for its count of results and their mean age in milliseconds.
fn taken(serve: &mut Process) -> Fallible<(f64, f64)> {
    serve.0.stdin.as_mut().ok_or("serve has no input")?.write_all(b"\n")?;
    let mut line = String::new();
    BufReader::new(serve.0.stdout.as_mut().ok_or("serve has no output")?).read_line(&mut line)?;
    let (results, age) = line.trim().split_once(' ').ok_or("serve gave no count")?;
    Ok((results.parse()?, age.parse()?))
}

fn measure(arguments: &[String]) -> Fallible<()> {
    let count = number(arguments, "--cameras", 16.0)? as usize;
    let fps = number(arguments, "--fps", 10.0)?;
    let length = Duration::from_secs_f64(number(arguments, "--seconds", 20.0)?);
    let root = Root::make()?;
    let places = root.directories();
    root.synthetic(MODEL, 1, "  alpha_ms: 0\n  beta_ms: 0\n  finds: moving\n")?;
    let ids = node::cameras(count)?;
    node::desired(&ids, &[MODEL.into()], fps).store(&places.desired())?;
    let mut processes = vec![root.start(&["as-serve", "--cameras", &count.to_string()])?];
    processes.push(root.start(&["as-runner"])?);
    processes.push(root.start(&["as-scheduler"])?);
    let used =
        |processes: &[Process]| processes.iter().map(Process::used).collect::<Result<Vec<_>, _>>();

    let mut cameras = Cameras::new(&places.shm, &ids)?;
    let mut publish = |length: Duration| {
        let begin = Instant::now();
        while begin.elapsed() < length {
            cameras.next();
        }
        begin.elapsed()
    };
    publish(WARM_UP);
    let (before, (results_before, _)) = (used(&processes)?, taken(&mut processes[0])?);
    let length = publish(length);
    let (after, (results_after, age)) = (used(&processes)?, taken(&mut processes[0])?);
    let results = results_after - results_before;
    if results < 1.0 {
        return Err("no result arrived".into());
    }
    println!("{count} cameras at 25 fps, {fps} fps wanted each, {:.1} s", length.as_secs_f64());
    println!("results {results}, {:.1} per second", results / length.as_secs_f64());
    println!("mean age {age:.3} ms");
    let mut sum = [0.0; 3];
    let line = |name: &str, [cpu, wakeups, preempted]: [f64; 3]| {
        println!(
            "{name:<10} {cpu:7.2} us CPU per result, {wakeups:6.3} wake-ups, {preempted:6.3} times preempted"
        );
    };
    for (name, (after, before)) in PARTS.iter().zip(after.iter().zip(&before)) {
        let each = per_result(after, before, results);
        line(name, each);
        sum = std::array::from_fn(|i| sum[i] + each[i]);
    }
    line("sum", sum);
    println!("a thread that only wakes, every 5 ms: {:.1} us CPU per wake-up", bare_wakeup());
    Ok(())
}

fn per_result(after: &Used, before: &Used, results: f64) -> [f64; 3] {
    let counted = |after: u64, before: u64| (after - before) as f64 / results;
    [
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / results,
        counted(after.wakeups, before.wakeups),
        counted(after.preempted, before.preempted),
    ]
}

/// CPU time of a wake-up that does nothing, microseconds.
fn bare_wakeup() -> f64 {
    const WAKEUPS: u32 = 300;
    let before = benches::thread_cpu();
    for _ in 0..WAKEUPS {
        std::thread::sleep(Duration::from_millis(5));
    }
    (benches::thread_cpu() - before).as_secs_f64() * 1e6 / f64::from(WAKEUPS)
}

/// Runs the other program and this one in turn.
fn compare(arguments: &[String], other: &str) -> Fallible<()> {
    let rounds = number(arguments, "--rounds", 5.0)? as usize;
    let this = std::env::current_exe()?;
    let mut found: [Vec<[f64; 3]>; 2] = Default::default();
    for round in 1..=rounds {
        for (program, found) in [Path::new(other), &this].into_iter().zip(&mut found) {
            found.push(figures(program, arguments)?);
        }
        println!(
            "round {round}: before {:.2?}, now {:.2?}",
            found[0][round - 1],
            found[1][round - 1]
        );
    }
    for (at, what) in ["us CPU per result", "wake-ups per result", "ms mean age"].iter().enumerate()
    {
        let [before, now] = found.each_ref().map(|found| {
            let mut values: Vec<f64> = found.iter().map(|figures| figures[at]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        });
        println!("median {what}: before {before:.2}, now {now:.2}, ratio {:.3}", now / before);
    }
    Ok(())
}

/// CPU, wake-ups and mean age of a run of `program`.
fn figures(program: &Path, arguments: &[String]) -> Fallible<[f64; 3]> {
    let mut command = Command::new(program);
    for name in ["--cameras", "--fps", "--seconds"] {
        command.args(option(arguments, name).into_iter().flat_map(|value| [name, value]));
    }
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let word = |start: &str, at: usize| -> Fallible<f64> {
        let line = text.lines().find(|line| line.starts_with(start));
        let word = line.and_then(|line| line.split_whitespace().nth(at));
        Ok(word.ok_or_else(|| format!("{} says no `{start}`", program.display()))?.parse()?)
    };
    Ok([word("sum ", 1)?, word("sum ", 6)?, word("mean age ", 2)?])
}
