//! Addresses that somebody tries or is about to add: `vas media` asks them, one process each.
//!
//! What answers at such an address is anybody's. It can take what [`PROBE_DATA_BYTES_MAX`] allows for
//! some seconds, and nothing of serve or ingest.

use super::job::{JobError, Jobs};
use crate::limits::PROBES_MAX;
use base::limits::PROBE_DATA_BYTES_MAX;
use ipc::child::Memory;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a probe may take: spec V1 gives the camera 10 s, and it has to tell.
const WAIT: Duration = Duration::from_secs(12);

/// What answers at an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// `h264` or `h265`.
    pub codec: String,
    /// Width and height, where they are told.
    pub size: Option<(u64, u64)>,
    /// Pictures per second, where they could be counted.
    pub fps: Option<f64>,
}

/// Why an address was not found good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It is of no use.
    #[error("{0}")]
    Refused(String),
    /// It could not be tried.
    #[error("{0}")]
    Unavailable(String),
}

/// Tries addresses.
#[derive(Debug)]
pub struct Probes {
    jobs: Jobs,
    wait: Duration,
    file_roots: Vec<PathBuf>,
    /// A camera that is added is tried too, beside those that are only tried.
    free: Semaphore,
}

impl Probes {
    /// By jobs of this program; running ones end when `stopping` is set. Files lie below
    /// `file_roots`.
    pub fn new(
        command: Vec<OsString>,
        file_roots: Vec<PathBuf>,
        stopping: Arc<AtomicBool>,
    ) -> Probes {
        let memory = Memory::Private(PROBE_DATA_BYTES_MAX);
        let jobs = Jobs::new(command, stopping).within(memory);
        Probes { jobs, wait: WAIT, file_roots, free: Semaphore::new(PROBES_MAX) }
    }

    /// Asks an address and waits for what it shows.
    ///
    /// # Errors
    /// [`ProbeError`]; never with credentials.
    pub fn ask(&self, url: &str, transport: &str) -> Result<Found, ProbeError> {
        let busy = "too many addresses are being tried; try again later";
        let _slot = self.free.try_acquire().map_err(|_| ProbeError::Unavailable(busy.into()))?;
        let roots = &self.file_roots;
        let job = json!({"job": "probe", "url": url, "transport": transport, "file_roots": roots});
        let told = self.jobs.run(&job, vec![], self.wait).map_err(refusal)?;
        let pixels = |key: &str| told[key].as_u64().filter(|pixels| *pixels > 0);
        Ok(Found {
            codec: told["codec"].as_str().unwrap_or_default().to_owned(),
            size: pixels("width").zip(pixels("height")),
            fps: told["fps"].as_f64().filter(|fps| *fps > 0.0),
        })
    }
}

fn refusal(error: JobError) -> ProbeError {
    match error {
        JobError::Refused { code: 500 | 503, message } => ProbeError::Unavailable(message),
        JobError::Refused { message, .. } => ProbeError::Refused(message),
        JobError::Start(_) | JobError::Stopping => ProbeError::Unavailable(error.to_string()),
        JobError::TooSlow(limit) => {
            let seconds = limit.as_secs();
            ProbeError::Refused(format!(
                "nothing that can be played came within {seconds} s; check the address, and the disk of a file"
            ))
        }
        JobError::Crashed(how) => ProbeError::Refused(format!(
            "what is there ended the process that tried it ({how}), which has {} MiB of memory: a camera or \
             clip that works does not; check the address",
            PROBE_DATA_BYTES_MAX >> 20
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(script: &str) -> Probes {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        Probes::new(command, vec!["/clips".into()], Arc::default())
    }

    #[test]
    fn the_job_gets_the_address_and_the_roots_and_what_it_finds_comes_back() {
        let echo = r#"read -r job; echo "{\"status\":\"done\",\"codec\":\"$(echo "$job" | tr -d '"{}')\"}""#;
        let found = probes(echo).ask("rtsp://u:p@h/1", "udp").unwrap();
        for part in ["job:probe", "url:rtsp://u:p@h/1", "transport:udp", "file_roots:[/clips]"] {
            assert!(found.codec.contains(part), "{}", found.codec);
        }
        assert_eq!((found.size, found.fps), (None, None));
        let done = r#"read -r job; echo '{"status":"done","codec":"h264","width":4,"height":2,"fps":25.0}'"#;
        let (codec, size, fps) = ("h264".to_owned(), Some((4, 2)), Some(25.0));
        assert_eq!(probes(done).ask("rtsp://h/1", "").unwrap(), Found { codec, size, fps });
        let unknown =
            r#"read -r job; echo '{"status":"done","codec":"h264","width":0,"height":2,"fps":0}'"#;
        let found = probes(unknown).ask("rtsp://h/1", "").unwrap();
        assert_eq!((found.size, found.fps), (None, None));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_no_fault_of_the_node_and_the_other_way_round() {
        let ask = |script: &str| probes(script).ask("rtsp://h/1", "").unwrap_err();
        let failed = |code: u16| {
            ask(&format!(r#"echo '{{"status":"failed","code":{code},"message":"told"}}'"#))
        };
        for code in [401, 422, 499, 501, 502, 504] {
            assert_eq!(failed(code), ProbeError::Refused("told".into()), "{code}");
        }
        for code in [500, 503] {
            assert_eq!(failed(code), ProbeError::Unavailable("told".into()), "{code}");
        }
        let ProbeError::Refused(died) = ask("kill -6 $$") else { panic!() };
        assert!(died.contains("256 MiB") && died.contains("check the address"), "{died}");
        let mut slow = probes("exec sleep 600");
        slow.wait = Duration::from_millis(200);
        let late = slow.ask("rtsp://h/1", "").unwrap_err();
        assert!(matches!(late, ProbeError::Refused(text) if text.contains("within 0 s")));
        let none = Probes::new(vec!["/nosuch/program".into()], vec![], Arc::default());
        assert!(matches!(none.ask("rtsp://h/1", ""), Err(ProbeError::Unavailable(_))));
        let stopping = Probes::new(vec!["/bin/cat".into()], vec![], Arc::new(true.into()));
        assert!(matches!(stopping.ask("rtsp://h/1", ""), Err(ProbeError::Unavailable(_))));
    }

    #[test]
    fn only_so_many_are_tried_at_once() {
        let probes = probes(r#"read -r job; echo '{"status":"done"}'"#);
        let taken = probes.free.try_acquire_many(PROBES_MAX as u32).unwrap();
        let busy = probes.ask("rtsp://h/1", "").unwrap_err();
        assert!(matches!(busy, ProbeError::Unavailable(text) if text.contains("too many")));
        drop(taken);
        assert!(probes.ask("rtsp://h/1", "").is_ok());
    }
}
