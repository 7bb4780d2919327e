//! `vas up`: start, failures of single parts, stop.

use crate::node::{Place, Process, child_of, model, signal, stderr, stdout, unread, until};
use ipc::instance::InstanceLock;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn people_are_found_and_nothing_is_left() {
    let place = Place::with_people();
    let output = place.vas(&["up", "--seconds", "3", "--summary"]);
    let (text, log) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{text}\n{log}");
    for part in [
        "camera one: ",
        "camera two: ",
        " persons per frame",
        "runner nanodet_g_416 on cpu",
        "ms per stage: transport ",
        "the sums agree",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}\n{log}");
    }
    place.assert_nothing_left();
    assert!(place.state().join("desired.json").is_file());
}

#[test]
fn finding_nobody_is_a_failure() {
    let place = Place::with_people();
    // Without export no frame is decoded, so the run would wait for a first result: the signal ends it.
    let text = fs::read_to_string(place.config()).unwrap();
    fs::write(place.config(), text.replace("[frame_export]\nenabled = true\n", "")).unwrap();
    let mut up = place.up(&["--seconds", "1", "--summary"]);
    up.wait_for("the node runs");
    up.signal("INT");
    assert_eq!(up.end().code(), Some(1));
    place.assert_nothing_left();
    assert!(!place.rings().exists(), "shared memory although export is off");
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let place = Place::new("");
    let mut first = place.up_serving();
    let second = place.vas(&["up"]);
    assert_eq!(second.status.code(), Some(1));
    let text = stderr(&second);
    assert!(text.starts_with("vas up: another `vas up` is already running here (lock "), "{text}");
    assert!(text.contains(&format!("pid {}", first.id())), "{text}");
    assert!(first.runs());
    assert!(place.get("/health").contains("healthy"));
    assert!(first.stop().success());
    place.assert_nothing_left();
}

#[test]
fn a_port_in_use_stops_the_start() {
    let place = Place::new("");
    let _holder = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let mut up = place.up(&[]);
    assert_eq!(up.end().code(), Some(1));
    let text = up.text();
    let line = format!("serve     | vas serve: can't listen on 127.0.0.1:{}", place.port);
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("vas up: serve did not start (exit status: 1)"), "{text}");
    place.assert_nothing_left();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let place = Place::new("");
    // Root may write everywhere, but not below a file.
    fs::write(place.state(), "").unwrap();
    let output = place.vas(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let start = format!("vas up: state directory {} is no directory; ", place.state().display());
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("set [dirs] state in vas.toml"), "{text}");
    assert!(!place.runtime().exists(), "what it made stays");
}

#[test]
fn a_hangup_stops_the_node_in_order() {
    let place = Place::new("");
    let mut up = place.up_serving();
    up.signal("HUP");
    assert!(up.end().success());
    place.assert_nothing_left();
    assert!(!place.runtime().exists());
}

#[test]
fn a_runtime_directory_that_others_may_write_to_is_refused_and_left_as_it_is() {
    let place = Place::new("");
    let runtime = place.runtime();
    fs::create_dir(&runtime).unwrap();
    let set = |mode| fs::set_permissions(&runtime, Permissions::from_mode(mode)).unwrap();
    let mode = || fs::metadata(&runtime).unwrap().permissions().mode() & 0o7777;
    set(0o1777);
    let output = place.vas(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = runtime.display();
    let expected = format!(
        "vas up: runtime directory {shown} has mode 1777: others than its owner may write to it; run `chmod \
         go-w {shown}` or set [dirs] runtime in vas.toml to a directory of its own\n"
    );
    assert_eq!(stderr(&output), expected);
    assert_eq!(mode(), 0o1777);
    set(0o755);
    let mut up = place.up_serving();
    assert_eq!(mode(), 0o755);
    assert!(up.stop().success());
    assert!(runtime.is_dir(), "it was there before");
}

#[test]
fn detections_of_which_none_is_stored_are_a_failure() {
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not make a mount namespace");
        return;
    }
    let place = Place::with_people();
    fs::create_dir(place.state()).unwrap();
    // Below the space that is kept free.
    let line = format!(
        "mount -t tmpfs -o size=64m,mode=700 none '{}' && exec '{}' up --seconds 2 --summary --config '{}'",
        place.state().display(),
        env!("CARGO_BIN_EXE_vas"),
        place.config_text()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &line]).output().unwrap();
    let (text, log) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(1), "{text}\n{log}");
    assert!(text.contains("store: 0 events, 0 dropped, "), "{text}");
    assert!(text.contains("the store fails") || text.contains("none of them is stored"), "{text}");
    assert!(log.contains("events are written above 1024 MiB"), "{log}");
    place.assert_nothing_left();
}

#[test]
fn a_summary_that_nobody_reads_does_not_keep_the_children_from_stopping_in_order() {
    let place = Place::with_people();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vas"));
    let config = place.config_text();
    command.args(["up", "--seconds", "1", "--summary", "--config", &config]);
    let output = unread(&mut command);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    place.assert_nothing_left();
}

