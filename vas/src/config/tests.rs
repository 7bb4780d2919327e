use super::*;

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, Path::new("/etc/vas/vas.toml"), &Environment::default())
}

/// Every problem as `line: text`.
#[track_caller]
fn check_problems(text: &str, expected: &[&str]) {
    let problems = parse(text).expect_err("the text has a problem");
    let found: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.line, p.text)).collect();
    assert_eq!(found, expected, "of\n{text}");
}

const FULL: &str = r#"
[http]
bind = "127.0.0.1:9000"
[dirs]
shm = "/dev/shm/site"
runtime = "run"
state = "/var/lib/vas"
[frame_export]
enabled = true
[events]
store_empty = true
retention = "7d"
keep_free = "512 MiB"
[media]
retention = "90d"
max_percent = 20
[cameras]
file_roots = ["clips", "/srv/clips"]
[recording]
dir = "/srv/rec"
retention = "14d"
disk_high_percent = 80
disk_low_percent = 70
keep_at_least = "90m"
[webrtc]
udp_port = 9000
announce = ["192.0.2.7", "2001:db8::1"]
[runner]
onnxruntime = "lib/libonnxruntime.so"
threads = 3
[scheduler]
cpu_capacity = 2
usable_share = 0.9
steering = "on"
[[device]]
id = "cpu"
memory_mib = 8000
[[device]]
id = "gpu0-mig1"
capacity = 3
usable_share = 0.8
[[camera]]
id = "door"
name = "Front door"
description = "above the bell"
location = "north"
main_url = "clips/door.mp4"
export = false
loop_offset_ms = 15000
[[camera]]
id = "yard"
main_url = "file:///srv/yard.mp4"
enabled = false
[[camera]]
id = "gate"
main_url = "rtsp://10.0.0.9:554/1"
sub_url = "rtsp://10.0.0.9:554/2"
sub_roles = ["live", "detect"]
transport = "udp"
record = true
live = false
[[model]]
dir = "models/nanodet"
device = "gpu0-mig1"
[[model]]
dir = "models/nanodet"
[[assignment]]
camera = "door"
model = "nanodet_g_416"
desired_fps = 5
priority = 75
deadline_ms = 400
parameters = { classes = ["person"], threshold = 0.5, nested = { a = [1, true] } }
[[assignment]]
camera = "yard"
model = "nanodet_g_416"
parent_model = "people"
max_regions = 40
enabled = false
"#;

