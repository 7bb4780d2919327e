//! One `vas media`: a process that decodes or cuts, does one thing and ends.
//!
//! It gets one line of JSON and perhaps bytes, answers one line of JSON, and is killed when it takes
//! longer than [`limit`] of what it has to copy. It reads its job only after its limits are set. What it decodes came from a
//! camera: that is why it is a process.

use ipc::child::{Bounds, Memory, restrain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a job may take that copies nothing (spec V10).
const LIMIT: Duration = Duration::from_secs(20);
/// So many bytes a second any disk copies beside the recordings (chosen: a hard disk that reads and
/// writes at the same time, twice over for the syncs).
const BYTES_PER_SECOND: u64 = 10_000_000;
/// How often a waiting job looks whether serve stops.
const LOOK: Duration = Duration::from_millis(100);
/// What a job may take to end once it has answered.
const GRACE: Duration = Duration::from_secs(1);
/// Longest answer; it is one line.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Address space of a job (chosen: decoding 4K takes a tenth; FFmpeg's threads reserve the rest).
const ADDRESS_SPACE: u64 = 4 << 30;
/// Below live work of the node.
const NICE: i32 = 10;

/// Why a job brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It said why.
    #[error("{message}")]
    Refused {
        /// As in HTTP.
        code: u16,
        /// The reason and the remedy.
        message: String,
    },
    /// It could not be started.
    #[error("the media process can't be started: {0}")]
    Start(String),
    /// It ended without an answer.
    #[error("the media process ended without an answer: {0}; the log of serve has more")]
    Crashed(String),
    /// It was killed.
    #[error("the media process took longer than {} s and was ended", .0.as_secs())]
    TooSlow(Duration),
    /// Serve stops.
    #[error("serve stops; ask again when it is back")]
    Stopping,
}

/// How long a job may take that copies so many bytes.
pub fn limit(bytes: u64) -> Duration {
    LIMIT + Duration::from_secs(bytes / BYTES_PER_SECOND)
}

/// Starts jobs.
#[derive(Debug, Clone)]
pub struct Jobs {
    command: Vec<OsString>,
    bounds: Bounds,
    stopping: Arc<AtomicBool>,
}

impl Jobs {
    /// Jobs of this program and arguments; running ones end when `stopping` is set.
    pub fn new(command: Vec<OsString>, stopping: Arc<AtomicBool>) -> Jobs {
        let bounds = Bounds { memory: Memory::AddressSpace(ADDRESS_SPACE), nice: NICE };
        Jobs { command, bounds, stopping }
    }

    /// Jobs of the same program that may take so much.
    #[must_use]
    pub fn within(self, memory: Memory) -> Jobs {
        Jobs { bounds: Bounds { memory, ..self.bounds }, ..self }
    }

    /// Runs a job and waits for what it made, no longer than `limit`: its answer when the status is
    /// `done`.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn run(&self, job: &Value, bytes: Vec<u8>, limit: Duration) -> Result<Value, JobError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(JobError::Start("no program is configured".into()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| JobError::Start(format!("{}: {error}", program.display())))?;
        let answer = self.converse(&mut child, job, bytes, limit);
        // After its answer it has nothing left to do; without one it is not waited for.
        let ended = end(&mut child, if answer.is_ok() { GRACE } else { Duration::ZERO });
        let line = answer?;
        let told: Value = match serde_json::from_slice(&line) {
            Ok(told) => told,
            Err(_) => {
                let how = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                return Err(JobError::Crashed(how));
            }
        };
        if told["status"] == "done" {
            return Ok(told);
        }
        let code = told["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let code = code.filter(|code| (400..600).contains(code)).unwrap_or(500);
        let message = told["message"].as_str().unwrap_or("the media process gave no reason");
        Err(JobError::Refused { code, message: message.to_owned() })
    }

    fn converse(
        &self,
        child: &mut Child,
        job: &Value,
        bytes: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, JobError> {
        let deadline = Instant::now() + limit;
        // One that has ended already says so itself.
        if let Err(error) = restrain(child.id(), self.bounds) {
            tracing::warn!("can't limit a media process: {error}");
        }
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(JobError::Start("it has no pipes".into()));
        };
        let line = format!("{job}\n");
        // By a thread of its own: a job that answers before it has read everything would wait for
        // its reader, and this one for its writer. It ends when the job does.
        let writer = std::thread::Builder::new().name("media-job".into()).spawn(move || {
            // What it does not want to read it need not have.
            let _ = input.write_all(line.as_bytes()).and_then(|()| input.write_all(&bytes));
        });
        writer.map_err(|error| JobError::Start(error.to_string()))?;
        self.read(output, (deadline, limit))
    }

