//! Connections: requests are answered on one thread, pictures sent on another.

use crate::auth::Verdict;
use crate::clip::Codec;
use crate::sender::{Outlet, Sender};
use crate::{Settings, Shared};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const SESSION: &str = "7F4A";

/// Accepts until the camera stops; then every connection is closed.
pub fn run(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    let mut streams: Vec<TcpStream> = Vec::new();
    for stream in listener.incoming() {
        if shared.lock().stop {
            break;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.change(|state| {
            state.seen.connections += 1;
            state.seen.connections
        });
        let Ok(held) = stream.try_clone() else { continue };
        streams.push(held);
        let its = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            // How a conversation ends is the test's affair.
            let _ = Connection::new(stream, its, number).and_then(Connection::serve);
        }));
    }
    for stream in streams {
        let _ = stream.shutdown(Shutdown::Both);
    }
    shared.changed.notify_all();
    for thread in threads {
        let _ = thread.join();
    }
}

struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    /// Answers and packets must not mix.
    writer: Arc<Mutex<TcpStream>>,
    nonce: String,
    outlet: Option<Outlet>,
    sender: Option<(thread::JoinHandle<()>, Arc<AtomicBool>)>,
}

struct Request {
    method: String,
    url: String,
    headers: HashMap<String, String>,
}