#[test]
fn every_key_has_its_meaning() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.bind, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(config.directories.shm, Path::new("/dev/shm/site"));
    assert_eq!(config.directories.runtime, Path::new("/etc/vas/run"));
    assert_eq!(config.directories.state, Path::new("/var/lib/vas"));
    assert!(config.frame_export && config.store_empty);
    assert_eq!((config.retention_days, config.keep_free), (7, 512 << 20));
    assert_eq!(config.media, Media { retention_days: 90, max_percent: 20 });
    assert_eq!(config.onnxruntime.as_deref(), Some(Path::new("/etc/vas/lib/libonnxruntime.so")));
    assert_eq!((config.threads, config.cpu_capacity), (3, 2));
    assert_eq!((config.usable_share, config.steering), (0.9, Steering::On));
    let device = |id, capacity, memory_mib, usable_share| Device {
        id: DeviceId::new(id).unwrap(),
        capacity,
        memory_mib,
        usable_share,
    };
    let expected = [device("cpu", 2, Some(8000), None), device("gpu0-mig1", 3, None, Some(0.8))];
    assert_eq!(config.devices, expected);
    let [door, yard, gate] = &config.cameras[..] else { panic!("{:?}", config.cameras) };
    assert_eq!((door.id.as_str(), door.name.as_deref()), ("door", Some("Front door")));
    assert_eq!(door.description.as_deref(), Some("above the bell"));
    assert_eq!(door.location.as_deref(), Some("north"));
    assert_eq!(door.main_url, "file:///etc/vas/clips/door.mp4");
    assert_eq!((door.loop_offset_ms, door.export, door.enabled), (Some(15_000), Some(false), None));
    assert_eq!((yard.main_url.as_str(), yard.enabled), ("file:///srv/yard.mp4", Some(false)));
    assert_eq!((yard.sub_url.as_deref(), yard.record, yard.live), (None, None, None));
    assert_eq!(gate.main_url, "rtsp://10.0.0.9:554/1");
    assert_eq!(gate.sub_url.as_deref(), Some("rtsp://10.0.0.9:554/2"));
    assert_eq!(gate.sub_roles.as_deref(), Some(&["live".to_owned(), "detect".to_owned()][..]));
    assert_eq!(gate.transport.as_deref(), Some("udp"));
    assert_eq!((gate.record, gate.live), (Some(true), Some(false)));
    assert_eq!(config.file_roots, ["/etc/vas/clips", "/srv/clips"].map(std::path::PathBuf::from));
    let recording = Recording {
        dir: "/srv/rec".into(),
        retention_days: 14,
        disk_high_percent: 80,
        disk_low_percent: 70,
        keep_at_least: Duration::from_secs(5400),
    };
    assert_eq!(config.recording, recording);
    let announce = vec!["192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    assert_eq!(config.webrtc, Webrtc { udp_port: 9000, announce });
    assert_eq!(config.models[0].dir, Path::new("/etc/vas/models/nanodet"));
    let device_of = |n: usize| config.device_of(&config.models[n]).as_str();
    assert_eq!((device_of(0), device_of(1)), ("gpu0-mig1", "cpu"));
    let [first, second] = &config.assignments[..] else { panic!("{:?}", config.assignments) };
    assert_eq!(
        (first.desired_fps, first.priority, first.deadline_ms),
        (Some(5.0), Some(75), Some(400))
    );
    let parameters = serde_json::json!(
        {"classes": ["person"], "threshold": 0.5, "nested": {"a": [1, true]}}
    );
    assert_eq!(first.parameters.as_ref(), parameters.as_object());
    assert_eq!(first.parent_model, None);
    assert_eq!((first.max_regions, second.max_regions), (None, Some(40)));
    assert_eq!(second.parent_model.as_ref().map(base::ModelId::as_str), Some("people"));
    assert_eq!((second.desired_fps, second.priority, second.enabled), (None, None, Some(false)));
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.bind, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.directories.shm, Path::new("/dev/shm/vas"));
    assert_eq!(config.directories.runtime, Path::new("/run/vas"));
    assert_eq!(config.directories.state, Path::new("/etc/vas/vas-data"));
    assert!(!config.frame_export && !config.store_empty);
    assert_eq!((config.retention_days, &config.onnxruntime, config.threads), (30, &None, 1));
    assert!(config.file_roots.is_empty(), "no file is allowed over HTTP unless it is said");
    assert_eq!(config.keep_free, 1 << 30);
    assert_eq!(config.media, Media { retention_days: 30, max_percent: 10 });
    assert_eq!(config.recording.dir, Path::new("/etc/vas/vas-data/recordings"));
    let recording = &config.recording;
    assert_eq!(
        (recording.retention_days, recording.disk_high_percent, recording.disk_low_percent),
        (7, 90, 85)
    );
    assert_eq!(recording.keep_at_least, Duration::from_secs(7200));
    assert!(parse("").unwrap().to_string().contains("\nkeep_at_least = \"2h\"  # "));
    assert_eq!(config.webrtc, Webrtc { udp_port: 8189, announce: vec![] });
    assert!(config.cameras.is_empty() && config.models.is_empty());
    assert_eq!((config.usable_share, config.steering), (0.99, Steering::Auto));
    let [cpu] = &config.devices[..] else { panic!("{:?}", config.devices) };
    assert_eq!((cpu.id.as_str(), cpu.capacity, cpu.memory_mib), ("cpu", 1, None));
}

#[test]
fn what_show_prints_means_the_same() {
    for text in ["", FULL] {
        let config = parse(text).unwrap();
        let shown = config.to_string();
        assert_eq!(parse(&shown), Ok(config), "{shown}");
    }
}

#[test]
fn unknown_keys_are_named_with_line_and_the_nearest_known_key() {
    check_problems(
        "[htpp]\nbind = \"127.0.0.1:1\"\n\n[[assignment]]\ncamera = \"a\"\nmodel = \"m\"\ndesired_fsp = 5\n",
        &[
            "1: unknown key `htpp`; did you mean `http`?",
            "7: unknown key `desired_fsp` in [[assignment]]; did you mean `desired_fps`?",
        ],
    );
    check_problems(
        "[telemetry]\nport = 1\n[events]\nkeep = 3\n",
        &[
            "1: unknown key `telemetry`; known are http, dirs, frame_export, events, cameras, recording, media, webrtc, \
             runner, scheduler, device, camera, model, assignment",
            "4: unknown key `keep` in [events]; known are store_empty, retention, keep_free",
        ],
    );
}

