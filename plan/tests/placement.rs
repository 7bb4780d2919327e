//! Where models are put: examples that can be worked out by hand, and rules over random ones.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; the exemption of clippy.toml ends at helpers"
)]

use base::{DeviceId, LatencyEntry, LatencyTable, ModelId};
use plan::placement::{Placement, PlacementDevice, PlacementModel, Why, place};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;
const DELIVERY: Duration = Duration::from_millis(20);

/// Milliseconds of `alpha + beta b` for the sizes 1, 2, 4 ... `most`; p99 = p50.
fn line(alpha: f64, beta: f64, most: u32) -> LatencyTable {
    let sizes = (0..).map(|power| 1 << power).take_while(|size| *size <= most);
    LatencyTable::new(sizes.map(|batch: u32| {
        let p50 = Duration::from_secs_f64((alpha + beta * f64::from(batch)) / 1e3);
        LatencyEntry { batch, p50, p99: p50 }
    }))
}

/// One that costs `ms` per frame in batches of one, asked for `rate` frames/s from 25-fps cameras.
fn single(id: &str, ms: f64, rate: f64, devices: &[&str]) -> PlacementModel {
    let table = line(0.0, ms, 1);
    PlacementModel {
        id: ModelId::new(id).unwrap(),
        rate,
        streams: 100,
        frame_period: MS(40),
        wait_share: 1.0,
        deadline: MS(500),
        batch_max: 1,
        memory_mib: 1000,
        latency: devices.iter().map(|d| (DeviceId::new(d).unwrap(), table.clone())).collect(),
        fixed: Vec::new(),
    }
}

fn fixed(model: PlacementModel, devices: &[&str]) -> PlacementModel {
    let fixed = devices.iter().map(|d| DeviceId::new(d).unwrap()).collect();
    PlacementModel { fixed, ..model }
}

fn device(id: &str) -> PlacementDevice {
    PlacementDevice {
        id: DeviceId::new(id).unwrap(),
        memory_mib: Some(16_000),
        capacity: 1,
        usable_share: 0.9,
    }
}

/// `device: model rate share, ...` of every device in use.
fn shown(placement: &Placement) -> Vec<String> {
    let used = placement.devices.iter().filter(|d| !d.members.is_empty());
    used.map(|d| {
        let members = d.members.iter().map(|m| format!("{} {:.1} {:.3}", m.model, m.rate, m.share));
        format!("{}: {}", d.id, members.collect::<Vec<_>>().join(", "))
    })
    .collect()
}

const GPUS: [&str; 3] = ["gpu0", "gpu1", "gpu2"];

#[test]
fn the_heaviest_go_first_and_no_device_more_than_needed_is_used() {
    // 0.5 + 0.4, 0.45 + 0.3 + 0.1 of 0.9 usable: two devices, in the order of first-fit decreasing.
    let models = [(0.1, "e"), (0.45, "b"), (0.3, "d"), (0.5, "a"), (0.4, "c")]
        .map(|(share, id)| single(id, 10.0, share * 100.0, &GPUS));
    let placement = place(&models, &GPUS.map(device), DELIVERY);
    assert_eq!(
        shown(&placement),
        ["gpu0: a 50.0 1.000, c 40.0 1.000", "gpu1: b 45.0 1.000, d 30.0 1.000, e 10.0 1.000"]
    );
    assert!(placement.served_in_full());
    assert_eq!(placement.used(), 2);
    let [first, second, _] = &placement.devices[..] else { panic!() };
    assert!((first.occupancy - 0.9).abs() < 1e-9 && (second.occupancy - 0.85).abs() < 1e-9);
    assert_eq!((first.memory_mib, second.memory_mib), (2000, 3000));
}

#[test]
fn memory_holds_where_time_would_be_left() {
    let small = |id| PlacementDevice { memory_mib: Some(1500), ..device(id) };
    let models = ["a", "b", "c", "d"].map(|id| single(id, 1.0, 10.0, &GPUS));
    let placement = place(&models, &GPUS.map(small), DELIVERY);
    assert_eq!(
        shown(&placement),
        ["gpu0: a 10.0 1.000", "gpu1: b 10.0 1.000", "gpu2: c 10.0 1.000"]
    );
    assert_eq!(placement.unplaced.len(), 1);
    assert_eq!((placement.unplaced[0].model.as_str(), placement.unplaced[0].rate), ("d", 10.0));
    assert_eq!(placement.unplaced[0].why, Why::Memory(1000));
    assert!(!placement.served_in_full());
    assert_eq!((placement.share_of(&models[0]), placement.share_of(&models[3])), (1.0, 0.0));
}

