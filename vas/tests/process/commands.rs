//! Commands that end by themselves: configuration, rings, models, simulation.

use crate::node::{Place, clip, command, model, root, stderr, stdout, unread, vas};
use std::fs;

#[test]
fn a_wrong_configuration_is_told_with_file_line_and_remedy() {
    let place = Place::new("");
    let text = "[http]\nbnd = \"127.0.0.1:80\"\n\n[[assignment]]\ncamera = \"a\"\nmodel = \"m\"\n\
                desired_fps = 300\n";
    fs::write(place.config(), text).unwrap();
    let file = place.config_text();
    let expected = format!(
        "{file}:2: unknown key `bnd` in [http]; did you mean `bind`?\n\
         {file}:7: `desired_fps` in [[assignment]] is 300, must be a number from 0.1 to 30\n"
    );
    for command in [&["config", "check"][..], &["up"], &["serve"], &["ring"]] {
        let output = place.vas(command);
        assert_eq!(stderr(&output), expected, "{command:?}");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
    }
}

#[test]
fn a_missing_configuration_is_named() {
    let output = vas(&["up", "--config", "/nowhere/vas.toml"]);
    assert_eq!(
        stderr(&output),
        "configuration /nowhere/vas.toml can't be read: No such file or directory (os error 2); name \
         another with --config FILE\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn config_check_warns_and_show_prints_what_holds() {
    let place = Place::new("[[assignment]]\ncamera = \"a\"\nmodel = \"m\"\n");
    let output = place.vas(&["config", "check"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.contains("warning: assignment of model `m` names camera `a`"), "{text}");
    assert!(text.contains("names model `m`, which no [[model]] provides"), "{text}");
    assert!(text.ends_with("0 cameras, 0 models, 1 assignments: valid\n"), "{text}");
    let shown = stdout(&place.vas(&["config", "show"]));
    assert!(shown.contains(&format!("bind = \"127.0.0.1:{}\"", place.port)), "{shown}");
    assert!(shown.contains("enabled = false  # AI_FRAME_EXPORT_ENABLED overrides it"), "{shown}");
}

#[test]
fn the_clock_is_accepted_where_ingest_and_serve_look_for_it() {
    let place = Place::new("");
    let _ = fs::remove_dir_all(place.state());
    let refused = place.vas(&["clock", "accept"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("clock.accepted can't be written: "), "{refused:?}");
    fs::create_dir(place.state()).unwrap();
    let output = place.vas(&["clock", "accept"]);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("is accepted until"), "{output:?}");
    let accepted = ipc::clock_trust::accepted(&ipc::clock_trust::accepted_in(&place.state()));
    assert!(ipc::clock_trust::clocks().offset().fits(accepted.unwrap()));
}

#[test]
fn rings_that_are_not_there_are_told() {
    let place = Place::new("");
    let output = place.vas(&["ring"]);
    assert_eq!(stdout(&output), format!("no rings in {}\n", place.rings().display()));
    assert!(output.status.success());
    let output = place.vas(&["ring", "door"]);
    let rings = place.rings();
    let expected = format!(
        "vas ring: camera door has no ring in {}; `vas ring` lists those there are\n",
        rings.display()
    );
    assert_eq!(stderr(&output), expected);
    assert_eq!(output.status.code(), Some(1));
    let output = place.vas(&["ring", "../x"]);
    assert!(stderr(&output).contains("camera id `../x` is not 1 to 64 characters"));
}

#[test]
fn model_check_tells_a_good_folder_from_bad_ones() {
    let place = Place::new("");
    let good = place.vas(&["model", "check", model().to_str().unwrap()]);
    assert!(good.status.success(), "{}", stderr(&good));
    assert!(stdout(&good).contains("nanodet_g_416"), "{}", stdout(&good));

    let missing = place.vas(&["model", "check", "/nowhere/model"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).starts_with("no model at /nowhere/model:"), "{}", stderr(&missing));

    let folder = place.folder.path().join("model");
    fs::create_dir(&folder).unwrap();
    let yaml = fs::read_to_string(model().join("model.yaml")).unwrap();
    fs::write(folder.join("model.yaml"), format!("{yaml}\nconfidence_treshold: 0.5\n")).unwrap();
    let line = yaml.lines().count() + 2;
    let wrong = place.vas(&["model", "check", folder.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(1));
    let text = stderr(&wrong);
    assert!(text.contains("confidence_treshold"), "{text}");
    assert!(text.contains(&line.to_string()), "{text} lacks line {line}");
}

#[test]
fn model_run_names_the_clip_it_cannot_read() {
    let place = Place::new("");
    let model = model();
    let model = model.to_str().unwrap();
    let output = place.vas(&["model", "run", model, "/nowhere.mp4", "--jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("vas model: clip /nowhere.mp4 can't be played:"));
    let not_a_clip = root().join("README.md");
    let output = place.vas(&["model", "run", model, not_a_clip.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("README.md can't be played"), "{}", stderr(&output));
    assert!(clip().is_file());
}

#[test]
fn a_runner_whose_model_is_missing_ends_with_one_clear_line() {
    let place = Place::new("");
    let output = place.vas(&["runner", "/nowhere/model"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("vas runner: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].contains("/nowhere/model"), "{text}");
}

#[test]
fn the_same_seed_simulates_the_same_bytes() {
    let list = vas(&["sim", "--list"]);
    let names = stdout(&list);
    assert!(names.lines().any(|name| name == "demo"), "{names}");
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str, file: &str| {
        let file = folder.path().join(file);
        let output =
            vas(&["sim", "--workload", "demo", "--seed", seed, "--json", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(file).unwrap()
    };
    assert_eq!(run("3", "a.json"), run("3", "b.json"));
    assert_ne!(run("3", "a.json"), run("4", "c.json"));
    let unknown = vas(&["sim", "--workload", "dmeo"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("workload dmeo is neither built in (demo,"));
}

#[test]
fn config_check_fails_where_this_disk_can_not_give_what_is_asked_for() {
    let place = Place::new("[events]\nkeep_free = \"900000 TiB\"\n");
    let output = place.vas(&["config", "check"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["error: the disk of ", "`keep_free`", "`disk_high_percent`", "lower one of them"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(": valid"), "{text}");
}

#[test]
fn config_check_looks_into_the_models() {
    let place = Place::new("");
    let folder = place.folder.path().join("wrong");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("model.yaml"), "model_id: wrong\nconfidence_treshold: 0.5\n").unwrap();
    let models = [model(), folder.clone(), model().join("../nanodet_g_416")];
    let models = models.map(|dir| format!("[[model]]\ndir = \"{}\"\n", dir.display()));
    place.configure(&models.concat());
    let output = place.vas(&["config", "check"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let start = format!("warning: {}: ", folder.join("model.yaml").display());
    assert!(
        text.lines().any(|l| l.starts_with(&start) && l.contains("`confidence_treshold`")),
        "{text}"
    );
    assert!(text.matches("warning: ").count() > 3, "a warning per problem: {text}");
    assert!(text.contains("warning: model `nanodet_g_416` of "), "{text}");
}

#[test]
fn config_check_needs_a_file_and_show_does_not() {
    let empty = tempfile::tempdir().unwrap();
    let run = |action| command(&["config", action]).current_dir(&empty).output().unwrap();
    let checked = run("check");
    assert_eq!(checked.status.code(), Some(1), "{}", stdout(&checked));
    assert!(stderr(&checked).starts_with("configuration vas.toml can't be read:"));
    assert!(run("show").status.success());
}

#[test]
fn a_closed_output_ends_commands_quietly() {
    let place = Place::new("");
    let (config, model, clip) = (place.config_text(), model(), clip());
    let (model, clip) = (model.to_str().unwrap(), clip.to_str().unwrap());
    fs::create_dir(place.state()).unwrap();
    fs::create_dir(place.rings()).unwrap();
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["plan"],
        &["sim", "--list"],
        &["ring"],
        &["check"],
        &["model", "check", model],
        &["model", "run", model, clip, "--jsonl"],
    ] {
        let mut command = command(&[arguments, &["--config", &config]].concat());
        let output = unread(command.env("VAS_LOG", "warn"));
        assert_eq!(stderr(&output), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn what_check_could_not_save_makes_it_fail() {
    let place = Place::new("");
    fs::create_dir(place.state()).unwrap();
    assert!(place.vas(&["check"]).status.success());
    fs::write(place.state().join("control.redb"), "not a database".repeat(1000)).unwrap();
    let output = place.vas(&["check"]);
    assert!(stdout(&output).contains("can't be opened"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}
