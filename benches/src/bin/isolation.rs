//! Whether a runner that is slower than it promised costs the models beside it more than one of its
//! batches, with real processes.
//!
//! usage: isolation [--minutes N]
//!
//! The real scheduler loop, three real runners of synthetic models on one GPU that does not exist, and
//! this process, which publishes small frames into real rings and reads the results. In every other
//! minute one of the models takes three times as long. Of each healthy model the 99th percentile of
//! the ages of a minute with the fault, less that of the minute before, is held against its `B_m`
//! (docs/simulator.md): the median over the pairs of minutes. It ends with an error when one is above.
//! The times are eight times those of the simulator's workload `isolation`, the rates an eighth: a
//! machine with two cores wakes its processes late by a millisecond now and then.

use base::time::nanos;
use benches::node::{self, Cameras, Fallible, Process, Root};
use ipc::clock;
use ipc::events_message::{EventsMessage, RunnerState};
use ipc::framing::read_message;
use scheduler_driver::Steering;
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Name, alpha and beta in milliseconds; the first is the one that becomes slow.
const MODELS: [(&str, f64, f64); 3] =
    [("slow", 3.8, 6.1), ("steady", 4.6, 3.2), ("other", 13.0, 2.4)];
const SLOWER: f64 = 3.0;
const BATCH_MAX: u32 = 16;
const CAMERAS: usize = 5;
const WANTED_FPS: f64 = 5.0;
const DEVICE: &str = "gpu0";
const MINUTE: f64 = 60.0;
/// Minutes before the first that counts: runners are measured, gates find their places.
const WARM_UP: usize = 1;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["as-scheduler", root] => {
            node::scheduler(node::directories(Path::new(root)), Steering::default())
        }
        ["as-runner", root, model] => node::runner(Path::new(root), model, DEVICE),
        ["--minutes", minutes] => measure(minutes.parse()?),
        [] => measure(10),
        _ => Err("usage: isolation [--minutes N]".into()),
    }
}

/// What a model is; the slow one is slow in every other minute that counts.
fn synthetic(name: &str, alpha: f64, beta: f64) -> String {
    let from = MINUTE * (WARM_UP + 1) as f64;
    let faults = format!(
        "  faults:\n    - {{fault: slower, factor: {SLOWER}, from_s: {from}, for_s: {MINUTE}, \
         every_s: {}}}\n",
        2.0 * MINUTE
    );
    let faults = if name == MODELS[0].0 { &faults } else { "" };
    format!("  alpha_ms: {alpha}\n  beta_ms: {beta}\n  gpu: true\n{faults}")
}

/// What the scheduler said.
#[derive(Default)]
struct Heard {
    /// Model, when, age.
    results: Vec<(String, base::Instant, Duration)>,
    /// Results whose batch waited for its token with its pixels copied, and all.
    prepared_ahead: u64,
    /// Members and batches by model, as of the last status.
    batches: BTreeMap<String, (u64, u64)>,
    /// When the slow model stood behind the others.
    demoted: Vec<base::Instant>,
}