#[test]
fn a_model_that_is_too_much_for_one_device_is_split() {
    // 2.0 tokens: 0.9 + 0.9 + 0.2.
    let heavy = [single("heavy", 10.0, 200.0, &GPUS)];
    let placement = place(&heavy, &GPUS.map(device), DELIVERY);
    assert_eq!(
        shown(&placement),
        ["gpu0: heavy 90.0 1.000", "gpu1: heavy 90.0 1.000", "gpu2: heavy 20.0 1.000"]
    );
    assert!(placement.served_in_full());
    assert_eq!(placement.share_of(&heavy[0]), 1.0);

    // Exactly two devices are exactly enough.
    let heavy = [single("heavy", 10.0, 180.0, &GPUS)];
    let placement = place(&heavy, &GPUS.map(device), DELIVERY);
    assert_eq!((placement.used(), placement.served_in_full()), (2, true), "{placement:?}");
}

#[test]
fn what_fits_nowhere_is_put_where_it_does_the_least_harm() {
    // 0.8 and 0.5 are there; 0.6 more: 0.1 + 0.4 fit beside them, the last 0.1 goes to the second:
    // 1.0 of 0.9 on either; the first that is tried wins.
    let models = [
        single("a", 10.0, 80.0, &GPUS),
        single("c", 10.0, 60.0, &GPUS),
        single("b", 10.0, 50.0, &GPUS),
    ];
    let placement = place(&models, &["gpu0", "gpu1"].map(device), DELIVERY);
    assert!(!placement.served_in_full() && placement.unplaced.is_empty());
    let rates: f64 = placement.devices.iter().flat_map(|d| &d.members).map(|m| m.rate).sum();
    assert!((rates - 190.0).abs() < 1e-6);
    // One device is full, the other gives everyone the same share.
    let over: Vec<_> = placement.devices.iter().filter(|d| d.occupancy > d.usable + 1e-6).collect();
    assert_eq!(over.len(), 1);
    for member in &over[0].members {
        assert!((member.share - 0.9 / 1.0).abs() < 1e-6, "{member:?}");
    }
    let given: f64 = models.iter().map(|m| placement.share_of(m) * m.rate).sum();
    assert!((given - 180.0).abs() < 1e-6, "all of both devices is given away: {given}");
}

#[test]
fn an_overloaded_device_alone_gives_the_fair_share() {
    // 1.2 + 0.6 of 0.9 usable; one runner takes one token at most.
    let models = [single("a", 10.0, 120.0, &["gpu0"]), single("b", 10.0, 60.0, &["gpu0"])];
    let placement = place(&models, &[device("gpu0")], DELIVERY);
    for model in &models {
        assert!((placement.share_of(model) - 0.5).abs() < 1e-6);
    }
    // Age does not grow: 20 to the ring, 40 until the next frame comes, a batch in the way, a batch.
    let worst = placement.devices[0].members.iter().map(|m| m.worst_age).max();
    assert_eq!(worst, Some(MS(80)));
}

#[test]
fn a_cpu_runs_as_many_models_at_a_time_as_it_has_capacity_for() {
    // Four tokens of 0.9; 0.8 each: four fit, and nobody stands in another's way.
    let cpu = PlacementDevice { capacity: 4, ..device("cpu") };
    let models = ["a", "b", "c", "d"].map(|id| single(id, 20.0, 40.0, &["cpu"]));
    let placement = place(&models, std::slice::from_ref(&cpu), DELIVERY);
    assert!(placement.served_in_full(), "{placement:?}");
    assert!((placement.devices[0].occupancy - 3.2).abs() < 1e-9);
    assert_eq!(placement.devices[0].members[0].worst_age, MS(60));

    // One model can't use two tokens of a device: it has one runner there.
    let one = [single("one", 20.0, 90.0, &["cpu"])];
    let placement = place(&one, std::slice::from_ref(&cpu), DELIVERY);
    assert!((placement.share_of(&one[0]) - 0.5).abs() < 1e-6);
    // On a second CPU device it does.
    let one = [single("one", 20.0, 90.0, &["cpu", "cpu1"])];
    let placement = place(&one, &[cpu.clone(), PlacementDevice { ..device("cpu1") }], DELIVERY);
    assert_eq!((placement.used(), placement.share_of(&one[0])), (2, 1.0));

    // A fifth model has to wait for one of the four.
    let five = ["a", "b", "c", "d", "e"].map(|id| single(id, 20.0, 30.0, &["cpu"]));
    let placement = place(&five, &[cpu], DELIVERY);
    assert_eq!(placement.devices[0].members[0].worst_age, MS(80));
}

