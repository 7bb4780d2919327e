//! One child process of the node.

use super::screen::Screen;
use crate::cmd::Failure;
use crate::config::{Config, Model};
use base::told::{masked, visible};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for the last lines of a child that ended: a grandchild may hold its log open.
const LAST_LINES: Duration = Duration::from_millis(500);
/// How often a stopping child is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Longest line of a log that is passed on whole.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `vas serve`
    Serve,
    /// `vas ingest`
    Ingest,
    /// `vas scheduler`
    Scheduler,
    /// `vas runner`
    Runner,
}

/// Who makes work stops first; serve, which stores what is under way, last.
pub const STOP_ORDER: [Kind; 4] = [Kind::Scheduler, Kind::Runner, Kind::Ingest, Kind::Serve];

/// One child process.
#[derive(Debug)]
pub struct Part {
    kind: Kind,
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
    /// Closed when the log has been read to its end.
    log_end: Option<Receiver<()>>,
}

impl Part {
    /// Every part of the node, not started yet, in the order in which they start.
    ///
    /// # Errors
    /// When this program can't be found.
    pub fn all(config: &Config) -> Result<Vec<Part>, Failure> {
        let program = std::env::current_exe()?;
        let part = |kind, name: String, arguments: Vec<OsString>| {
            let mut arguments = arguments;
            if let Some(file) = &config.file {
                arguments.extend(["--config".into(), file.into()]);
            }
            let program = program.clone();
            Part { kind, name, program, arguments, child: None, log_end: None }
        };
        let mut parts = vec![
            part(Kind::Serve, "serve".into(), vec!["serve".into()]),
            part(Kind::Ingest, "ingest".into(), vec!["ingest".into()]),
            part(Kind::Scheduler, "scheduler".into(), vec!["scheduler".into()]),
        ];
        for model in &config.models {
            let folder = |dir: &Path| dir.file_name().unwrap_or(dir.as_os_str()).to_owned();
            let device = config.device_of(model).as_str();
            let arguments =
                vec!["runner".into(), model.dir.clone().into(), "--device".into(), device.into()];
            let mut name = format!("runner {}", folder(&model.dir).to_string_lossy());
            let alike = |other: &&Model| folder(&other.dir) == folder(&model.dir);
            if config.models.iter().filter(alike).count() > 1 {
                name = format!("{name} {device}");
            }
            parts.push(part(Kind::Runner, name, arguments));
        }
        Ok(parts)
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is serve, without which there is no node.
    pub fn is_serve(&self) -> bool {
        self.kind == Kind::Serve
    }

    /// Whether it was started and has not ended.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// How a person starts it by hand.
    pub fn command_line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str())
            .chain(self.arguments.iter().map(OsString::as_os_str));
        let quoted = words.map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:".contains(c);
            if word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Starts it; its log goes to the screen, each line behind its name.
    ///
    /// In a process group of its own, so that an interrupt from the terminal reaches `vas up`
    /// alone, which then stops all in order.
    ///
    /// # Errors
    /// When the system refuses a process or a thread.
    pub fn start(&mut self, screen: &Screen, width: usize) -> Result<(), Failure> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg("--under")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| format!("can't start {}: {e}", self.name))?;
        let log = child.stderr.take().expect("standard error was asked for as a pipe");
        let (ended, log_end) = channel();
        let (screen, prefix) = (screen.clone(), format!("{:width$} | ", self.name));
        self.child = Some(child);
        self.log_end = Some(log_end);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || {
                pass_on(log, &prefix, &screen);
                drop(ended);
            })
            .map_err(|e| format!("can't start a thread: {e}"))?;
        Ok(())
    }

    /// How it ended, once: `None` while it runs and after it was told.
    ///
    /// # Errors
    /// When the system has lost the child.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.child = None;
        self.read_last_lines();
        Ok(Some(status))
    }

    fn read_last_lines(&mut self) {
        if let Some(end) = self.log_end.take() {
            // Both a closed channel and a timeout mean: go on.
            let _ = end.recv_timeout(LAST_LINES);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            // It may have ended already: it is not reaped yet, so the id is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end, at most until `patience`; true = it has ended.
    pub fn wait_until(&mut self, patience: Instant) -> bool {
        loop {
            match self.child.as_mut().map(Child::try_wait) {
                None => return true,
                Some(Ok(None)) if Instant::now() < patience => thread::sleep(LOOK),
                Some(Ok(None)) => return false,
                Some(Ok(Some(_)) | Err(_)) => {
                    self.child = None;
                    self.read_last_lines();
                    return true;
                }
            }
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            // The kernel has the last word; there is nothing more to do about a failure.
            let _ = child.wait();
            self.read_last_lines();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pass_on(log: ChildStderr, prefix: &str, screen: &Screen) {
    let mut reader = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take_line(&mut line) {
            Ok(true) => {
                // C libraries write there too, past every filter.
                let text = visible(&masked(String::from_utf8_lossy(&line).trim_end()));
                screen.log(&format!("{prefix}{text}"));
            }
            Ok(false) | Err(_) => return,
        }
    }
}

/// Lines of bounded length.
trait TakeLine {
    /// Appends the next line, or the next [`LINE_BYTES_MAX`] bytes of it; false = the end.
    fn take_line(self, line: &mut Vec<u8>) -> std::io::Result<bool>;
}

impl<R: BufRead> TakeLine for &mut R {
    fn take_line(self, line: &mut Vec<u8>) -> std::io::Result<bool> {
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        Ok(std::io::Read::take(self, limit).read_until(b'\n', line)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_none_is_lost() {
        let text = [vec![b'a'; LINE_BYTES_MAX + 3], b"\nb\nlast".to_vec()].concat();
        let mut reader = &text[..];
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if !(&mut reader).take_line(&mut line).unwrap() {
                break;
            }
            lines.push(line.len());
        }
        assert_eq!(lines, [LINE_BYTES_MAX, 4, 2, 4]);
    }

    #[test]
    fn command_lines_can_be_pasted_into_a_shell() {
        let part = Part {
            kind: Kind::Runner,
            name: "runner".into(),
            program: "/usr/bin/vas".into(),
            arguments: vec!["runner".into(), "it's a model".into()],
            child: None,
            log_end: None,
        };
        assert_eq!(part.command_line(), "/usr/bin/vas runner 'it'\\''s a model'");
    }
}
