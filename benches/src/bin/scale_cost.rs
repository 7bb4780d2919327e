//! What do thousands of subscriptions cost, and how long does a launch wait while they are told of or change?
//!
//! usage: scale_cost [--subscriptions N] [--seconds S]
//!
//! First the CPU time of the core's thread for a desired state and for the status, then waits. The real
//! scheduler loop on a thread of its own, with rings of 100 cameras at 25 fps, a serve that reads, and a
//! runner that takes 4 ms per frame: there is always a frame to launch with, so what passes from its
//! Reply to the next Prepare is the scheduler's. N subscriptions (10,000) of N / 100 models are on these
//! cameras; one model has the runner. Three times S seconds (10): nothing changes but that the status is
//! told every second; one assignment changes every second; all of them do. The desired state is parsed
//! on another thread, as in production. Percentiles are of all launches of a phase, and say little on
//! a machine that others use.

use base::{FrameDetections, InstanceId, LatencyEntry, LatencyTable, Size, StageTimes, limits};
use benches::node::{self, Cameras, Fallible, Root};
use benches::thread_cpu;
use ipc::clock;
use ipc::desired::{DesiredState, DesiredSubscription};
use ipc::events_message::EventsMessage;
use ipc::framing::{read_message, write_message};
use ipc::runner_message::{Encoder, Hello, Reply, RunnerMessage};
use scheduler::{Config, Desired, Input, Scheduler, SubscriptionSpec};
use scheduler_driver::Steering;
use scheduler_sim::World;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CAMERAS: usize = 100;
/// Of all, until they change to 100 less this and back.
const PRIORITY: u8 = 25;
/// What the runner takes for a frame.
const EXECUTE: Duration = Duration::from_millis(4);

/// What the status was, while it was looked at.
#[derive(Debug, Default)]
struct Told {
    whole: u32,
    pages: u32,
    largest: usize,
}

fn option(name: &str, default: f64) -> Fallible<f64> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|a| a == name) {
        Some(at) => Ok(arguments.get(at + 1).ok_or("a value is missing")?.parse()?),
        None => Ok(default),
    }
}