#[test]
fn what_the_operator_chose_stays() {
    let models = [
        single("free", 10.0, 50.0, &GPUS),
        fixed(single("here", 10.0, 30.0, &GPUS), &["gpu2"]),
        fixed(single("both", 10.0, 60.0, &GPUS), &["gpu1", "gpu2"]),
        fixed(single("where", 10.0, 10.0, &["gpu0"]), &["gpu1"]),
    ];
    let placement = place(&models, &GPUS.map(device), DELIVERY);
    assert_eq!(
        shown(&placement),
        ["gpu1: both 30.0 1.000, free 50.0 1.000", "gpu2: both 30.0 1.000, here 30.0 1.000"]
    );
    let members = placement.devices.iter().flat_map(|d| &d.members);
    assert!(members.clone().all(|m| m.fixed == (m.model.as_str() != "free")));
    let why = Why::NotMeasured(Some(DeviceId::new("gpu1").unwrap()));
    assert_eq!((placement.unplaced.len(), &placement.unplaced[0].why), (1, &why));

    // Also where it makes no sense.
    let crowd = ["a", "b"].map(|id| {
        let model = fixed(single(id, 10.0, 60.0, &GPUS), &["gpu0"]);
        PlacementModel { memory_mib: 10_000, ..model }
    });
    let placement = place(&crowd, &GPUS.map(device), DELIVERY);
    assert!(placement.devices[0].memory_exceeded && placement.used() == 1);
    assert!((placement.share_of(&crowd[0]) - 0.75).abs() < 1e-6);
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    // A seventh of the card takes three times as long.
    let ids = ["gpu0-mig0", "gpu0-mig1", "gpu1"];
    let device = |id: &str| PlacementDevice {
        memory_mib: Some(if id == "gpu1" { 16_000 } else { 1_500 }),
        ..device(id)
    };
    let model = |id, rate| {
        let mut model = single(id, 10.0, rate, &ids);
        for (id, table) in &mut model.latency {
            if id.as_str() != "gpu1" {
                *table = line(0.0, 30.0, 1);
            }
        }
        model
    };
    // 0.8 and 0.3 of the whole card: the second fits on neither the rest of it nor, at 0.9 of a
    // slice, beside anything.
    let models = [model("large", 80.0), model("small", 30.0), model("tiny", 10.0)];
    let placement = place(&models, &ids.map(device), DELIVERY);
    assert_eq!(
        shown(&placement),
        ["gpu0-mig0: small 30.0 1.000", "gpu1: large 80.0 1.000, tiny 10.0 1.000"]
    );
    assert!(placement.served_in_full());
}

#[test]
fn a_deadline_that_another_model_would_break_opens_a_device() {
    // 60 ms batches beside a model that has 20 + 10 + 40 ms, 10 of them for a batch of its own.
    let quick = PlacementModel { deadline: MS(70), ..single("quick", 10.0, 20.0, &GPUS) };
    let models = [single("slow", 60.0, 5.0, &GPUS), quick.clone()];
    let placement = place(&models, &GPUS.map(device), DELIVERY);
    assert_eq!(shown(&placement), ["gpu0: slow 5.0 1.000", "gpu1: quick 20.0 1.000"]);
    // With nowhere else to go it is said, not hidden.
    let placement = place(&models, &[device("gpu0")], DELIVERY);
    assert!(!placement.served_in_full());
    let late = &placement.devices[0].members[1];
    assert_eq!((late.in_time(), late.worst_age, late.share), (false, MS(100), 1.0));
    // Blocking that smaller batches avoid is avoided: the square-root rule alone gives `long` three
    // frames, 23 ms, and 20 + 10 + 23 + 10 is more than 62.
    let batching = |id, alpha, beta, rate| PlacementModel {
        batch_max: 32,
        latency: vec![(DeviceId::new("gpu0").unwrap(), line(alpha, beta, 32))],
        ..single(id, 0.0, rate, &[])
    };
    let pair = [batching("long", 20.0, 1.0, 50.0), batching("many", 1.0, 0.5, 300.0)];
    let placement = place(&pair, &[device("gpu0")], DELIVERY);
    let long = |p: &Placement| {
        let mut members = p.devices[0].members.iter();
        members.find(|m| m.model.as_str() == "long").cloned().expect("it was placed")
    };
    assert!((2.2..2.3).contains(&long(&placement).batch), "{placement:?}");
    let quick = PlacementModel { deadline: MS(62), rate: 1.0, ..quick };
    let placement = place(&[&pair[..], &[quick]].concat(), &[device("gpu0")], DELIVERY);
    assert!(placement.served_in_full(), "{placement:?}");
    assert_eq!(long(&placement).batch_limit, 2);

    let hopeless = PlacementModel { deadline: MS(25), ..single("hopeless", 10.0, 1.0, &GPUS) };
    let placement = place(&[hopeless], &GPUS.map(device), DELIVERY);
    assert_eq!(placement.unplaced[0].why, Why::Deadline(MS(30)));
}

