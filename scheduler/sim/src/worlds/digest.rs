//! A hash over what the core decides.

use scheduler::Output;
use std::time::Duration;

/// FNV-1a (Fowler, Noll, Vo) over what an output decides; UTC stamps are left out.
pub(super) fn digest(hash: &mut u64, output: &Output<'_>) {
    let mut take = |value: u64| {
        for byte in value.to_le_bytes() {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let lease_ns = |lease: Option<Duration>| lease.map_or(u64::MAX, base::time::nanos);
    match output {
        Output::Prepare { runner, batch, lease, members } => {
            [1, runner.0, batch.0, lease_ns(*lease)].into_iter().for_each(&mut take);
            for m in *members {
                take(m.subscription.0);
                take(m.stamp.frame_id.0);
                take(m.parent);
            }
        }
        Output::Grant { runner, batch, lease } => {
            [2, runner.0, batch.0, lease_ns(Some(*lease))].into_iter().for_each(take);
        }
        Output::Revoke { runner, batch } => [3, runner.0, batch.0].into_iter().for_each(take),
        Output::ProfileGrant { runner, batch_size, lease } => {
            let values = [4, runner.0, u64::from(*batch_size), lease_ns(Some(*lease))];
            values.into_iter().for_each(take);
        }
        Output::Close { runner, .. } => [5, runner.0].into_iter().for_each(take),
        Output::Result { batch, binding, sequence, received, .. } => {
            let id = binding.stamp.frame_id.0;
            [6, batch.0, id, *sequence, received.0].into_iter().for_each(take);
        }
        Output::Wait { until, .. } => [7, until.0].into_iter().for_each(take),
    }
}
