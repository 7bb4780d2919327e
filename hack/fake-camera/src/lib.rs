//! An RTSP camera made for tests: it plays access units, over TCP or UDP, and does on request what
//! real cameras were seen to do wrong.
//!
//! It is written from the RFCs (2326, 2617, 3550, 6184, 7798), not from the client that it tests.
//! Everything is deterministic but the operating system: what it sends next is said by
//! [`Camera::act`], one [`Act`] after another, each before the next access unit.

mod auth;
mod clip;
mod packets;
mod sender;
mod server;

pub use auth::Auth;
pub use clip::{Clip, Codec, Unit};

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How a camera is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What it plays, in a loop.
    pub clip: Clip,
    /// Pictures that it sends per second.
    pub fps: f64,
    /// Pictures per second as its timestamps say; the same unless it lies.
    pub stamped_fps: f64,
    /// Who may see it.
    pub auth: Auth,
    /// Whether the SDP holds the parameter sets.
    pub parameters_in_sdp: bool,
    /// RTP time of the first picture.
    pub first_timestamp: u32,
    /// Sequence number of the first packet.
    pub first_sequence: u16,
    /// The picture of the clip that a session begins with.
    pub first_unit: usize,
    /// Pictures that are sent at once when a session begins.
    pub burst: usize,
    /// Whether it can send over UDP and TCP.
    pub transports: (bool, bool),
    /// The server software that the SDP names.
    pub tool: &'static str,
    /// Content-Type of its SDP; empty = it has none.
    pub content_type: &'static str,
    /// Whether it says this wherever the protocol leaves the words to it, does what libraries complain
    /// of without giving up (a Content-Base without a scheme, a stream that can't be read, one that was
    /// not asked for in RTP-Info), and sends requests of its own.
    pub talk: Option<String>,
}

impl Settings {
    /// A sound camera without a password.
    pub fn new(clip: Clip, fps: f64) -> Settings {
        Settings {
            clip,
            fps,
            stamped_fps: fps,
            auth: Auth::Open,
            parameters_in_sdp: true,
            first_timestamp: 12_345,
            first_sequence: 1000,
            first_unit: 0,
            burst: 0,
            transports: (true, true),
            tool: "fake camera",
            content_type: "application/sdp",
            talk: None,
        }
    }
}

/// What of a text may stand in a header; no client takes others there.
fn printed(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).collect()
}

/// What a camera does before its next picture. The sessions of a camera share the list: the first
/// that looks does it.
#[derive(Debug, Clone)]
pub enum Act {
    /// Sends nothing until [`Act::Resume`]; the connection stays. The clock goes on.
    Silence,
    /// Sends again.
    Resume,
    /// Closes the connections.
    Close,
    /// Sends half a packet and resets the connection.
    HalfThenReset,
    /// Moves the clock of the timestamps, for good.
    Step(i64),
    /// Gives so many pictures the timestamp of the one before.
    Repeat(u32),
    /// Moves the timestamp of one picture.
    Stray(i64),
    /// Loses so many packets.
    Lose(u32),
    /// Before each of so many pictures, sends a packet of another sender.
    Foreign(u32),
    /// After each of so many pictures, sends its first packet again.
    Late(u32),
    /// Sends a report whose wall clock is so many seconds off.
    Report(i64),
    /// Goes on with another clip.
    Play(Clip),
    /// Sends these NAL units (without start codes) as a picture.
    Nals(Vec<Vec<u8>>),
    /// Sends RTP payloads as they are, as one picture.
    Payloads(Vec<Vec<u8>>),
    /// Sends fragments of one picture, each after so many lost packets.
    Gaps(u16, u32),
    /// Sends so many bytes that never become a picture, marker and new timestamp missing.
    Endless(usize),
    /// Bytes that are neither RTSP nor a packet.
    Noise(Vec<u8>),
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Connections that were made.
    pub connections: u32,
    /// DESCRIBE requests.
    pub describes: u32,
    /// Requests that were refused for their credentials, challenges included.
    pub refused: u32,
    /// Of those, requests that had credentials.
    pub wrong: u32,
    /// PLAY requests that were answered.
    pub plays: u32,
    /// TEARDOWN requests.
    pub teardowns: u32,
    /// Requests between PLAY and TEARDOWN.
    pub keepalives: u32,
    /// Pictures that were sent.
    pub pictures: u64,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    acts: VecDeque<Act>,
    silent: bool,
    /// DESCRIBE is answered so.
    status: Option<u16>,
    /// The next request with credentials is told that its nonce is stale.
    stale_nonce: bool,
    /// Nothing is answered.
    mute: bool,
    seen: Seen,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changed.notify_all();
        value
    }
}

/// A running camera. Dropped, it closes everything.
#[derive(Debug)]
pub struct Camera {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    /// Starts a camera on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(settings: Settings) -> io::Result<Camera> {
        Camera::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), settings)
    }

    /// Starts a camera where one was before.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start_at(address: SocketAddr, settings: Settings) -> io::Result<Camera> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                settings,
                acts: VecDeque::new(),
                silent: false,
                status: None,
                stale_nonce: false,
                mute: false,
                seen: Seen::default(),
                stop: false,
            }),
            changed: Condvar::new(),
        });
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fake-camera".into())
            .spawn(move || server::run(&listener, &its))?;
        Ok(Camera { shared, address, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL without credentials.
    pub fn url(&self) -> String {
        format!("rtsp://{}/live", self.address)
    }

    /// Its URL with credentials, which must not need quoting.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("rtsp://{user}:{password}@{}/live", self.address)
    }

    /// Does this before the next picture, after what was said before.
    pub fn act(&self, act: Act) {
        self.shared.change(|state| match act {
            Act::Silence => state.silent = true,
            Act::Resume => state.silent = false,
            act => state.acts.push_back(act),
        });
    }

    /// Whether everything that was said is done.
    pub fn idle(&self) -> bool {
        self.shared.lock().acts.is_empty()
    }

    /// Answers DESCRIBE with a status, or properly again.
    pub fn refuse(&self, status: Option<u16>) {
        self.shared.change(|state| state.status = status);
    }

    /// Answers nothing any more, or again.
    pub fn mute(&self, mute: bool) {
        self.shared.change(|state| state.mute = mute);
    }

    /// Tells the next request with credentials that its nonce is stale. From DESCRIBE on, a client
    /// has to be told by then.
    pub fn expire_nonce(&self) {
        self.shared.change(|state| state.stale_nonce = true);
    }

    /// Has other settings from the next session on.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.change(|state| change(&mut state.settings));
    }

    /// What happened so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().seen
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.shared.change(|state| state.stop = true);
        // Wakes it where it waits for a connection.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