    fn read(
        &self,
        mut output: ChildStdout,
        (deadline, limit): (Instant, Duration),
    ) -> Result<Vec<u8>, JobError> {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return Err(JobError::Stopping);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(JobError::TooSlow(limit));
            }
            let wait = left.min(LOOK);
            let wait =
                Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
            let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&wait));
            if !matches!(ready, Ok(n) if n > 0) {
                continue;
            }
            match output.read(&mut buffer) {
                Ok(0) => return Ok(line),
                Ok(got) => line.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(JobError::Crashed(error.to_string())),
            }
            if line.ends_with(b"\n") {
                return Ok(line);
            }
            if line.len() > ANSWER_BYTES_MAX {
                return Err(JobError::Crashed("its answer does not end".into()));
            }
        }
    }
}

/// Waits for the end of a process, and brings it about when it does not come.
fn end(child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jobs(script: &str) -> Jobs {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        Jobs::new(command, Arc::default())
    }

    #[test]
    fn a_job_gets_its_line_and_its_bytes_and_its_answer_comes_back() {
        let script = r#"read -r job; rest=$(wc -c); echo "{\"status\":\"done\",\"job\":$job,\"rest\":$rest}""#;
        let done = jobs(script).run(&json!({"job": "x"}), vec![7; 300_000], LIMIT).unwrap();
        assert_eq!((&done["job"]["job"], &done["rest"]), (&json!("x"), &json!(300_000)));
        let limits =
            r#"read -r job; echo "{\"status\":\"done\",\"as\":$(ulimit -v),\"nice\":$(nice)}""#;
        let done = jobs(limits).run(&json!({}), vec![], LIMIT).unwrap();
        assert_eq!((&done["as"], &done["nice"]), (&json!(ADDRESS_SPACE >> 10), &json!(NICE)));
        let long =
            r#"printf '{"status":"done","text":"'; head -c 60000 /dev/zero | tr '\0' x; echo '"}'"#;
        let done = jobs(long).run(&json!({}), vec![], LIMIT).unwrap();
        assert_eq!(done["text"].as_str().unwrap().len(), 60_000, "a long answer is taken whole");
        // One that does not end after its answer is ended.
        jobs(r#"read -r job; echo '{"status":"done"}'; exec sleep 600"#)
            .run(&json!({}), vec![], LIMIT)
            .unwrap();
        // One that wants no bytes is not waited for.
        let early = r#"read -r job; echo '{"status":"done"}'; exec 0<&-; exit 0"#;
        jobs(early).run(&json!({}), vec![7; 3_000_000], LIMIT).unwrap();
    }

    #[test]
    fn a_job_may_take_as_long_as_its_bytes_need() {
        assert_eq!(limit(0), LIMIT);
        assert_eq!(limit(9_999_999), LIMIT);
        // An hour of 4 Mbit/s.
        assert_eq!(limit(1_800_000_000), LIMIT + Duration::from_secs(180));
    }

    #[test]
    fn whatever_a_job_does_there_is_one_reason() {
        let job = json!({"job": "x"});
        let run = |script: &str| jobs(script).run(&job, vec![], LIMIT).unwrap_err();
        let refused = |code, message: &str| JobError::Refused { code, message: message.into() };
        assert_eq!(
            run(r#"echo '{"status":"failed","code":404,"message":"nothing recorded"}'"#),
            refused(404, "nothing recorded")
        );
        assert_eq!(
            run(r#"echo '{"status":"failed","code":7}'"#),
            refused(500, "the media process gave no reason")
        );
        assert!(matches!(run("exit 3"), JobError::Crashed(how) if how.contains('3')));
        assert!(matches!(run("kill -9 $$"), JobError::Crashed(how) if how.contains('9')));
        assert!(matches!(run("echo nonsense"), JobError::Crashed(_)));
        assert!(matches!(run("while :; do printf xxxxxxxx; done"), JobError::Crashed(_)));
        let missing = Jobs::new(vec!["/nosuch/program".into()], Arc::default());
        assert!(matches!(missing.run(&job, vec![], LIMIT), Err(JobError::Start(_))));
        let none = Jobs::new(vec![], Arc::default());
        assert!(matches!(none.run(&job, vec![], LIMIT), Err(JobError::Start(_))));
        // Its standard input ends, so it has to be kept busy otherwise.
        let sleep = ["/bin/sleep", "600"].map(OsString::from).to_vec();
        let short = Duration::from_millis(300);
        let slow = Jobs::new(sleep.clone(), Arc::default());
        assert_eq!(slow.run(&job, vec![], short), Err(JobError::TooSlow(short)));
        let bounded =
            jobs("read -r job; echo \"{\\\"status\\\":\\\"done\\\",\\\"data\\\":$(ulimit -d)}\"");
        let bounded = bounded.within(Memory::Private(64 << 20));
        assert_eq!(bounded.run(&job, vec![], LIMIT).unwrap()["data"], 65_536);
        let stopping = Jobs::new(sleep, Arc::new(AtomicBool::new(true)));
        assert_eq!(stopping.run(&job, vec![], LIMIT), Err(JobError::Stopping));
    }
}
