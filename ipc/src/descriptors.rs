//! File descriptors of a process: as many as the system gives, and what is said when they run out.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises this process's limit of descriptors to its hard limit. Every process of VAS does, first
/// thing: a camera takes about five in ingest and one in each runner, a window of recordings one for
/// each segment, and the soft limit is often 1024 for the sake of programs that use select(2), which
/// none of ours does.
///
/// # Errors
/// A line to log when the system refuses; the process runs with what it has.
pub fn raise() -> Result<(), String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|error| {
        let has = current.unwrap_or(u64::MAX);
        format!(
            "can't raise the limit of {has} open files to its hard limit: {error}; with many \
             cameras raise it before the start (ulimit -n, LimitNOFILE)"
        )
    })
}

/// What an error says when it comes from a want of descriptors, and what to do; `None` for any other.
pub fn used_up(error: &io::Error) -> Option<String> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => {
            let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            Some(format!(
                "Too many open files: this process has all of its {most} descriptors in use; raise the \
                 limit before the start (ulimit -n, LimitNOFILE)"
            ))
        }
        Errno::NFILE => {
            Some("Too many open files on this machine: raise the sysctl fs.file-max".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_hard_limit() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let lower = maximum.map_or(1 << 16, |most| most - 1);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum }).unwrap();
        raise().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
        raise().unwrap();
    }

    #[test]
    fn a_want_of_descriptors_has_a_name_and_a_remedy_and_nothing_else_has() {
        let of = |errno: Errno| used_up(&errno.into());
        assert!(of(Errno::MFILE).unwrap().contains("LimitNOFILE"));
        assert!(of(Errno::NFILE).unwrap().contains("fs.file-max"));
        assert_eq!((of(Errno::NOENT), of(Errno::NOMEM)), (None, None));
        assert_eq!(used_up(&io::Error::other("Too many open files")), None);
    }
}