#[test]
fn batches_follow_the_square_root_rule_between_their_limits() {
    let id = DeviceId::new("gpu0").unwrap();
    let batching = |rate| PlacementModel {
        batch_max: 64,
        streams: 60,
        deadline: MS(100),
        latency: vec![(id.clone(), line(2.0, 1.0, 64))],
        ..single("m", 0.0, rate, &[])
    };
    let planned = |rate| {
        let placement = place(&[batching(rate)], &[device("gpu0")], DELIVERY);
        placement.devices[0].members[0].clone()
    };
    // At 100/s single frames take 0.3 of the token: no reason to wait.
    let light = planned(100.0);
    // 20 + 3, and 3 of 10 ms of finding one that has 1.5 ms to go.
    let expected = Duration::from_micros(23_450);
    assert_eq!((light.batch, light.interval, light.mean_age), (1.0, MS(10), expected));
    assert_eq!(light.worst_age, MS(26));
    // At 600/s: 0.6 for the frames, 0.3 left for launches of 2 ms: 150 a second, of 4 frames.
    let heavy = planned(600.0);
    assert!((heavy.batch - 4.0).abs() < 0.01, "{heavy:?}");
    assert!(heavy.interval > MS(6) && heavy.interval < MS(7), "{heavy:?}");
    // Wait while it fills: at most 6.7 ms, at a mean of 3/8 of that; then 6 ms. A single frame that
    // finds one executing, 0.9 of the time, has 3 ms to wait.
    assert!((heavy.worst_age.as_secs_f64() - 0.032_67).abs() < 1e-4, "{heavy:?}");
    assert!((heavy.mean_age.as_secs_f64() - 0.029_175).abs() < 1e-4, "{heavy:?}");
    // The deadline bounds it; with few streams they are the limit.
    assert_eq!(heavy.batch_limit, 38);
    let few = PlacementModel { streams: 3, ..batching(600.0) };
    let placement = place(&[few], &[device("gpu0")], DELIVERY);
    assert_eq!(placement.devices[0].members[0].batch_limit, 3);
}

#[test]
fn models_that_nobody_asks_for_only_take_memory() {
    let models = [single("idle", 10.0, 0.0, &GPUS), single("busy", 10.0, 90.0, &GPUS)];
    let placement = place(&models, &GPUS.map(device), DELIVERY);
    assert_eq!(shown(&placement), ["gpu0: busy 90.0 1.000, idle 0.0 1.000"]);
    assert!(placement.served_in_full());
    assert_eq!(placement.share_of(&models[0]), 1.0);
    assert_eq!(placement.devices[0].members[1].interval, Duration::ZERO);
}

#[test]
fn without_a_table_there_is_no_place() {
    let placement = place(&[single("new", 1.0, 1.0, &[])], &GPUS.map(device), DELIVERY);
    assert_eq!(placement.unplaced[0].why, Why::NotMeasured(None));
    let placement = place(&[single("new", 1.0, 1.0, &GPUS)], &[], DELIVERY);
    assert_eq!(placement.unplaced[0].why, Why::NotMeasured(None));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.below(1 << 20) as f64 / f64::from(1 << 20))
    }
}

fn random(seed: u64) -> (Vec<PlacementModel>, Vec<PlacementDevice>) {
    let mut random = Random(seed);
    let devices: Vec<PlacementDevice> = (0..1 + random.below(5))
        .map(|n| PlacementDevice {
            memory_mib: (random.below(4) > 0).then(|| 2000 + random.below(14_000)),
            capacity: if random.below(4) == 0 { 4 } else { 1 },
            usable_share: random.between(0.5, 0.99),
            ..device(&format!("d{n}"))
        })
        .collect();
    let models = (0..random.below(12))
        .map(|n| {
            let (alpha, beta) = (random.between(0.0, 10.0), random.between(0.2, 10.0));
            let streams = 1 + random.below(40) as u32;
            let mut latency = Vec::new();
            let mut fixed = Vec::new();
            for device in &devices {
                if random.below(10) > 0 {
                    let speed = random.between(0.5, 2.0);
                    latency.push((device.id.clone(), line(alpha * speed, beta * speed, 32)));
                }
                if random.below(12) == 0 {
                    fixed.push(device.id.clone());
                }
            }
            PlacementModel {
                rate: f64::from(streams) * random.between(0.0, 25.0),
                streams,
                wait_share: random.between(0.1, 1.0),
                deadline: MS(20 + random.below(500)),
                batch_max: 32,
                memory_mib: 100 + random.below(4000),
                latency,
                fixed,
                ..single(&format!("m{n}"), 0.0, 0.0, &[])
            }
        })
        .collect();
    (models, devices)
}

