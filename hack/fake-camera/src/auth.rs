//! Basic and digest authentication (RFC 2617), the server's side.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};

const REALM: &str = "fake camera";

/// Who may see a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Open,
    /// User and password, in clear.
    Basic(String, String),
    /// User and password, hashed with a nonce.
    Digest(String, String),
}

/// What a request's credentials are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Passed,
    /// It has none.
    Missing,
    /// They are wrong.
    Wrong,
}

impl Auth {
    /// Looks at the Authorization header of a request.
    pub fn judge(&self, header: Option<&str>, method: &str, nonce: &str) -> Verdict {
        let expected = match self {
            Auth::Open => return Verdict::Passed,
            Auth::Basic(user, password) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            Auth::Digest(user, password) => {
                let Some(header) = header else { return Verdict::Missing };
                let uri = field(header, "uri").unwrap_or_default();
                let ours = hash(&[&hash(&[user, REALM, password]), nonce, &hash(&[method, uri])]);
                let passed = field(header, "username") == Some(user.as_str())
                    && field(header, "nonce") == Some(nonce)
                    && field(header, "response") == Some(ours.as_str());
                return if passed { Verdict::Passed } else { Verdict::Wrong };
            }
        };
        match header {
            None => Verdict::Missing,
            Some(header) if header.trim() == expected => Verdict::Passed,
            Some(_) => Verdict::Wrong,
        }
    }

    /// The challenge that goes with a refusal.
    pub fn challenge(&self, nonce: &str, stale: bool) -> String {
        match self {
            Auth::Digest(..) => {
                let stale = if stale { ", stale=\"TRUE\"" } else { "" };
                format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}")
            }
            _ => format!("Basic realm=\"{REALM}\""),
        }
    }
}

fn hash(parts: &[&str]) -> String {
    let digest = Md5::digest(parts.join(":"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let fields = header.strip_prefix("Digest ")?.split(',');
    let mut pairs = fields.filter_map(|field| field.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_rfc() {
        // RFC 2617, 3.5, without qop.
        assert_eq!(
            hash(&["Mufasa", "testrealm@host.com", "Circle Of Life"]),
            "939e7578ed9e3c518a452acee763bce9"
        );
        let auth = Auth::Digest("u".into(), "p".into());
        let response = hash(&[&hash(&["u", REALM, "p"]), "abc", &hash(&["PLAY", "rtsp://h/1"])]);
        let header = format!(
            "Digest username=\"u\", realm=\"{REALM}\", nonce=\"abc\", uri=\"rtsp://h/1\", \
             response=\"{response}\""
        );
        assert_eq!(auth.judge(Some(&header), "PLAY", "abc"), Verdict::Passed);
        assert_eq!(auth.judge(Some(&header), "PLAY", "other"), Verdict::Wrong);
        assert_eq!(auth.judge(Some(&header), "SETUP", "abc"), Verdict::Wrong);
        assert_eq!(auth.judge(None, "PLAY", "abc"), Verdict::Missing);
        let basic = Auth::Basic("u".into(), "p".into());
        assert_eq!(basic.judge(Some("Basic dTpw"), "PLAY", ""), Verdict::Passed);
        assert_eq!(basic.judge(Some("Basic dTpx"), "PLAY", ""), Verdict::Wrong);
    }
}
