//! Where a camera's video comes from, out of the URL of its stream.

use crate::clip_file::Places;
use base::address;
use base::told::told;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Where a camera's video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A clip, played in real time and looped.
    File(ClipPath),
    /// A camera.
    Rtsp(RtspSource),
    /// Nothing that can be played, and why.
    Unusable(String),
}

/// A clip, and where it may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipPath {
    /// As it was named.
    pub path: PathBuf,
    /// Elsewhere it is not opened.
    pub places: Places,
}

/// A camera that speaks RTSP.
#[derive(Clone, PartialEq, Eq)]
pub struct RtspSource {
    /// As the camera is asked: without user and password, but its path and query may hold such.
    /// [`RtspSource::shown`] is for people.
    pub url: Url,
    /// What the camera may ask for.
    pub credentials: Option<Credentials>,
    /// How its packets travel.
    pub transport: Transport,
}

impl RtspSource {
    /// The address without any secret.
    pub fn shown(&self) -> String {
        address::masked(self.url.as_str())
    }

    /// The path without any secret.
    pub fn shown_path(&self) -> String {
        let shown = self.shown();
        let path = address::split(&shown).1;
        path.split(['?', '#']).next().unwrap_or_default().to_owned()
    }

    /// What the camera or a library says, fit for a log, a state or an answer: it may quote the
    /// address, what the camera was told, and anything that the camera chose.
    pub fn told(&self, text: &dyn fmt::Display) -> String {
        let (real, shown) = (address::split(self.url.as_str()).1, self.shown());
        let masked = address::split(&shown).1;
        let mut text = text.to_string();
        if real != masked {
            text = text.replace(real, masked);
        }
        let password = self.credentials.iter().map(|known| known.password.clone());
        told(&text, address::secrets(self.url.as_str()).into_iter().chain(password))
    }
}

impl fmt::Debug for RtspSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtspSource")
            .field("url", &self.shown())
            .field("credentials", &self.credentials)
            .field("transport", &self.transport)
            .finish()
    }
}

/// User and password of a camera. Never shown: not in logs, not in answers, not by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How the packets of a camera travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// On the connection itself.
    #[default]
    Tcp,
    /// As datagrams. A lost one is lost, one that comes out of order too.
    Udp,
}

impl Transport {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

impl Source {
    /// From the URL of a stream and its transport: `rtsp://user:password@host/path`,
    /// `file:///path` or a plain path. `places`: where a file may lie.
    pub fn parse(url: &str, transport: &str, places: &Places) -> Source {
        let unusable = |why: String| Source::Unusable(why);
        if url.is_empty() {
            return unusable("it has no URL; give main_url a camera or a file".into());
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Source::File(ClipPath { path: url.into(), places: places.clone() });
        };
        // Not the URL itself in messages: it may hold a password.
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(url, rest, places),
            "rtsp" => match rtsp(url, transport) {
                Ok(source) => Source::Rtsp(source),
                Err(why) => unusable(why),
            },
            "rtsps" => unusable(
                "rtsps sources can't be played: RTSP over TLS is not supported; use rtsp:// on a \
                 network that is trusted"
                    .into(),
            ),
            other => unusable(format!(
                "{other} sources can't be played; use rtsp://host/path, file:///path or a plain \
                 path"
            )),
        }
    }
}

fn file(url: &str, rest: &str, places: &Places) -> Source {
    // RFC 8089: no authority, or the local one.
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        let host = told(url, [""; 0]);
        return Source::Unusable(format!("{host} names a host; write file:///path"));
    }
    match percent_decode(path) {
        Some(path) => Source::File(ClipPath { path: path.into(), places: places.clone() }),
        None => {
            Source::Unusable(format!("{url} has a % that two hex digits don't follow; write %25"))
        }
    }
}

