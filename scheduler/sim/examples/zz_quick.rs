#![allow(missing_docs)]
use scheduler_sim::Workload;
use scheduler_sim::report::compare;
fn main() {
    for name in std::env::args().skip(1) {
        let workload = Workload::built_in(&name).unwrap().unwrap();
        let pol = std::env::args().skip(1).next().map(|_| vec!["fab", "fab-defaults"]).unwrap();
        let c = compare(
            &name,
            &workload,
            workload.seed,
            &pol.iter()
                .map(|s| s.to_string())
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        let c = c.unwrap();
        println!("{name}: B2 {:?}", c.bounds.as_ref().map(|b| (b.rho, b.b2_ms)));
        for r in &c.rows {
            println!(
                "  {:13} mean {:.2} p50 {:.2} p99 {:.2} max {:.1} good {:.1} late {:.4} busy {:.3} batch {:.2} jain {:?} min {:.3} ceil {:?} b2 {:?} b3 {:?} b6 {:?}",
                r.policy,
                r.age_mean_ms,
                r.age_p50_ms,
                r.age_p99_ms,
                r.age_max_ms,
                r.goodput,
                r.late_share,
                r.device_busy,
                r.batch_mean,
                r.jain.map(|j| (j * 1e4).round() / 1e4),
                r.share_min,
                r.share_min_at_ceiling.map(|j| (j * 1e3).round() / 1e3),
                r.over_b2,
                r.over_b3,
                r.over_b6
            );
            for v in &r.violations {
                println!("     VIOLATION {v}");
            }
        }
    }
}
