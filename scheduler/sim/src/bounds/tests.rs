use super::*;

/// Cameras of 25 fps asked for 5 fps, 20 ms from capture to ring, deadline 100 ms, no path.
fn load(name: &str, alpha_ms: f64, beta_ms: f64, cameras: f64) -> Load {
    Load {
        name: name.into(),
        table: Vec::new(),
        alpha_ms,
        beta_ms,
        fit_ms: (alpha_ms, beta_ms),
        batch_max: 64,
        devices: BTreeSet::from([0]),
        deadline_ms: 100.0,
        delay_ms: 20.0,
        path_ms: 0.0,
        turn_ms: 0.0,
        classes: vec![Class {
            count: cameras,
            max_fps: 5.0,
            weight: 1.0,
            camera_fps: 25.0,
            aligned: false,
        }],
    }
}

fn demand(loads: Vec<Load>) -> Demand {
    let devices = loads.iter().flat_map(|l| &l.devices).max().map_or(0, |d| d + 1);
    Demand { loads, capacity: vec![1.0; devices], usable_share: 0.99 }
}

/// ResNet-50 fp16 on a T4.
fn t4(cameras: f64) -> Demand {
    demand(vec![load("t4", 2.30, 0.81, cameras)])
}

/// YOLOv9-C fp16 and int8 on an RTX 4090, ResNet-50 on an A100.
fn three(cameras: f64) -> Demand {
    let loads = [("yf", 0.47, 0.76), ("y8", 0.58, 0.40), ("a1", 1.63, 0.30)];
    demand(loads.iter().map(|(n, a, b)| load(n, *a, *b, cameras)).collect())
}

#[track_caller]
fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() <= 0.005 * expected.abs(), "{value} is not {expected}");
}

#[test]
fn b2_gives_the_figures_of_the_study() {
    // S1, 60 cameras: 23.3. The strict bound is 23.1, that of a single frame, because the interval
    // of the published form is shorter than the time between two frames (batch 0.91).
    near(t4(60.0).b2_published_ms().unwrap(), 23.34);
    near(t4(60.0).b2_ms().unwrap(), 23.11);
    near(t4(60.0).rho(), 0.256);
    // S2, 190 cameras: 29.7 is given by the unrounded fit of the study, beta about 0.78, which also
    // gives its loads of 78 % and 164 % and its 1222 results/s. The rounded 0.81 gives 31.0: with
    // S = 1 - rho_b = 0.23, 4 % of beta are 11 % of S.
    near(t4(190.0).b2_published_ms().unwrap(), 30.98);
    near(t4(190.0).b2_ms().unwrap(), 30.87);
    let unrounded = |cameras| demand(vec![load("t4", 2.30, 0.782, cameras)]);
    near(unrounded(190.0).b2_ms().unwrap(), 29.73);
    near(unrounded(60.0).b2_published_ms().unwrap(), 23.31);
    near(unrounded(190.0).rho(), 0.777);
    near(unrounded(400.0).rho(), 1.637);
    near(unrounded(400.0).bounds().b6_per_s, 1222.0);
}

#[test]
fn without_clamps_b2_is_the_closed_form() {
    let demand = three(90.0);
    let correction = demand.loads.iter().map(|l| l.kappa() / 2.0).sum::<f64>()
        / (demand.loads.iter().map(Load::lambda).sum::<f64>() / 1e3);
    near(demand.b2_ms().unwrap(), demand.b2_published_ms().unwrap() - correction);
    // Intervals of the square-root rule.
    let plans: Vec<Plan> = demand.plans(1.0).into_iter().map(Option::unwrap).collect();
    let spare = 1.0 - demand.loads.iter().map(|l| l.lambda() * l.beta_ms / 1e3).sum::<f64>();
    let used: f64 = demand.loads.iter().zip(&plans).map(|(l, p)| l.alpha_ms / p.interval_ms).sum();
    near(used, spare);
    let slope = |l: &Load, p: &Plan| {
        let rate = l.lambda() / 1e3;
        rate * (l.kappa() / 2.0 + l.beta_ms * rate) * p.interval_ms.powi(2) / l.alpha_ms
    };
    let first = slope(&demand.loads[0], &plans[0]);
    for (load, plan) in demand.loads.iter().zip(&plans) {
        near(slope(load, plan), first);
    }
}