fn rtsp(text: &str, transport: &str) -> Result<RtspSource, String> {
    let transport = match transport {
        "" | "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => return Err(format!("its transport is {other:?}; write tcp or udp")),
    };
    let bad = |what: &str| {
        format!(
            "its rtsp:// URL {what}; write rtsp://user:password@host:port/path, with special \
             characters of user and password as %XX (# is %23, / is %2F, @ is %40)"
        )
    };
    let mut url = Url::parse(text).map_err(|e| bad(&format!("can't be read: {e}")))?;
    if url.host_str().unwrap_or_default().is_empty() {
        return Err(bad("names no host"));
    }
    let decoded =
        |part: &str| percent_decode(part).ok_or_else(|| bad("has a % without two digits"));
    let (username, password) = (decoded(url.username())?, url.password().map(decoded));
    let password = password.transpose()?;
    let some = !username.is_empty() || password.is_some();
    let credentials =
        some.then(|| Credentials { username, password: password.unwrap_or_default() });
    // Fails for URLs without a host only.
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| bad("names no host"))?;
    Ok(RtspSource { url, credentials, transport })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_files_are_taken_apart_and_others_refused_without_their_password() {
        let places = Places::Below([PathBuf::from("/clips")].into());
        let file =
            |path: &str| Source::File(ClipPath { path: path.into(), places: places.clone() });
        let parse = |url: &str| Source::parse(url, "", &places);
        assert_eq!(parse("/clips/a b.mp4"), file("/clips/a b.mp4"));
        assert_eq!(parse("assets/a%20b.mp4"), file("assets/a%20b.mp4"));
        assert_eq!(parse("file:///clips/a%20b%25.mp4"), file("/clips/a b%.mp4"));
        assert_eq!(parse("file://localhost/a.mp4"), file("/a.mp4"));
        for bad in [
            "file://host/a.mp4",
            "file://u:secret@host/a.mp4",
            "file:///a%2",
            "file:///a%zz",
            "",
            "rtsps://u:secret@h/1",
            "http://u:secret@h/1",
            "rtsp://u:secret@/1",
            "rtsp://u:sec#ret@h/1",
            "rtsp://u:secret%@h/1",
            "rtsp://u:secret@h:99999/1",
        ] {
            let Source::Unusable(why) = parse(bad) else { panic!("{bad}") };
            assert!(!why.contains("secret") && !why.contains("sec#"), "{why}");
        }
        let Source::Unusable(why) = Source::parse("rtsp://h/1", "multicast", &Places::Anywhere)
        else {
            panic!()
        };
        assert!(why.contains("multicast") && why.contains("tcp or udp"), "{why}");
    }

    #[test]
    fn what_others_say_is_masked_before_it_is_cut_wherever_the_secret_stood() {
        let text = "rtsp://admin:us3r%20pw@h/user=a&password=p4th'pw&ch=1?token=t0ken";
        let Source::Rtsp(source) = Source::parse(text, "", &Places::Anywhere) else { panic!() };
        let long = "x".repeat(base::told::CHARS_MAX - 12);
        for said in [
            format!("{} {}", long, source.url),
            format!("{long} admin:us3r pw {}", source.url.path()),
            format!("{long} 'p4th'pw'"),
            format!("{long}   t0ken"),
            format!("{long}rtsp://admin:us3r%20pw@h/1"),
        ] {
            let told = source.told(&said);
            assert!(told.chars().count() <= base::told::CHARS_MAX);
            for part in ["us3", "p4th", "'pw", "t0k"] {
                assert!(!told.contains(part), "{told}");
            }
        }
    }

    #[test]
    fn credentials_leave_the_url_and_are_shown_nowhere() {
        let text = "rtsp://ad%40min:p%3Ass%23@cam.local:8554/live?ch=1&sub=%20x";
        let source = Source::parse(text, "udp", &Places::Anywhere);
        let Source::Rtsp(rtsp) = &source else { panic!("{source:?}") };
        assert_eq!(rtsp.url.as_str(), "rtsp://cam.local:8554/live?ch=1&sub=%20x");
        let credentials = rtsp.credentials.as_ref().unwrap();
        assert_eq!(
            (credentials.username.as_str(), credentials.password.as_str()),
            ("ad@min", "p:ss#")
        );
        assert_eq!(rtsp.transport, Transport::Udp);
        let shown = format!("{source:?}");
        for part in ["min", "ss#", "p%3A", "ss%23"] {
            assert!(!shown.contains(part), "{shown}");
        }
        let old = "rtsp://h/user=a&password=PW&ch=1?token=PW";
        let source = Source::parse(old, "", &Places::Anywhere);
        assert!(!format!("{source:?}").contains("PW"), "{source:?}");
        let Source::Rtsp(old_camera) = &source else { panic!("{source:?}") };
        assert_eq!(old_camera.url.as_str(), old, "the camera is asked for what was written");
        assert_eq!(old_camera.shown(), "rtsp://h/user=a&password=***&ch=1?token=***");
        assert_eq!(old_camera.shown_path(), "/user=a&password=***&ch=1");
        let told = old_camera.told(&format_args!("no answer to DESCRIBE {old}"));
        assert_eq!(told, format!("no answer to DESCRIBE {}", old_camera.shown()));
        let Source::Rtsp(open) = Source::parse("RTSP://10.0.0.7/1", "tcp", &Places::Anywhere)
        else {
            panic!()
        };
        assert_eq!((open.credentials, open.transport), (None, Transport::Tcp));
        let Source::Rtsp(empty) = Source::parse("rtsp://admin@h/1", "", &Places::Anywhere) else {
            panic!()
        };
        assert_eq!(empty.credentials.unwrap().password, "");
    }
}