/// Plays serve: takes one connection of the scheduler's and reads it to its end.
fn listen(listener: &UnixListener, heard: &Mutex<Heard>) -> Fallible<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer)? {
        let message = EventsMessage::decode(&buffer)?;
        let mut heard = heard.lock().map_err(|_| "the other thread panicked")?;
        match message {
            EventsMessage::Results(results) => {
                for result in results.results {
                    let age = result.received - result.capture;
                    heard.results.push((results.model_id.to_string(), result.received, age));
                    heard.prepared_ahead += u64::from(result.stages.grant > Duration::ZERO);
                }
            }
            EventsMessage::Status(status) => {
                for runner in status.runners {
                    let name = runner.model_id.to_string();
                    if name == MODELS[0].0 && runner.state == RunnerState::Demoted {
                        heard.demoted.push(status.now);
                    }
                    heard.batches.insert(name, (runner.members, runner.batches));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn measure(minutes: usize) -> Fallible<()> {
    let root = Root::make()?;
    for (name, alpha, beta) in MODELS {
        root.synthetic(name, BATCH_MAX, &synthetic(name, alpha, beta))?;
    }
    let (places, ids) = (root.directories(), node::cameras(CAMERAS)?);
    let models = MODELS.map(|(name, ..)| name.to_owned());
    node::desired(&ids, &models, WANTED_FPS).store(&places.desired())?;
    let heard = Arc::<Mutex<Heard>>::default();
    let listener = UnixListener::bind(places.events_socket())?;
    let listening = Arc::clone(&heard);
    std::thread::spawn(move || {
        if let Err(error) = listen(&listener, &listening) {
            eprintln!("the scheduler is not heard any more: {error}");
        }
    });
    let mut children = MODELS
        .iter()
        .map(|(model, ..)| root.start(&["as-runner", model]))
        .collect::<Fallible<Vec<Process>>>()?;
    let socket = places.runner_socket(&MODELS[0].0.parse()?, &DEVICE.parse()?);
    while !socket.exists() {
        if children[0].0.try_wait()?.is_some() {
            return Err("a runner does not start".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The faults count from the load of the model, a few batches ago.
    let begin = clock::monotonic();
    children.push(root.start(&["as-scheduler"])?);

    println!(
        "{:<8} {:>6} {}",
        "minute",
        "",
        MODELS.map(|(name, ..)| format!("{name:>9}")).join("")
    );
    let mut cameras = Cameras::new(&places.shm, &ids)?;
    for minute in 0..WARM_UP + minutes {
        while (clock::monotonic() - begin).as_secs_f64() < MINUTE * (minute + 1) as f64 {
            cameras.next();
        }
        let heard = heard.lock().map_err(|_| "the listening thread panicked")?;
        let fault = if slow_in(minute) { "slow" } else { "" };
        let p99 = MODELS.map(|(model, ..)| p99_ms(&heard, model, begin, minute));
        println!("{minute:<8} {fault:>6} {}", p99.map(|p| format!("{p:9.1}")).join(""));
    }
    drop(children);
    let heard = heard.lock().map_err(|_| "the listening thread panicked")?;
    verdict(&heard, begin, minutes)
}

/// Whether the slow model is slow in this minute.
fn slow_in(minute: usize) -> bool {
    minute > WARM_UP && (minute - WARM_UP) % 2 == 1
}

/// 99th percentile of the ages of a model in a minute, nearest rank.
fn p99_ms(heard: &Heard, model: &str, begin: base::Instant, minute: usize) -> f64 {
    let within = |at: base::Instant| ((at - begin).as_secs_f64() / MINUTE) as usize == minute;
    let of_model = heard.results.iter().filter(|(m, at, _)| m == model && within(*at));
    let mut ages: Vec<u64> = of_model.map(|(.., age)| nanos(*age)).collect();
    ages.sort_unstable();
    let rank = (ages.len() as f64 * 0.99).ceil() as usize;
    ages.get(rank.max(1) - 1).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

fn verdict(heard: &Heard, begin: base::Instant, minutes: usize) -> Fallible<()> {
    let all = heard.results.len() as u64;
    println!(
        "{all} results, {:.1} % of them of batches that were prepared before their grant",
        100.0 * heard.prepared_ahead as f64 / all.max(1) as f64
    );
    let minute = |at: &base::Instant| ((*at - begin).as_secs_f64() / MINUTE) as usize;
    let (on, off): (Vec<usize>, Vec<usize>) =
        heard.demoted.iter().map(minute).partition(|minute| slow_in(*minute));
    println!(
        "the slow model stood behind the others in {} s of {} with the fault, {} s without",
        on.len(),
        (minutes / 2) * MINUTE as usize,
        off.len()
    );
    let length = |(model, alpha, beta): (&str, f64, f64)| {
        let (members, batches) = heard.batches.get(model).copied().unwrap_or((1, 1));
        alpha + beta * (members as f64 / batches.max(1) as f64).ceil()
    };
    let (slow, alpha, beta) = MODELS[0];
    let single = SLOWER * (alpha + beta);
    let mut broken = Vec::new();
    for (model, ..) in &MODELS[1..] {
        let others = MODELS.iter().filter(|(other, ..)| other != model && *other != slow);
        let bound = others.map(|other| length(*other)).fold(single, f64::max);
        let pairs = (WARM_UP..WARM_UP + minutes).filter(|minute| slow_in(*minute));
        let p99 = |minute| p99_ms(heard, model, begin, minute);
        let mut rises: Vec<f64> = pairs.map(|on| p99(on) - p99(on - 1)).collect();
        rises.sort_by(f64::total_cmp);
        let median = rises.get(rises.len() / 2).copied().unwrap_or(f64::NAN);
        println!(
            "{model:<8} p99 rises by {median:.1} ms (pairs of minutes: {rises:.1?}), B_m {bound:.1} ms"
        );
        if median.is_nan() || median > bound {
            broken.push(*model);
        }
    }
    match broken[..] {
        [] => Ok(()),
        _ => Err(format!("{} waits longer than its B_m", broken.join(" and ")).into()),
    }
}