#[test]
fn clamps_are_kept_and_the_rest_is_solved_again() {
    let mut demand = three(115.0);
    let free = demand.b2_ms().unwrap();
    demand.loads.iter_mut().for_each(|l| l.batch_max = 12);
    let plans: Vec<Plan> = demand.plans(1.0).into_iter().map(Option::unwrap).collect();
    assert!(plans.iter().all(|p| p.batch <= 12.0 + 1e-9), "{plans:?}");
    assert!(plans.iter().any(|p| (p.batch - 12.0).abs() < 1e-6), "{plans:?}");
    let spare = 1.0 - demand.loads.iter().map(|l| l.lambda() * l.beta_ms / 1e3).sum::<f64>();
    let used: f64 = demand.loads.iter().zip(&plans).map(|(l, p)| l.alpha_ms / p.interval_ms).sum();
    near(used, spare);
    assert!(demand.b2_ms().unwrap() > free);
}

#[test]
fn b2_rises_with_load_and_ends_where_overload_begins() {
    let mut before = 0.0;
    for cameras in (1..).map(|n| f64::from(n) * 10.0).take_while(|n| t4(*n).rho() < 1.0) {
        let b2 = t4(cameras).b2_ms().unwrap();
        assert!(b2 >= before - 1e-9, "{cameras} cameras: {b2} after {before}");
        assert!(b2 >= t4(cameras).loads[0].b1_ms() - 1e-9, "{cameras} cameras");
        before = b2;
    }
    assert!(before > 40.0, "it ends at {before}");
    assert_eq!(t4(400.0).b2_ms(), None);
    assert_eq!(t4(400.0).bounds().b3_ms, None);
    // One camera: nothing to gather, nothing to wait for.
    near(t4(1.0).b2_ms().unwrap(), 23.11);
}

#[test]
fn the_deadline_clamp_solves_for_the_wait_of_its_own_batch() {
    // b (0.81 + 1000 / (190 x 25)) <= 100 - 20 - 2.3.
    let mut load = load("t4", 2.30, 0.81, 190.0);
    load.batch_max = 256;
    assert_eq!(load.batch_in_time(), (77.7 / (0.81 + 1e3 / 4750.0)) as u32);
    load.batch_max = 64;
    assert_eq!(load.batch_in_time(), 64);
    load.deadline_ms = 23.2;
    assert_eq!(load.batch_in_time(), 0, "the wait of a frame period / N no longer fits");
    assert_eq!(demand(vec![load]).bounds().b6_per_s, 0.0);
}

#[test]
fn b3_holds_the_wait_the_batch_and_the_longest_other_batch() {
    let bounds = three(90.0).bounds();
    let demand = three(90.0);
    for load in &demand.loads {
        let model = &bounds.models[&load.name];
        let wait = 0.2 * model.interval_ms.unwrap();
        let own = 20.0 + wait + load.latency_ms(model.batch_planned);
        near(model.b3_ms.unwrap(), own + model.blocking_ms);
        assert!(model.b3_p99_ms < model.b3_ms);
        assert!(model.blocking_ms > 0.0);
    }
    assert_eq!(t4(190.0).bounds().models["t4"].blocking_ms, 0.0);
    // The plan keeps 1 % back, so its intervals are longer than those of B2.
    assert!(t4(190.0).bounds().models["t4"].interval_ms > Some(9.978));
}

#[test]
fn the_eager_cycle_is_a_fixed_point() {
    let cycle = t4(190.0).eager_cycle_ms().unwrap();
    near(cycle, 2.30 + 0.81 * 0.95 * cycle);
    assert_eq!(t4(400.0).eager_cycle_ms(), None);
}

#[test]
fn the_path_of_the_world_adds_to_every_age_and_shortens_batches() {
    let mut demand = t4(190.0);
    demand.loads[0].path_ms = 0.6;
    let bounds = demand.bounds();
    near(bounds.b2_ms.unwrap(), bounds.b2_bare_ms.unwrap() + 0.6);
    near(bounds.b1_ms, 23.71);
    demand.loads[0].turn_ms = 0.1;
    assert!(demand.bounds().b2_token_ms > bounds.b2_ms);
    assert_eq!(demand.bounds().b2_ms, bounds.b2_ms);
}