#[test]
fn values_of_the_wrong_type_or_range_say_value_and_rule() {
    let assignment = "[[assignment]]\ncamera = \"a\"\nmodel = \"m\"\n";
    let cases: [(&str, &str); 18] = [
        ("max_regions = 0", "is 0, must be a whole number from 1 to 64"),
        ("max_regions = 65", "is 65, must be a whole number from 1 to 64"),
        ("max_regions = 3", "is for a second stage, which names its parent_model"),
        ("desired_fps = 31", "is 31, must be a number from 0.1 to 30"),
        ("desired_fps = 0", "is 0, must be a number from 0.1 to 30"),
        ("desired_fps = nan", "is nan, must be a number from 0.1 to 30"),
        ("desired_fps = \"5\"", "is \"5\", must be a number from 0.1 to 30"),
        ("priority = 101", "is 101, must be a whole number from 0 to 100"),
        ("priority = -1", "is -1, must be a whole number from 0 to 100"),
        ("priority = 50.5", "is 50.5, must be a whole number from 0 to 100"),
        (
            "priority = 99999999999999999999",
            "is 99999999999999999999, must be a whole number from 0 to 100",
        ),
        ("deadline_ms = 0", "is 0, must be a whole number from 1 to 8000"),
        ("deadline_ms = true", "is true, must be a whole number from 1 to 8000"),
        ("enabled = 1", "is 1, must be true or false"),
        ("parent_model = \"m\"", "is the model itself, must be another model"),
        ("parameters = [1]", "is a list, must be a table"),
        ("parameters = { at = 2026-01-01 }", "holds the date 2026-01-01: write it as a text"),
        ("parameters = { at = inf }", "holds inf, which JSON can't express"),
    ];
    for (line, rule) in cases {
        let key = line.split(' ').next().unwrap();
        check_problems(
            &format!("{assignment}{line}\n"),
            &[&format!("4: `{key}` in [[assignment]] {rule}")],
        );
    }
}

#[test]
fn places_and_addresses_are_checked() {
    let bad = "`bind` in [http] is \"8080\": must be an address and a port such as 127.0.0.1:8080";
    check_problems("[http]\nbind = \"8080\"\n", &[&format!("2: {bad}")]);
    check_problems(
        "[http]\nbind = \"0.0.0.0:8080\"\n",
        &[
            "2: `bind` in [http] is 0.0.0.0:8080, must be a loopback address: requests are not authenticated",
        ],
    );
    check_problems(
        "[http]\nbind = \"127.0.0.1:0\"\n",
        &[
            "2: `bind` in [http] is 127.0.0.1:0, must have a port from 1 to 65535: others have to know \
           where serve answers",
        ],
    );
    check_problems(
        "[dirs]\nshm = \"\"\nstate = 3\n",
        &[
            "2: `shm` in [dirs] is \"\": a path can't be empty",
            "3: `state` in [dirs] is 3, must be a text in quotes",
        ],
    );
    check_problems("http = 3\n", &["1: `http` is 3, must be a table: write [http]"]);
    check_problems(
        "[camera]\nid = \"a\"\n",
        &["1: `camera` is a table, must be a list of tables: write [[camera]]"],
    );
    check_problems(
        "[events]\nretention = \"2w\"\n",
        &["2: `retention` in [events] is \"2w\": must be whole days, \"1d\" to \"3650d\""],
    );
}

