#![allow(missing_docs)]
use base::Instant;
use scheduler_sim::Workload;
use std::time::Duration;
fn main() {
    let name = std::env::args().nth(1).unwrap();
    let w = Workload::built_in(&name).unwrap().unwrap();
    let mut play = w.play(w.seed);
    let mut before: std::collections::BTreeMap<String, u64> = Default::default();
    for t in 15..45 {
        play.run_until(Instant::ZERO + Duration::from_secs(t));
        let r = play.world.scheduler.report(Instant::ZERO + Duration::from_secs(t));
        for s in &r.subscriptions {
            let b = before.insert(s.id.clone(), s.ledger.bound).unwrap_or(s.ledger.bound);
            if t > 15 && s.ledger.bound - b < 5 {
                println!(
                    "{t} {} {} gated {} sup {} exp {} late {} granted {} {}",
                    s.id,
                    s.ledger.bound - b,
                    s.ledger.gated,
                    s.ledger.superseded,
                    s.ledger.expired,
                    s.ledger.expired_late,
                    s.granted_fps,
                    s.reason
                );
            }
        }
    }
}
