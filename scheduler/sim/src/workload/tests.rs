use super::*;

#[test]
fn every_name_of_the_list_gives_a_workload() {
    let names = names();
    assert!(names.len() > BUILT_IN.len());
    for name in &names {
        Workload::built_in(name).unwrap().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (alias, name) in ALIASES {
        assert_eq!(Workload::built_in(alias), Workload::built_in(name), "{alias}");
    }
    assert_eq!(Workload::built_in("w4+x3"), Workload::built_in("overload+x3"));
    assert!(Workload::built_in("nothing").is_none());
}

#[test]
fn mistakes_are_named() {
    let good = BUILT_IN[0].1;
    for (from, to, says) in [
        ("seconds", "secnods", "secnods"),
        ("model = \"nanodet\"", "model = \"other\"", "`other`"),
        ("fps = 10.0", "fps = -1.0", "-1"),
        ("beta_ms = 21.0", "beta_ms = 21.0\ntable_ms = [[4, 2.0], [2, 1.0]]", "must rise"),
        ("seconds", "scheduler = { steering = \"maybe\" }\nseconds", "maybe"),
        ("seconds", "scheduler = { usable_share = 1.5 }\nseconds", "1.5"),
    ] {
        let error = Workload::parse(&good.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let unknown = Workload::with_variants(good, &["loud"]).unwrap_err().to_string();
    assert!(unknown.contains("`loud`") && unknown.contains("noisy"), "{unknown}");
}

#[test]
fn variants_replace_what_they_name() {
    let text = "description = \"a\"\nseconds = 1.0\n\
        [[camera]]\ncount = 2\nfps = 25.0\nwatch = [{ model = \"m\", fps = 5.0 }]\n\
        [[model]]\nname = \"m\"\nalpha_ms = 1.0\n[[model]]\nname = \"n\"\nalpha_ms = 1.0\n\
        [variant.more]\ncamera = { count = 9 }\nscheduler = { steering = \"on\" }\n\
        [[variant.slow.model]]\nname = \"n\"\nalpha_ms = 3.0\n\
        [[variant.other.model]]\nname = \"o\"\nalpha_ms = 3.0\n";
    let with = |variants: &[&str]| Workload::with_variants(text, variants);
    let both = with(&["more", "slow", "noisy"]).unwrap();
    assert_eq!(both.camera[0].count, 9);
    assert_eq!(both.scheduler.steering, Some(SteeringName::On));
    let costs: Vec<_> = both.model.iter().map(|m| (m.alpha_ms, m.noise, m.spikes)).collect();
    assert_eq!(costs, [(1.0, 0.05, 0.01), (3.0, 0.05, 0.01)]);
    assert_eq!(both.camera[0].jitter_ms, 2.0);
    assert_eq!(with(&[]).unwrap().camera[0].count, 2);
    assert!(with(&["other"]).unwrap_err().to_string().contains("no known model"));
}

#[test]
fn a_random_start_spreads_and_an_aligned_one_does_not() {
    let of = |name: &str| {
        let mut play = Workload::built_in(name).unwrap().unwrap().play(1);
        let at_once = play.world.desired().len();
        play.run_until(at(2.0));
        (at_once, play.world.desired().len())
    };
    assert_eq!(of("s1+sync"), (60, 60));
    let (at_once, later) = of("s1");
    assert!(at_once < 5, "{at_once}");
    assert_eq!(later, 60);
}

#[test]
fn presence_counts_the_seconds_of_each_assignment() {
    let mut play = Workload::built_in("churn").unwrap().unwrap().play(1);
    play.run_until(at(12.0));
    let presence = play.presence();
    assert!(presence.iter().all(|s| (0.0..=12.0).contains(s)));
    let whole = presence.iter().filter(|s| **s == 12.0).count();
    let some = presence.iter().filter(|s| **s > 0.0).count();
    assert!(whole < some, "{whole} of {some} were there all the time");
    let now = play.world.desired().len();
    assert_eq!(now, play.active.iter().filter(|a| a.is_some()).count());
    assert!(now.abs_diff(play.wanted) < play.wanted / 5, "{now} of {}", play.wanted);
}

#[test]
fn the_demand_of_a_workload_adds_up() {
    let demand = Workload::built_in("s3").unwrap().unwrap().demand();
    assert_eq!(demand.loads.len(), 3);
    for load in &demand.loads {
        assert!((load.lambda() - 450.0).abs() < 1e-9);
        assert!((load.kappa() - 0.2).abs() < 1e-9);
        assert!((load.path_ms - 0.6).abs() < 1e-9);
    }
    let rho = |name: &str| Workload::built_in(name).unwrap().unwrap().demand().rho();
    for (name, expected) in [
        ("s1", 0.25),
        ("s2", 0.79),
        ("s3", 0.70),
        ("s4", 0.95),
        ("s5", 1.64),
        ("s6", 1.68),
        ("s8", 0.58),
        ("s9", 1.20),
        ("overload+x1.2", 1.2),
        ("overload+x1.6", 1.6),
        ("overload+x3", 3.0),
        ("overload3+x1.2", 1.2),
        ("overload3+x1.6", 1.6),
        ("overload3+x3", 3.0),
        ("s3+load50", 0.50),
        ("s3+load90", 0.90),
    ] {
        assert!((rho(name) - expected).abs() < 0.012 * expected.max(1.0), "{name}: {}", rho(name));
    }
}
