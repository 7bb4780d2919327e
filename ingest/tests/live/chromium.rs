//! A headless chromium, driven by its DevTools protocol over a pipe. Shared by the tests of live view,
//! its benchmark, and the test of the page in `vas`.
#![allow(dead_code, reason = "each of them uses a part of it")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Chromium {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    next: u64,
    page: Option<String>,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// With an empty page. `prefix` is a command that runs it, such as `ip netns exec NAME`.
    pub fn start(prefix: &[&str]) -> Chromium {
        let profile = tempfile::tempdir().unwrap();
        // It wants the protocol on descriptors 3 and 4.
        let shell = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut words: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
        words.extend(["sh", "-c", shell, "sh", "chromium"].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let child = command
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-component-update",
                "--autoplay-policy=no-user-gesture-required",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromium starts; hack/setup installs it");
        let mut child = child;
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let (next, page) = (1, None);
        let mut this = Chromium { child, commands, answers, next, page, _profile: profile };
        let target = this.call("Target.createTarget", json!({"url": "about:blank"}));
        let parameters = json!({"targetId": target["targetId"], "flatten": true});
        let session = this.call("Target.attachToTarget", parameters);
        this.page = session["sessionId"].as_str().map(str::to_owned);
        let size = json!({"width": 640, "height": 400, "deviceScaleFactor": 1, "mobile": false});
        this.call("Emulation.setDeviceMetricsOverride", size);
        this
    }

    /// Opens a page.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// What an expression is, awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Writes what the page shows as a PNG.
    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        std::fs::write(path, base64(answer["data"].as_str().unwrap())).unwrap();
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("chromium runs");
        loop {
            let mut line = Vec::new();
            let read = self.answers.read_until(0, &mut line).unwrap();
            assert!(read > 0, "chromium ended at {method}");
            line.pop();
            let mut answer: Value = serde_json::from_slice(&line).unwrap();
            if answer["id"] == json!(id) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        // Its pipe closes at its end; a browser that hangs is killed.
        for _ in 0..200 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, &c| bits << 6 | u32::from(value(c)));
        let bits = bits << (6 * (4 - four.len()));
        out.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    out
}