#[test]
fn cameras_and_models_are_checked() {
    check_problems("[[camera]]\n", &["1: [[camera]] needs `id`", "1: [[camera]] needs `main_url`"]);
    check_problems(
        "[[camera]]\nid = \"a b\"\nmain_url = \"http://x/1\"\nexport = \"no\"\n",
        &[
            "2: `id` in [[camera]] is \"a b\": camera id `a b` is not 1 to 64 characters of A-Z a-z 0-9 _ -",
            "3: `main_url` in [[camera]] is \"http://x/1\": scheme `http` is not supported; write rtsp://host/path \
             or file:///path",
            "4: `export` in [[camera]] is \"no\", must be true or false",
        ],
    );
    let camera = "[[camera]]\nid = \"a\"\nmain_url = \"a.mp4\"\n";
    check_problems(
        &format!("{camera}{camera}"),
        &["5: `id` in [[camera]] `a` is already used on line 2"],
    );
    check_problems(
        "[[model]]\ndir = \"m\"\ndevice = \"gpu0\"\n[[model]]\ndir = \"m\"\n",
        &[
            "3: `device` in [[model]] is \"gpu0\": no [[device]] has this id; known are cpu",
            "5: `dir` in [[model]] `/etc/vas/m` on `cpu` is already used on line 2",
        ],
    );
    let assignment = "[[assignment]]\ncamera = \"a\"\nmodel = \"m\"\n";
    check_problems(
        &format!("{assignment}{assignment}"),
        &["5: `camera` in [[assignment]] `a` with model `m` is already used on line 2"],
    );
}

#[test]
fn devices_are_checked() {
    check_problems(
        "[scheduler]\nusable_share = 1\nsteering = \"yes\"\ncpu_capacity = 2\n[[device]]\nid = \"cpu\"\n\
         capacity = 3\n[[device]]\nid = \"gpu0.mig1\"\nmemory_mb = 4\n[[device]]\ncapacity = 0\n\
         usable_share = 0.3\n",
        &[
            "2: `usable_share` in [scheduler] is 1, must be a number from 0.5 to 0.99",
            "3: `steering` in [scheduler] is \"yes\": must be off, auto or on",
            "7: `capacity` in [[device]] is 3, but `cpu_capacity` in [scheduler] on line 4 says 2: keep one \
             of them",
            "9: `id` in [[device]] is \"gpu0.mig1\": device id `gpu0.mig1` is not 1 to 64 characters of A-Z \
             a-z 0-9 _ -",
            "10: unknown key `memory_mb` in [[device]]; did you mean `memory_mib`?",
            "11: [[device]] needs `id`",
            "12: `capacity` in [[device]] is 0, must be a whole number from 1 to 256",
            "13: `usable_share` in [[device]] is 0.3, must be a number from 0.5 to 0.99",
        ],
    );
    // `cpu` is there only when no device is named, and is then the default of models.
    check_problems(
        "[[device]]\nid = \"gpu0\"\n[[model]]\ndir = \"m\"\ndevice = \"cpu\"\n",
        &["5: `device` in [[model]] is \"cpu\": no [[device]] has this id; known are gpu0"],
    );
    let config = parse("[[device]]\nid = \"cpu\"\ncapacity = 4\n").unwrap();
    assert_eq!((config.cpu_capacity, config.devices[0].capacity), (4, 4));
}

