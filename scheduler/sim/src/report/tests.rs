use super::*;
use crate::workload::BUILT_IN;

fn built_in(name: &str) -> Workload {
    Workload::built_in(name).unwrap().unwrap()
}

/// A shorter run of the same world.
fn short(name: &str) -> Workload {
    let mut workload = built_in(name);
    workload.warm_up_s = workload.warm_up_s.min(2.0);
    workload.seconds = workload.seconds.min(if name == "large" { 0.5 } else { 3.0 });
    workload
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let workload = short("share");
    let json = |seed| serde_json::to_string(&run("share", &workload, seed)).unwrap();
    assert_eq!(json(7), json(7));
    assert_ne!(json(7), json(8));
}

#[test]
fn built_in_workloads_break_no_invariant() {
    // Every variant of every workload runs in the example `tables`.
    for (name, _) in BUILT_IN {
        let comparison = run(name, &short(name), 1);
        let row = &comparison.rows[0];
        assert_eq!(row.violations, Vec::<String>::new(), "{name}");
        assert!(row.results > 0, "{name}");
        assert!(comparison.table().contains("fab"), "{name}");
    }
}

#[test]
fn figures_of_a_light_world_add_up() {
    let mut workload = short("s1");
    workload.seconds = 10.0;
    let comparison = run("s1", &workload, 1);
    let (row, bounds) = (&comparison.rows[0], comparison.bounds.as_ref().unwrap());
    assert!((row.goodput - 300.0).abs() < 6.0, "{}", row.goodput);
    assert!((row.over_b2.unwrap() - row.age_mean_ms / bounds.b2_ms.unwrap()).abs() < 1e-3);
    assert!(row.over_b2.unwrap() > 1.0, "no mean age is below the bound");
    assert!(row.age_mean_ms >= bounds.b1_ms);
    assert!(row.share_min > 0.9 && row.late_share == 0.0);
    let busy = row.results as f64 / row.batch_mean * 2.30 + row.results as f64 * 0.81;
    assert!((row.device_busy - busy / 10_000.0).abs() < 0.01, "{}", row.device_busy);
    assert_eq!(row.plots.ages_ms.len(), 201);
    assert!(row.plots.launches.iter().all(|l| l.start_ms < l.end_ms && l.end_ms <= 400.0));
}

#[test]
fn a_fault_is_shown_beside_the_world_without_it() {
    let comparison = run("isolation+slow", &short("isolation+slow"), 1);
    assert_eq!(comparison.beside.as_deref(), Some("isolation"));
    assert!(comparison.rows[0].models.values().all(|m| m.p99_rise_ms.is_some()));
    assert!(comparison.table().contains("beside isolation: p99"));
}

#[test]
fn unknown_policies_are_refused() {
    assert_eq!(compare("demo", &short("demo"), 1, &["best"]), None);
}

#[test]
fn streams_per_device_lie_between_what_is_served_and_what_full_batches_allow() {
    let workload = short("s1");
    let mut comparison = compare("s1", &workload, 1, &[FAB, "fifo1"]).unwrap();
    comparison.search_streams(&workload);
    let streams: Vec<f64> = comparison.rows.iter().map(|r| r.streams.unwrap()).collect();
    let most = 60.0 / workload.demand().rho() * 1.05;
    assert!(streams[0] > 80.0 && streams[0] <= most, "{streams:?} of {most}");
    // Single frames of 3.11 ms at 5 fps fill the device at 64.
    assert!(streams[1] > 50.0 && streams[1] < 66.0, "{streams:?}");
}