#[test]
fn a_bad_model_is_listed_as_unavailable_and_the_rest_goes_on() {
    let place = Place::with_people();
    let mut text = fs::read_to_string(place.config()).unwrap();
    text += "[[model]]\ndir = \"broken\"\n[[assignment]]\ncamera = \"one\"\nmodel = \"broken\"\n";
    fs::write(place.config(), text).unwrap();
    let broken = place.folder.path().join("broken");
    fs::create_dir(&broken).unwrap();
    let yaml = fs::read_to_string(model().join("model.yaml")).unwrap();
    let yaml = yaml.replace("nanodet_g_416", "broken");
    fs::write(broken.join("model.yaml"), yaml).unwrap();
    let mut up = place.up_serving();
    up.wait_for("runner broken ended (exit status: 1); nothing restarts it, the others go on");
    let lines = up.text();
    let own = lines.lines().filter(|l| l.contains("| vas runner: ")).count();
    assert_eq!(own, 1, "{lines}");
    let models = place.get("/api/v1/ai-models");
    assert!(models.contains("unavailable"), "{models}");
    place.get_until("/ai/observability/status", |body| {
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        let subscriptions = status["subscriptions"].as_array().unwrap();
        subscriptions.iter().any(|s| s["results"].as_u64() > Some(0))
    });
    assert!(up.stop().success());
    place.assert_nothing_left();
}

#[test]
fn a_part_that_dies_is_told_once_and_comes_back_by_hand() {
    let place = Place::new("");
    let mut up = place.up_serving();
    let scheduler = child_of(up.id(), "scheduler").unwrap();
    signal(scheduler, "KILL");
    let line = up.wait_for("scheduler ended (signal: 9 (SIGKILL))");
    let (_, by_hand) = line.split_once("start it again with: ").unwrap();
    let mut again = Process::shell(by_hand);
    again.wait_for("connected to serve");
    assert_eq!(up.text().matches("scheduler ended").count(), 1);
    assert!(again.stop().success());
    assert!(up.stop().success());
    place.assert_nothing_left();
}

#[test]
fn serve_that_dies_later_does_not_stop_the_node() {
    let place = Place::new("");
    let mut up = place.up_serving();
    let serve = child_of(up.id(), "serve").unwrap();
    signal(serve, "KILL");
    let line = up.wait_for("serve ended (signal: 9 (SIGKILL))");
    assert!(up.runs());
    let (_, by_hand) = line.split_once("start it again with: ").unwrap();
    let mut again = Process::shell(by_hand);
    again.wait_for("scheduler connected");
    assert!(place.get("/health").contains("healthy"));
    assert!(up.stop().success());
    assert!(again.stop().success());
}

#[test]
fn the_children_end_when_up_is_killed() {
    let place = Place::new("");
    let mut up = place.up_serving();
    let children: Vec<_> = ["serve", "ingest", "scheduler"]
        .iter()
        .map(|name| child_of(up.id(), name).unwrap())
        .collect();
    let locks = ["ingest", "scheduler", "serve"].map(|n| place.runtime().join(format!("{n}.lock")));
    until("all locks", || locks.iter().all(|lock| InstanceLock::held(lock)));
    up.signal("KILL");
    up.end();
    until("the end of all children", || {
        children.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}")).exists())
    });
    assert!(locks.iter().all(|lock| !InstanceLock::held(lock)));
    // The next start is not in the way of what is left.
    let mut up = place.up_serving();
    assert!(up.stop().success());
    place.assert_nothing_left();
}

#[test]
fn rings_can_be_looked_at_while_they_are_written() {
    let place = Place::with_people();
    let mut up = place.up_serving();
    let ring = || stdout(&place.vas(&["ring"]));
    until("both rings", || {
        let text = ring();
        let live = |id: &str| text.lines().any(|l| l.starts_with(id) && l.ends_with("  live"));
        live("one ") && live("two ")
    });
    let text = ring();
    assert!(text.lines().any(|l| l.starts_with("one ") && l.contains("768x576")), "{text}");
    until("a key frame in a slot", || {
        let output = place.vas(&["ring", "one"]);
        output.status.success() && stdout(&output).contains("  key")
    });
    let slots = stdout(&place.vas(&["ring", "one"]));
    assert!(slots.contains("version 2, 768x576 NV12, "), "{slots}");
    assert!(up.stop().success());
    assert_eq!(ring(), format!("no rings in {}\n", place.rings().display()));
}

#[test]
fn the_store_is_not_checked_while_serve_holds_it() {
    let place = Place::new("");
    let mut up = place.up_serving();
    let refused = place.vas(&["check"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
    assert!(stderr(&refused).starts_with("vas check: "), "{}", stderr(&refused));
    assert!(up.stop().success());
    let checked = place.vas(&["check"]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert!(stdout(&checked).contains("control.redb"), "{}", stdout(&checked));
}

#[test]
fn what_a_scheduler_did_can_be_replayed() {
    let place = Place::with_people();
    let mut up = place.up_serving();
    let scheduler = child_of(up.id(), "scheduler").unwrap();
    signal(scheduler, "KILL");
    up.wait_for("scheduler ended");
    let trace = place.folder.path().join("trace");
    let (config, trace) = (place.config_text(), trace.to_str().unwrap().to_owned());
    let mut scheduler = Process::start(&["scheduler", "--config", &config, "--trace", &trace]);
    place.get_until("/ai/observability/status", |body| {
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        let subscriptions = status["subscriptions"].as_array().unwrap();
        subscriptions.iter().all(|s| s["ledger"]["sampled"].as_u64() > Some(2))
    });
    assert!(scheduler.stop().success());
    assert!(up.stop().success());
    let replayed = place.vas(&["replay", &trace]);
    assert!(replayed.status.success(), "{}", stderr(&replayed));
    assert!(stdout(&replayed).contains(", all equal"), "{}", stdout(&replayed));
    let other = place.vas(&["replay", &config]);
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("not a trace that can be replayed"), "{}", stderr(&other));
}