#[test]
fn rules_hold_over_random_nodes() {
    let (mut full, mut split) = (0, 0);
    for seed in 0..200 {
        let (models, devices) = random(seed);
        let placement = place(&models, &devices, DELIVERY);
        assert_eq!(placement, place(&models, &devices, DELIVERY), "seed {seed}: the same again");
        assert_eq!(placement.devices.len(), devices.len());
        full += u32::from(placement.served_in_full());
        for (placed, device) in placement.devices.iter().zip(&devices) {
            assert_eq!(placed.id, device.id);
            let limit = device.memory_mib.unwrap_or(u64::MAX);
            assert_eq!(placed.memory_exceeded, placed.memory_mib > limit, "seed {seed}");
            assert!(
                !placed.memory_exceeded || placed.members.iter().any(|m| m.fixed),
                "seed {seed}: only the operator puts too much on a device"
            );
            let needed = |share: fn(f64) -> f64| {
                placed.members.iter().map(|m| m.occupancy * share(m.share)).sum::<f64>()
            };
            let (asked, given) = (needed(|_| 1.0), needed(|share| share));
            assert!((asked - placed.occupancy).abs() < 1e-9, "seed {seed}");
            assert!(given <= device.usable() * (1.0 + 1e-6), "seed {seed}: {placed:?}");
            let served = placed.members.iter().all(|m| m.share >= 1.0);
            assert!(!served || asked <= device.usable() * (1.0 + 1e-6), "seed {seed}");
            for member in &placed.members {
                let own = member.occupancy * member.share;
                assert!(own <= device.usable_share * (1.0 + 1e-6), "seed {seed}: {member:?}");
                assert!((0.0..=1.0).contains(&member.share), "seed {seed}: {member:?}");
                assert!(member.batch >= 1.0, "seed {seed}: {member:?}");
                assert!(member.batch <= f64::from(member.batch_limit), "seed {seed}: {member:?}");
                assert!(member.mean_age <= member.worst_age, "seed {seed}: {member:?}");
            }
            let mut ids: Vec<_> = placed.members.iter().map(|m| &m.model).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), placed.members.len(), "seed {seed}: one runner per device");
        }
        for model in &models {
            let here: Vec<_> = placement
                .devices
                .iter()
                .flat_map(|d| d.members.iter().map(move |m| (&d.id, m)))
                .filter(|(_, m)| m.model == model.id)
                .collect();
            let nowhere = placement.unplaced.iter().filter(|u| u.model == model.id);
            let rate = here.iter().map(|(_, m)| m.rate).sum::<f64>()
                + nowhere.map(|u| u.rate).sum::<f64>();
            assert!((rate - model.rate).abs() <= 1e-6 * model.rate, "seed {seed}: {}", model.id);
            for (device, member) in &here {
                let measured = model.latency.iter().any(|(id, _)| id == *device);
                assert!(measured, "seed {seed}: {} on {device}", model.id);
                assert_eq!(member.fixed, model.fixed.contains(device), "seed {seed}");
                assert!(member.fixed || model.fixed.is_empty(), "seed {seed}");
            }
            split += u32::from(here.len() > 1);
        }
    }
    // The cases are worth something.
    assert!((20..180).contains(&full) && split > 20, "{full} served in full, {split} split");
}

#[test]
fn more_devices_never_serve_less() {
    for seed in 0..100 {
        let (models, devices) = random(seed);
        let models: Vec<_> =
            models.into_iter().map(|m| PlacementModel { fixed: Vec::new(), ..m }).collect();
        let placement = place(&models, &devices, DELIVERY);
        if !placement.served_in_full() {
            continue;
        }
        // A device that nothing was measured on changes nothing.
        let more = [&devices[..], &[device("unknown")]].concat();
        let again = place(&models, &more, DELIVERY);
        assert_eq!(again.devices[..devices.len()], placement.devices[..], "seed {seed}");
    }
}