#[test]
fn aligned_cameras_have_no_wait() {
    let mut demand = t4(190.0);
    demand.loads[0].classes[0].aligned = true;
    // alpha + beta b with b = lambda alpha / S, and no wait.
    near(demand.b2_ms().unwrap(), 20.0 + 9.978);
}

#[test]
fn fair_rates_fill_the_device_in_proportion_to_weight() {
    let mut demand = t4(400.0);
    let even = demand.fair();
    near(even.theta, 1.0 / demand.rho());
    near(even.per_load[0], 2000.0 / demand.rho());
    // A hundred of weight 4 reach their ceiling, the others share what is left.
    let mut heavy = demand.loads[0].classes[0].clone();
    (heavy.count, heavy.weight) = (100.0, 4.0);
    demand.loads[0].classes[0].count = 300.0;
    demand.loads[0].classes.push(heavy);
    let fair = demand.fair();
    near(fair.per_load[0], even.per_load[0]);
    near(fair.theta * 300.0 + 100.0, even.per_load[0] / 5.0);
    // Nothing is short.
    assert_eq!(t4(100.0).fair().theta, f64::INFINITY);
    near(t4(100.0).fair().per_load[0], 500.0);
}

#[test]
fn models_on_several_devices_take_what_others_leave() {
    let on = |mut load: Load, devices: &[usize]| {
        load.devices = devices.iter().copied().collect();
        load
    };
    // One model alone on device 0, one that runs on both: they even out.
    let narrow = on(load("narrow", 2.30, 0.81, 300.0), &[0]);
    let wide = on(load("wide", 2.30, 0.81, 300.0), &[0, 1]);
    let fair = demand(vec![narrow.clone(), wide.clone()]).fair();
    near(fair.per_load[0], fair.per_load[1]);
    near(fair.theta, 2.0 / (2.0 * t4(300.0).rho()));
    // When the narrow one is short on its own device, the other is not held back by that.
    let mut crowd = narrow.clone();
    crowd.classes[0].count = 900.0;
    let fair = demand(vec![crowd.clone(), wide.clone()]).fair();
    near(fair.theta_by_load[0], 1.0 / t4(900.0).rho());
    near(demand(vec![crowd.clone(), wide.clone()]).rho(), t4(900.0).rho());
    assert_eq!(demand(vec![crowd.clone(), wide.clone()]).b2_ms(), None);
    near(fair.theta_by_load[1], 1.0 / t4(300.0).rho());
    // Devices that share nothing are apart.
    let apart = demand(vec![crowd, on(wide, &[1])]);
    assert_eq!(apart.groups().len(), 2);
    assert_eq!(demand(vec![narrow]).groups(), [(vec![0], 1.0)]);
}

#[test]
fn a_table_counts_as_measured_and_its_line_lies_below() {
    let table = vec![(1, 11.9), (2, 16.5), (4, 26.4), (8, 50.0), (16, 103.2)];
    let (alpha_ms, beta_ms) = Load::line_below(&table);
    let mut load = load("yolov5s", alpha_ms, beta_ms, 20.0);
    for (b, ms) in &table {
        assert!(alpha_ms + beta_ms * f64::from(*b) <= ms + 1e-9);
    }
    load.table = table;
    load.batch_max = 16;
    load.deadline_ms = 500.0;
    near(load.latency_ms(3.0), (16.5 + 26.4) / 2.0);
    assert!(Load::line_through(&load.table).0 >= alpha_ms);
    assert!(demand(vec![load.clone()]).b2_ms().unwrap() >= load.b1_ms());
    // The cheapest frame is in a batch of 8, not in the largest.
    near(load.cost_ms().unwrap(), 50.0 / 8.0);
}

#[test]
fn several_devices_are_never_worse_than_one() {
    let one = t4(190.0).b2_ms().unwrap();
    let mut two = t4(190.0);
    two.capacity = vec![1.0, 1.0];
    two.loads[0].devices = BTreeSet::from([0, 1]);
    assert!(two.b2_ms().unwrap() < one);
    near(two.rho(), t4(190.0).rho() / 2.0);
}