impl Connection {
    fn new(stream: TcpStream, shared: Arc<Shared>, number: u32) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let writer = Arc::new(Mutex::new(stream.try_clone()?));
        let nonce = format!("n{number:04}");
        Ok(Connection { shared, stream, writer, nonce, outlet: None, sender: None })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        let result = loop {
            match request(&mut reader) {
                Ok(Some(request)) => {
                    if let Err(e) = self.answer(&request) {
                        break Err(e);
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        if let Some((thread, end)) = self.sender.take() {
            end.store(true, Ordering::Relaxed);
            self.shared.changed.notify_all();
            let _ = thread.join();
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        result
    }

    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let (settings, status, mute) = {
            let mut state = self.shared.lock();
            match request.method.as_str() {
                "DESCRIBE" => state.seen.describes += 1,
                "TEARDOWN" => state.seen.teardowns += 1,
                _ if self.sender.is_some() => state.seen.keepalives += 1,
                _ => {}
            }
            (state.settings.clone(), state.status, state.mute)
        };
        if mute {
            return Ok(());
        }
        if let Some(challenge) = self.refuses(request, &settings) {
            return self.reply(request, 401, &format!("WWW-Authenticate: {challenge}\r\n"), "");
        }
        match (request.method.as_str(), status) {
            ("DESCRIBE", Some(status)) => self.reply(request, status, "", ""),
            ("DESCRIBE", None) => {
                let url = match settings.talk {
                    Some(_) => request.url.split_once("://").map_or("", |(_, rest)| rest),
                    None => &request.url,
                };
                let mut head = format!("Content-Base: {url}/\r\n");
                if !settings.content_type.is_empty() {
                    let _ = write!(head, "Content-Type: {}\r\n", settings.content_type);
                }
                self.reply(request, 200, &head, &sdp(&settings))
            }
            ("OPTIONS", _) => {
                let methods = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN";
                self.reply(request, 200, &format!("Public: {methods}\r\n"), "")
            }
            ("SETUP", _) => self.setup(request, &settings),
            ("PLAY", _) if self.outlet.is_none() => self.reply(request, 455, "", ""),
            ("PLAY", _) => {
                let info = match settings.talk {
                    Some(_) => format!("RTP-Info: url={}/nobodys;seq=1\r\n", request.url),
                    None => String::new(),
                };
                self.reply(request, 200, &format!("Session: {SESSION}\r\n{info}"), "")?;
                self.shared.change(|state| state.seen.plays += 1);
                self.play(settings);
                Ok(())
            }
            ("GET_PARAMETER" | "SET_PARAMETER", _) => {
                self.reply(request, 200, &format!("Session: {SESSION}\r\n"), "")
            }
            ("TEARDOWN", _) => self.reply(request, 200, "", ""),
            _ => self.reply(request, 501, "", ""),
        }
    }

    /// The challenge for a request that may not pass.
    fn refuses(&mut self, request: &Request, settings: &Settings) -> Option<String> {
        let header = request.headers.get("authorization").map(String::as_str);
        let verdict = settings.auth.judge(header, &request.method, &self.nonce);
        self.shared.change(|state| {
            let stale = verdict == Verdict::Passed
                && header.is_some()
                && std::mem::take(&mut state.stale_nonce);
            if verdict == Verdict::Passed && !stale {
                return None;
            }
            state.seen.refused += 1;
            state.seen.wrong += u32::from(verdict == Verdict::Wrong);
            if stale {
                self.nonce.push('x');
            }
            Some(settings.auth.challenge(&self.nonce, stale))
        })
    }

    fn setup(&mut self, request: &Request, settings: &Settings) -> io::Result<()> {
        let transport = request.headers.get("transport").map_or("", String::as_str);
        let parameter = |name: &str| {
            let (_, rest) = transport.split_once(&format!("{name}="))?;
            rest.split([';', '-']).next()?.parse::<u16>().ok()
        };
        let (udp, tcp) = settings.transports;
        let answer = match (parameter("interleaved"), parameter("client_port")) {
            (Some(channel), _) if tcp => {
                let channel = channel as u8;
                self.outlet = Some(Outlet::Interleaved(channel));
                format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1)
            }
            (None, Some(port)) if udp => {
                let peer = self.stream.peer_addr()?.ip();
                let sockets = pair(self.stream.local_addr()?)?;
                let server = sockets.0.local_addr()?.port();
                let (rtp, rtcp) = (SocketAddr::new(peer, port), SocketAddr::new(peer, port + 1));
                let sockets = Arc::new(sockets);
                self.outlet = Some(Outlet::Datagrams { sockets, rtp, rtcp });
                format!(
                    "RTP/AVP;unicast;client_port={port}-{};server_port={server}-{}",
                    port + 1,
                    server + 1
                )
            }
            _ => return self.reply(request, 461, "", ""),
        };
        let head = format!("Transport: {answer}\r\nSession: {SESSION};timeout=60\r\n");
        self.reply(request, 200, &head, "")
    }

    fn reply(&self, request: &Request, status: u16, head: &str, body: &str) -> io::Result<()> {
        let cseq = request.headers.get("cseq").map_or("0", String::as_str);
        let talk = self.shared.lock().settings.talk.as_deref().map(crate::printed);
        let reason = talk.as_deref().unwrap_or(reason(status));
        let mut text = format!("RTSP/1.0 {status} {reason}\r\nCSeq: {cseq}\r\n{head}");
        if let Some(talk) = &talk {
            let _ = write!(text, "Server: {talk}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(text.as_bytes())
    }

    fn play(&mut self, settings: Settings) {
        let Some(outlet) = self.outlet.clone() else { return };
        if self.sender.is_some() {
            return;
        }
        static SENDERS: AtomicU32 = AtomicU32::new(0x5e11_0001);
        let end = Arc::new(AtomicBool::new(false));
        let number = SENDERS.fetch_add(1, Ordering::Relaxed);
        let (shared, writer) = (Arc::clone(&self.shared), Arc::clone(&self.writer));
        let mut sender = Sender::new(shared, writer, outlet, Arc::clone(&end), settings, number);
        self.sender = Some((
            thread::spawn(move || {
                let _ = sender.run();
            }),
            end,
        ));
    }
}

/// The next request; `None` at the end.
fn request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    loop {
        // Reports of the client come between requests.
        if reader.fill_buf()?.first() == Some(&b'$') {
            let mut head = [0; 4];
            reader.read_exact(&mut head)?;
            let mut packet = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
            reader.read_exact(&mut packet)?;
            continue;
        }
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(url)) = (words.next(), words.next()) else { continue };
        let (method, url) = (method.to_owned(), url.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        return Ok(Some(Request { method, url, headers }));
    }
}

fn sdp(settings: &Settings) -> String {
    let sets: Vec<_> =
        settings.clip.parameter_sets().iter().map(|set| BASE64_STANDARD.encode(set)).collect();
    let (name, parameters) = match (settings.clip.codec, settings.parameters_in_sdp) {
        (Codec::H264, true) => {
            let sets = sets.join(",");
            ("H264", format!("packetization-mode=1;sprop-parameter-sets={sets}"))
        }
        (Codec::H264, false) => ("H264", "packetization-mode=1".to_owned()),
        (Codec::H265, true) => {
            let [vps, sps, pps] = &sets[..] else { return String::new() };
            ("H265", format!("sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}"))
        }
        (Codec::H265, false) => ("H265", "sprop-max-don-diff=0".to_owned()),
    };
    let (fps, tool) = (settings.stamped_fps, settings.tool);
    let session = settings.talk.as_deref().unwrap_or("fake");
    let more = match &settings.talk {
        Some(talk) => format!(
            "m=audio 0 RTP/AVP 0\r\na=control:track2\r\nm=text 0 RTP/AVP none\r\na=said:{talk}\r\n"
        ),
        None => String::new(),
    };
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns={session}\r\nt=0 0\r\na=tool:{tool}\r\na=control:*\r\n\
         m=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:96 {name}/90000\r\n\
         a=framerate:{fps}\r\na=fmtp:96 {parameters}\r\na=control:track1\r\n{more}"
    )
}

/// Two sockets with neighbouring ports, the first even.
fn pair(local: SocketAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..200 {
        let first = UdpSocket::bind((local.ip(), 0))?;
        let port = first.local_addr()?.port();
        if port % 2 == 0
            && let Ok(second) = UdpSocket::bind((local.ip(), port + 1))
        {
            return Ok((first, second));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        404 => "Not Found",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        461 => "Unsupported Transport",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
