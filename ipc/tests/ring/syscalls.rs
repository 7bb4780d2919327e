//! The writer makes no system call per frame: a child under a seccomp filter that kills it at the
//! first one.

use crate::support::{child, info, paint, publish, shm, spec};
use ipc::ring::RingWriter;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// What the child ends with where the kernel has no seccomp.
const UNSUPPORTED: i32 = 77;
/// Clock sources that the vDSO reads without entering the kernel.
const VDSO: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// A child: writes frames with nothing allowed but the end of the process.
pub fn write(shm: &Path, call: bool) {
    let mut writer = RingWriter::create(shm, &spec(640, 480)).unwrap();
    publish(&mut writer);
    let info = info(1);
    let mut allowed = vec![libc::SYS_exit_group];
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = std::fs::read_to_string(source).unwrap_or_default();
    if !VDSO.contains(&source.trim()) {
        println!("clock source `{}` needs system calls: clock_gettime is allowed", source.trim());
        allowed.push(libc::SYS_clock_gettime);
    }
    let filter = SeccompFilter::new(
        allowed.into_iter().map(|number| (number, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    if let Err(error) = seccompiler::apply_filter(&program) {
        println!("{error}");
        std::process::exit(UNSUPPORTED);
    }
    for id in 2..100 {
        let mut slot = writer.begin();
        paint(id, slot.pixels());
        slot.publish(&info);
        if id % 10 == 0 {
            writer.heartbeat();
            let _ = writer.begin();
        }
        if call {
            let _ = rustix::process::getppid();
        }
    }
    // SAFETY: ends the process at once; there is nothing to flush or to drop.
    unsafe { libc::_exit(0) };
}

#[test]
fn a_frame_costs_no_system_call() {
    for (order, killed) in [("quiet", false), ("call", true)] {
        let shm = shm();
        let order = format!("write_under_filter {} {order}", shm.path().display());
        let output = child(&order).output().unwrap();
        if output.status.code() == Some(UNSUPPORTED) {
            println!("skipped, no seccomp: {}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        if killed {
            // The filter works: a child that does call is killed.
            assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
        } else {
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }
    }
}
