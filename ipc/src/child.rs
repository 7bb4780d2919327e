//! What a child process may take of the machine: decode workers and media jobs work on bytes that a
//! stranger chose, and must not take the node along.
//!
//! The parent says it right after the start, before the child gets anything to work on. Called by
//! ingest's links and by serve's media jobs.

use base::limits::CHILD_OOM_SCORE_ADJ;
use rustix::process::{Pid, Resource, Rlimit, prlimit, setpriority_process};
use std::io;

/// Which memory is bounded, in bytes. Beyond it an allocation fails inside the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// All of its address space.
    AddressSpace(u64),
    /// What is its own and writable: heap and stacks, not its program, nor shared memory such as a
    /// ring that it has mapped.
    Private(u64),
}

/// What a child may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory.
    pub memory: Memory,
    /// How far it is below the parent's other work; 0 = not at all.
    pub nice: i32,
}

/// Bounds a child that was just started, and puts it before its parent when the machine has no
/// memory left. No core is written of it: what it works on is nobody's affair.
///
/// # Errors
/// That of the first bound that can't be set; the others are tried all the same.
pub fn restrain(child: u32, bounds: Bounds) -> io::Result<()> {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    // Without a process the calls below would mean the caller itself.
    let pid = Some(pid.ok_or(io::ErrorKind::InvalidInput)?);
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let (resource, bytes) = match bounds.memory {
        Memory::AddressSpace(bytes) => (Resource::As, bytes),
        Memory::Private(bytes) => (Resource::Data, bytes),
    };
    let memory = prlimit(pid, resource, limit(bytes)).map(drop).map_err(io::Error::from);
    let core = prlimit(pid, Resource::Core, limit(0)).map(drop).map_err(io::Error::from);
    // Raising needs no privilege.
    let path = format!("/proc/{child}/oom_score_adj");
    let first_to_go = std::fs::write(path, CHILD_OOM_SCORE_ADJ.to_string());
    let below = match bounds.nice {
        0 => Ok(()),
        nice => setpriority_process(pid, nice).map_err(io::Error::from),
    };
    memory.and(core).and(first_to_go).and(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    /// A shell that does `script` once it is told to.
    fn bounded(script: &str, bounds: Bounds) -> String {
        let mut child = shell(&format!("read -r go; {script}"));
        restrain(child.id(), bounds).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        said.trim().to_owned()
    }

    fn shell(script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_child_has_its_bounds_before_it_gets_its_work() {
        let script =
            "echo $(ulimit -v) $(ulimit -d) $(ulimit -c) $(nice) $(cat /proc/self/oom_score_adj)";
        let own = shell("ulimit -v; ulimit -d; nice").wait_with_output().unwrap().stdout;
        let own = String::from_utf8(own).unwrap();
        let own: Vec<&str> = own.split_whitespace().collect();
        let bounds = Bounds { memory: Memory::Private(1 << 30), nice: 0 };
        assert_eq!(
            bounded(script, bounds),
            format!("{} 1048576 0 {} {CHILD_OOM_SCORE_ADJ}", own[0], own[2])
        );
        let bounds = Bounds { memory: Memory::AddressSpace(2 << 30), nice: 7 };
        assert_eq!(
            bounded(script, bounds),
            format!("2097152 {} 0 7 {CHILD_OOM_SCORE_ADJ}", own[1])
        );
    }

    #[test]
    fn nobody_is_bounded_when_there_is_no_child() {
        let bounds = Bounds { memory: Memory::Private(1 << 20), nice: 19 };
        assert!(restrain(0, bounds).is_err());
        assert!(restrain(u32::MAX, bounds).is_err());
        let mut gone = shell("exit 0");
        gone.wait().unwrap();
        assert!(restrain(gone.id(), bounds).is_err());
        assert_eq!(bounded_self(), None, "the caller keeps what it had");
    }

    /// The limit of this very process on private memory, if it was set to the one above.
    fn bounded_self() -> Option<u64> {
        rustix::process::getrlimit(Resource::Data).current.filter(|bytes| *bytes == 1 << 20)
    }
}
