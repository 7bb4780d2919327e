#![allow(missing_docs)]
use base::Instant;
use scheduler_sim::Workload;
use std::time::Duration;
fn main() {
    let name = std::env::args().nth(1).unwrap();
    let w = Workload::built_in(&name).unwrap().unwrap();
    let mut world = w.world(w.seed);
    world.keep_executions();
    let end = Instant::ZERO + Duration::from_secs(25);
    world.run_until(end);
    let mut waits: Vec<u64> = Vec::new();
    for d in world.delivered.iter().filter(|d| d.received.0 > 15_000_000_000) {
        waits.push(d.received.0 - d.binding.stamp.published.0);
    }
    waits.sort();
    let q = |f: f64| waits[(f * (waits.len() - 1) as f64) as usize] as f64 / 1e6;
    println!("published->received: {:?}", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0].map(q));
    let r = world.scheduler.report(end);
    for m in &r.runners { println!("{} {:?} planned {:.2} iv {:?} steered {} batches {} members {}", m.model.as_str(), m.state, m.batch_planned, m.interval, m.steered, m.batches, m.members); }
    println!("load {:.3} over {}", r.devices[0].load, r.devices[0].overloaded);
    more(&world);
    let ex: Vec<_> = world.executions.as_ref().unwrap().iter().filter(|e| e.start.0 > 20_000_000_000).take(45).collect();
    for e in ex { println!("{:.2} {:.2} {} {}", (e.start.0 - 20_000_000_000) as f64 / 1e6, (e.end.0 - e.start.0) as f64 / 1e6, e.model, e.batch); }
}
#[allow(dead_code)]
fn more(world: &scheduler_sim::World) {
    let ex = world.executions.as_ref().unwrap();
    let mut waits = Vec::new();
    for d in world.delivered.iter().filter(|d| d.received.0 > 20_000_000_000) {
        let at = ex.partition_point(|e| e.end < d.received);
        let e = &ex[at.saturating_sub(1)];
        waits.push((e.start.0 as f64 - d.binding.stamp.published.0 as f64) / 1e6);
    }
    waits.sort_by(f64::total_cmp);
    let q = |f: f64| waits[(f * (waits.len() - 1) as f64) as usize];
    println!("published->start mean {:.2} {:?}", waits.iter().sum::<f64>() / waits.len() as f64, [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0].map(q));
    let r = world.scheduler.report(world.now());
    println!("{:?}", r.runners[0].stage_sums.map(|s| s.as_secs_f64() * 1e3 / r.runners[0].members as f64));
}