#[test]
fn text_that_is_not_toml_has_its_line() {
    let problems = parse("[http]\nbind = \n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].line, 2, "{problems:?}");
}

#[test]
fn the_environment_wins_over_frame_export() {
    let with = |text: &str, value: Option<&str>| {
        let environment =
            Environment { frame_export: value.map(str::to_owned), ..Environment::default() };
        Config::parse(text, Path::new("/v.toml"), &environment).map(|c| c.frame_export)
    };
    let on = "[frame_export]\nenabled = true\n";
    assert_eq!(with("", None), Ok(false));
    assert_eq!(with(on, None), Ok(true));
    assert_eq!(with("", Some("true")), Ok(true));
    assert_eq!(with(on, Some("0")), Ok(false));
    let problems = with(on, Some("maybe")).unwrap_err();
    assert_eq!(problems[0].text, "AI_FRAME_EXPORT_ENABLED is \"maybe\", must be true or false");
}

#[test]
fn the_runtime_directory_and_the_cores_of_the_user_count() {
    let environment =
        Environment { runtime_dir: Some("/run/user/7".into()), cores: 6, frame_export: None };
    let config = Config::parse("", Path::new("/v.toml"), &environment).unwrap();
    assert_eq!(config.directories.runtime, Path::new("/run/user/7/vas"));
    assert_eq!((config.threads, config.cpu_capacity), (3, 1));
    let few = "[runner]\nthreads = 1\n";
    let config = Config::parse(few, Path::new("/v.toml"), &environment).unwrap();
    assert_eq!((config.threads, config.cpu_capacity), (1, 3));
}

#[test]
fn warnings_name_what_is_probably_not_meant() {
    let text = "[[camera]]\nid = \"a\"\nmain_url = \"missing.mp4\"\n[[model]]\ndir = \"gone\"\n\
                [[assignment]]\ncamera = \"b\"\nmodel = \"m\"\nparent_model = \"p\"\n";
    let warnings = parse(text).unwrap().warnings();
    let starts = [
        "assignment of model `m` names camera `b`, which this file does not have",
        "frame export is off",
        "camera `a`: /etc/vas/missing.mp4 is not a file",
        "no model at /etc/vas/gone: it has no readable model.yaml",
        "assignment of camera `b` names parent model `p`, which this file does not assign",
        "assignment of camera `b` names model `m`, which no [[model]] provides",
    ];
    assert_eq!(warnings.len(), starts.len(), "{warnings:?}");
    for (warning, start) in warnings.iter().zip(starts) {
        assert!(warning.starts_with(start), "{warning}");
    }
}

#[test]
fn the_longest_ids_need_a_short_runtime_directory() {
    let longest = "x".repeat(limits::ID_CHARS_MAX);
    let socket = |device: &str| {
        let mut directories = parse("").unwrap().directories;
        directories.runtime = "/run/vas".into();
        directories.runner_socket(&longest.parse().unwrap(), &device.parse().unwrap())
    };
    assert_eq!(long_socket(&socket("gpu0")), None);
    let warning = long_socket(&socket(&longest)).unwrap();
    assert!(warning.contains("has 150 bytes, at most 107 are possible"), "{warning}");
}

#[test]
fn credentials_of_cameras_are_printed_nowhere() {
    let camera = |url: &str| format!("[[camera]]\nid = \"a\"\nmain_url = \"{url}\"\n");
    let config = parse(&camera("rtsp://admin:s3cret@10.0.0.9/1?pwd=s3cret")).unwrap();
    assert_eq!(config.cameras[0].main_url, "rtsp://admin:s3cret@10.0.0.9/1?pwd=s3cret");
    let shown = config.to_string();
    assert!(shown.contains("main_url = \"rtsp://***@10.0.0.9/1?pwd=***\""), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains("admin"));
    // What was shown is not taken for credentials.
    let problems = parse(&shown).unwrap_err();
    assert!(problems.iter().any(|p| p.text.contains("write the credentials")), "{problems:?}");
    for bad in ["http://admin:s3cret@h/1", "rtsp://admin:s3cret@h/a b", "rtsp://admin:s3c#ret@h/1"]
    {
        let problems = parse(&camera(bad)).unwrap_err();
        assert!(problems.len() == 1 && !problems[0].text.contains("s3c"), "{problems:?}");
    }
    let other = "[[camera]]\nid = \"b\"\nmain_url = \"rtsp://h:554/1\"\n";
    let warnings = parse(&(camera("rtsp://u:s3cret@h/1") + other)).unwrap().warnings();
    assert!(warnings.iter().any(|w| w.contains("two sessions to one stream")), "{warnings:?}");
    assert!(!warnings.concat().contains("s3cret"));
}

#[test]
fn cameras_recording_and_live_view_are_checked() {
    let camera = "[[camera]]\nid = \"a\"\nmain_url = \"rtsp://h/1\"\n";
    for (line, rule) in [
        (
            "transport = \"smoke\"",
            "`transport` in [[camera]] is \"smoke\": must be one of tcp, udp",
        ),
        (
            "sub_url = \"rtsp://h/1\"",
            "`sub_url` in [[camera]] is main_url itself, must be another stream",
        ),
        (
            "sub_url = \"rtsp://\"",
            "`sub_url` in [[camera]] is \"rtsp://\": names no host; write rtsp://host/path",
        ),
        (
            "sub_roles = [\"live\"]",
            "`sub_roles` in [[camera]] needs sub_url, which this camera does not have",
        ),
        ("record = 1", "`record` in [[camera]] is 1, must be true or false"),
    ] {
        check_problems(&format!("{camera}{line}\n"), &[&format!("4: {rule}")]);
    }
    let roles = "sub_url = \"rtsp://h/2\"\nsub_roles = [\"watch\"]";
    let rule = "5: `sub_roles` in [[camera]] holds \"watch\": must be one of record, live, detect";
    check_problems(&format!("{camera}{roles}\n"), &[rule]);
    for (text, rule) in [
        (
            "[recording]\nretention = \"7\"",
            "`retention` in [recording] is \"7\": must be whole days, \"1d\" to \"3650d\"",
        ),
        (
            "[recording]\ndisk_low_percent = 95",
            "`disk_low_percent` in [recording] is 95, must be below disk_high_percent, which is 90",
        ),
        (
            "[recording]\ndisk_high_percent = 100",
            "`disk_high_percent` in [recording] is 100, must be a whole number from 2 to 99",
        ),
        (
            "[cameras]\nfile_roots = \"/srv\"",
            "`file_roots` in [cameras] is \"/srv\", must be a list of texts in quotes",
        ),
        (
            "[cameras]\nfile_roots = [\"\"]",
            "`file_roots` in [cameras] holds \"\": a path can't be empty",
        ),
        (
            "[cameras]\nfile_root = []",
            "unknown key `file_root` in [cameras]; did you mean `file_roots`?",
        ),
        (
            "[media]\nretention = \"1h\"",
            "`retention` in [media] is \"1h\": must be whole days, \"1d\" to \"3650d\"",
        ),
        (
            "[media]\nmax_percent = 98",
            "`max_percent` in [media] is 98, must be a whole number from 0 to 97",
        ),
        (
            "[media]\nmax_percent = 85",
            "`max_percent` in [media] is 85, must be below disk_low_percent of [recording], which is \
             85: recordings would be removed down to nothing for it",
        ),
        (
            "[events]\nkeep_free = \"1 GB\"",
            "`keep_free` in [events] is \"1 GB\": must be a whole number and a unit such as \
             \"512 MiB\" or \"1 GiB\", or \"0\"",
        ),
        (
            "[recording]\nkeep_at_least = \"2\"",
            "`keep_at_least` in [recording] is \"2\": must be whole seconds, minutes, hours or days, \
             \"0s\" to \"3650d\"",
        ),
        (
            "[webrtc]\nudp_port = 65536",
            "`udp_port` in [webrtc] is 65536, must be a whole number from 0 to 65535",
        ),
        (
            "[webrtc]\nannounce = \"h\"",
            "`announce` in [webrtc] is \"h\", must be a list of texts in quotes",
        ),
        (
            "[webrtc]\nannounce = [\"h\"]",
            "`announce` in [webrtc] holds \"h\": must be an IP address such as 192.0.2.7",
        ),
    ] {
        check_problems(&format!("{text}\n"), &[&format!("2: {rule}")]);
    }
    assert_eq!(
        parse("[recording]\ndisk_high_percent = 60").unwrap().recording.disk_low_percent,
        59
    );
    let percent = |text: &str| parse(text).unwrap().media.max_percent;
    assert_eq!(percent("[media]\nmax_percent = 84"), 84);
    assert_eq!(percent("[recording]\ndisk_low_percent = 5"), 4);
    assert_eq!(percent("[recording]\ndisk_low_percent = 1"), 0);
}

#[test]
fn durations_are_whole_numbers_with_a_unit_and_shown_as_they_are_written() {
    let keep = |text: &str| parse(&format!("[recording]\nkeep_at_least = \"{text}\"\n"));
    for (text, seconds, shown) in [
        ("0s", 0, "0s"),
        ("0h", 0, "0s"),
        ("59s", 59, "59s"),
        ("120s", 120, "2m"),
        ("90m", 5_400, "90m"),
        ("24h", 86_400, "1d"),
        ("3650d", 3_650 * 86_400, "3650d"),
    ] {
        let config = keep(text).unwrap();
        assert_eq!(config.recording.keep_at_least, Duration::from_secs(seconds), "{text}");
        assert!(config.to_string().contains(&format!("keep_at_least = \"{shown}\"")), "{text}");
    }
    for text in [
        "",
        "h",
        "2 h",
        "-1h",
        "+1h",
        "1.5h",
        "3651d",
        "87601h",
        "2w",
        "2\u{e4}",
        "99999999999999999999d",
    ] {
        assert!(keep(text).is_err(), "{text}");
    }
}
