//! A scheduler that may watch fewer sockets than it has. Alone in its process, whose limit it lowers.

use ipc::directories::Directories;
use ipc::stop::Stop;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use scheduler_driver::{Options, Steering, run};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// CPU time of this process.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_poll_that_is_refused_is_not_tried_again_and_again() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let directories = Directories { shm: at("shm"), runtime: at("run"), state: at("state") };
    std::fs::create_dir(&directories.runtime).unwrap();
    let serve = UnixListener::bind(directories.events_socket()).unwrap();
    let options = Options {
        directories,
        capacities: vec![],
        usable_share: 0.9,
        steering: Steering::Off,
        trace: None,
    };
    let (trigger, stop) = Stop::pair().unwrap();
    let thread = std::thread::spawn(move || run(options, stop));
    let (connection, _) = serve.accept().unwrap();
    // poll(2) refuses more descriptors than the limit allows, of which open ones keep working.
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(1), ..before }).unwrap();
    let (begun, cpu) = (Instant::now(), used());
    std::thread::park_timeout(Duration::from_millis(1500));
    let (wall, cpu) = (begun.elapsed(), used() - cpu);
    drop(trigger);
    let ended = thread.join();
    setrlimit(Resource::Nofile, before).unwrap();
    ended.unwrap().unwrap();
    drop(connection);
    assert!(cpu < wall / 4, "{cpu:?} of CPU in {wall:?}");
}