fn main() -> Fallible<()> {
    let models = (option("--subscriptions", 10_000.0)? as usize).div_ceil(CAMERAS).max(1);
    let seconds = option("--seconds", 10.0)?;
    let root = Root::make()?;
    let (directories, ids) = (root.directories(), node::cameras(CAMERAS)?);
    let names: Vec<String> = (0..models).map(|model| format!("m{model:04}")).collect();
    let mut state = node::desired(&ids, &names, node::CAMERA_FPS);
    state.subscriptions.iter_mut().for_each(|s| s.priority = PRIORITY);
    state.store(&directories.desired())?;

    let told = Arc::new(Mutex::new(Told::default()));
    let events = UnixListener::bind(directories.events_socket())?;
    let seen = told.clone();
    std::thread::spawn(move || serve(&events, &seen));
    let (model_id, device) = ("m0000".parse()?, "cpu".parse()?);
    let listener = UnixListener::bind(directories.runner_socket(&model_id, &device))?;
    let (waits_in, waits) = channel();
    std::thread::spawn(move || runner(&listener, &waits_in));
    let scheduler = directories.clone();
    std::thread::spawn(move || node::scheduler(scheduler, Steering::Off));
    let mut cameras = Cameras::new(&directories.shm, &ids)?;
    std::thread::spawn(move || {
        loop {
            cameras.next();
        }
    });

    println!("{} subscriptions, {CAMERAS} cameras, {models} models", state.subscriptions.len());
    on_the_thread(&state)?;
    std::thread::sleep(Duration::from_secs(3));
    let phases: [(&str, usize); 3] = [
        ("status alone", 0),
        ("one change per second", 1),
        ("all change every second", usize::MAX),
    ];
    for (name, changes) in phases {
        waits.try_iter().for_each(drop);
        if let Ok(mut told) = told.lock() {
            *told = Told::default();
        }
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            for s in state.subscriptions.iter_mut().take(changes) {
                s.priority = 100 - s.priority;
            }
            if changes > 0 {
                state.revision += 1;
                state.store(&directories.desired())?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut all: Vec<Duration> = waits.try_iter().collect();
        all.sort_unstable();
        let at = |share: f64| {
            let place = (all.len().saturating_sub(1) as f64 * share).round() as usize;
            all.get(place).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
        };
        println!(
            "{name:<24} {} launches wait: p50 {:.3} p99 {:.3} p99.9 {:.3} longest {:.3} ms",
            all.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        if let Ok(told) = told.lock() {
            let Told { whole, pages, largest } = *told;
            println!("{:<24} {whole} statuses in {pages} pages of {largest} bytes at most", "");
        }
    }
    Ok(())
}

/// Prints what the core itself takes, as CPU time of its thread: nobody else's work counts.
fn on_the_thread(state: &DesiredState) -> Fallible<()> {
    let spec = |s: &DesiredSubscription| World::subscription(&s.camera, &s.model, s.max_fps);
    let specs: Vec<SubscriptionSpec> = state.subscriptions.iter().map(spec).collect();
    let mut one = specs.clone();
    one[0].weight = 2.0;
    let all = specs.iter().map(|s| SubscriptionSpec { weight: 3.0, ..s.clone() }).collect();
    let now = base::Instant(1_000_000_000);
    let mut core = Scheduler::new(Config::default());
    for (what, subscriptions) in [
        ("from nothing", specs.clone()),
        ("unchanged", specs),
        ("one changes", one),
        ("all do", all),
    ] {
        let begun = thread_cpu();
        core.handle(now, Input::Desired(Desired { revision: 1, subscriptions }));
        println!(
            "desired state, {what:<12} {:.3} ms of CPU",
            (thread_cpu() - begun).as_secs_f64() * 1e3
        );
    }
    let mut report = |count: usize| {
        let tries = (0..50).map(|_| {
            let begun = thread_cpu();
            core.report_part(now, 0, count);
            thread_cpu() - begun
        });
        tries.min().unwrap_or_default().as_secs_f64() * 1e3
    };
    let (page, whole) = (report(limits::STATUS_PAGE), report(usize::MAX));
    println!("status, before it is encoded: a page {page:.3} ms of CPU, all of it {whole:.3} ms");
    Ok(())
}

/// Says hello, then answers every Prepare after [`EXECUTE`]; tells how long each was awaited.
fn runner(listener: &UnixListener, waits: &Sender<Duration>) -> Fallible<()> {
    let (mut stream, _) = listener.accept()?;
    let mut encoder = Encoder::default();
    let hello = RunnerMessage::Hello(Hello {
        protocol: limits::PROTOCOL_VERSION,
        instance: InstanceId(1),
        model_id: "m0000".parse()?,
        model_version: "1".into(),
        device: "cpu".parse()?,
        gpu: false,
        input: Size { width: 64, height: 64 },
        batch_max: 1,
        deadline: limits::DEADLINE_DEFAULT,
        labels: vec!["person".into()],
        latency: LatencyTable::new([LatencyEntry { batch: 1, p50: EXECUTE, p99: EXECUTE }]),
        runtime: "waits".into(),
    });
    write_message(&mut stream, hello.encode(&mut encoder))?;
    let mut buffer = Vec::new();
    let mut replied: Option<Instant> = None;
    while read_message(&mut stream, &mut buffer)? {
        let RunnerMessage::Prepare(prepare) = RunnerMessage::decode(&buffer)? else { continue };
        if let Some(replied) = replied {
            waits.send(replied.elapsed())?;
        }
        let granted = clock::monotonic();
        std::thread::sleep(EXECUTE);
        let executed = clock::monotonic();
        let times = StageTimes {
            received: granted,
            copied: granted,
            granted,
            preprocessed: granted,
            executed,
            postprocessed: executed,
        };
        let outcomes = vec![Ok(FrameDetections::default()); prepare.members.len()];
        let reply = RunnerMessage::Reply(Reply { batch: prepare.batch, times, outcomes });
        write_message(&mut stream, reply.encode(&mut encoder))?;
        replied = Some(Instant::now());
    }
    Ok(())
}

fn serve(listener: &UnixListener, told: &Mutex<Told>) -> Fallible<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = Vec::new();
    while read_message(&mut stream, &mut buffer)? {
        if let EventsMessage::Status(page) = EventsMessage::decode(&buffer)?
            && let Ok(mut told) = told.lock()
        {
            told.pages += 1;
            told.whole += u32::from(!page.more);
            told.largest = told.largest.max(buffer.len());
        }
    }
    Ok(())
}
