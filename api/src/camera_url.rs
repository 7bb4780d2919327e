//! Camera addresses: which are accepted, and how people may see them: without credentials.
//!
//! User, password and secret parameters of query or path are shown as [`MASK`]. An address that
//! comes back with the mask means the stored credentials, on the same host only.

use base::address::{self, is_secret};
use http_types::Url;
use std::collections::BTreeMap;
use std::path::Path;

pub use base::address::MASK;
/// Longest address, in bytes (spec V1).
pub const URL_BYTES_MAX: usize = 512;

/// Parameters that name who asks: shown, but not part of which stream it is.
const USER: [&str; 3] = ["user", "username", "usr"];

/// The address with the mask in place of user, password and the values of parameters, of query or
/// path, that are secret. What can't be read as an address is not shown at all.
pub fn without_credentials(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return "(not an address)".into() };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let hidden = parsed.set_password(None).and_then(|()| parsed.set_username(MASK));
        if hidden.is_err() {
            return format!("{}:(hidden)", parsed.scheme());
        }
    } else if parsed.scheme() != "file"
        && url.contains('@')
        && parsed.host_str().is_none_or(str::is_empty)
    {
        return format!("{}:(hidden)", parsed.scheme());
    }
    address::masked(parsed.as_str())
}

/// Whether the mask stands for a secret of path or query.
fn holds_mask(url: &Url) -> bool {
    let mut found = false;
    address::replaced(address::split(url.as_str()).1, |name, value| {
        found |= value == MASK && is_secret(name);
        None
    });
    found
}

/// The value of the parameter that is the `at`-th of its name in path and query.
fn value_of(url: &Url, wanted: &str, at: usize) -> Option<String> {
    let mut values = Vec::new();
    address::replaced(address::split(url.as_str()).1, |name, value| {
        if name == wanted {
            values.push(value.to_owned());
        }
        None
    });
    values.into_iter().nth(at)
}

/// Checks an address as a person wrote it: `rtsp://host[:port]/path` or `file:///absolute/path`.
///
/// # Errors
/// What is wrong and what to write; never with credentials.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("has {} bytes, allowed are {URL_BYTES_MAX}", text.len()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("holds a space or a control character; write it as %20 or the like".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("is no address; write rtsp://host/path or file:///path".into());
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" if rest.starts_with('/') && Path::new(rest).file_name().is_some() => return Ok(()),
        "file" => return Err("names no absolute file; write file:///path".into()),
        "rtsp" => {}
        "rtsps" => {
            return Err("is RTSP over TLS, which is not supported; write rtsp://host/path".into());
        }
        other => {
            let other: String = other.chars().take(16).collect();
            return Err(format!(
                "scheme `{other}` is not supported; write rtsp://host/path or file:///path"
            ));
        }
    }
    let parsed = Url::parse(text).map_err(|error| {
        format!(
            "can't be read: {error}; in a user name or password write @ as %40, : as %3A, / as %2F, # as \
             %23, ? as %3F"
        )
    })?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err("names no host; write rtsp://host/path".into());
    }
    if parsed.fragment().is_some() {
        return Err("holds a #; in a password write it as %23".into());
    }
    if parsed.username() == MASK || holds_mask(&parsed) {
        return Err(format!(
            "holds {MASK} in place of credentials, and no stored address of this camera has the same \
             host; write the credentials"
        ));
    }
    Ok(())
}

/// An address in which the mask stands for the credentials of the stored one with the same host;
/// the stored one of a file that is shown so; the same text when there is neither.
pub fn with_stored<'s>(text: &str, stored: impl IntoIterator<Item = &'s str>) -> String {
    let Ok(given) = Url::parse(text) else { return text.to_owned() };
    if given.scheme() == "file" {
        let same = |stored: &&str| without_credentials(stored) == text;
        return stored.into_iter().find(same).unwrap_or(text).to_owned();
    }
    let masked_user = given.username() == MASK;
    if !masked_user && !holds_mask(&given) {
        return text.to_owned();
    }
    let mut candidates: Vec<(&str, Url)> = stored
        .into_iter()
        .filter_map(|text| Some((text, Url::parse(text).ok()?)))
        .filter(|(_, url)| place(url) == place(&given))
        .collect();
    // The very address first: main and sub stream may have different credentials.
    candidates.sort_by_key(|(stored, _)| without_credentials(stored) != text);
    let Some((original, from)) = candidates.into_iter().next() else { return text.to_owned() };
    if without_credentials(original) == text {
        return original.to_owned();
    }
    let mut url = given;
    if masked_user {
        let password = from.password().map(str::to_owned);
        let set = url.set_username(from.username());
        if set.and_then(|()| url.set_password(password.as_deref())).is_err() {
            return text.to_owned();
        }
    }
    let (before, path) = address::split(url.as_str());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let path = address::replaced(path, |name, value| {
        let at = seen.entry(name.to_owned()).or_default();
        *at += 1;
        (value == MASK && is_secret(name)).then(|| value_of(&from, name, *at - 1)).flatten()
    });
    format!("{before}{path}")
}

fn place(url: &Url) -> (String, Option<String>, Option<u16>) {
    let port = url.port().or((url.scheme() == "rtsp").then_some(554));
    (url.scheme().to_owned(), url.host_str().map(str::to_ascii_lowercase), port)
}

/// What two addresses have in common when they name the same stream: all but credentials. `None`
/// for files, of which several cameras may show the same.
pub fn identity(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() != "file")?;
    let (scheme, host, port) = place(&url);
    let credential = |name: &str| is_secret(name) || USER.contains(&&*name.to_ascii_lowercase());
    let masked =
        |text: &str| address::replaced(text, |name, _| credential(name).then(|| MASK.to_owned()));
    let query = url.query().map(|q| masked(&format!("?{q}"))).unwrap_or_default();
    let (host, path) = (host.unwrap_or_default(), masked(url.path()));
    let path = path.trim_end_matches('/');
    Some(format!("{scheme}://{host}:{}{path}{query}", port.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_come_through_in_any_place() {
        for (url, shown) in [
            ("rtsp://admin:s3cret@10.0.0.9:554/ch/1", "rtsp://***@10.0.0.9:554/ch/1"),
            ("rtsp://admin@10.0.0.9/1", "rtsp://***@10.0.0.9/1"),
            ("rtsp://:s3cret@10.0.0.9/1", "rtsp://***@10.0.0.9/1"),
            ("rtsp://10.0.0.9/1?Password=s3cret&ch=2", "rtsp://10.0.0.9/1?Password=***&ch=2"),
            ("rtsp://a:b%40c@h/x?token=s3cret", "rtsp://***@h/x?token=***"),
            ("rtsp://a:b@c@h/x", "rtsp://***@h/x"),
            (
                "rtsp://h:554/user=admin&password=s3cret&channel=1&stream=0.sdp",
                "rtsp://h:554/user=admin&password=***&channel=1&stream=0.sdp",
            ),
            ("rtsp://h/user=a_password=s3_cret_ch=1", "rtsp://h/user=a_password=***_ch=1"),
            ("rtsp://h/1?user=a&UserPassword=s3cret", "rtsp://h/1?user=a&UserPassword=***"),
            ("rtsp://h/1?access_token=s3cret", "rtsp://h/1?access_token=***"),
            ("rtsp://10.0.0.9/1?ch=a%20b", "rtsp://10.0.0.9/1?ch=a%20b"),
            ("file:///data/clip.mp4", "file:///data/clip.mp4"),
            ("file:///data/a@b.mp4", "file:///data/a@b.mp4"),
            ("admin:s3cret@10.0.0.9", "admin:(hidden)"),
            ("s3cret", "(not an address)"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn addresses_are_checked_and_refusals_hold_no_credentials() {
        for good in [
            "rtsp://10.0.0.9/1",
            "RTSP://user:p%40ss@cam.local:8554/a/b?c=d",
            "rtsp://[fe80::1]:554/x",
            "rtsp://host",
            "file:///data/a b.mp4".replace(' ', "_").as_str(),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("", "is no address"),
            ("10.0.0.9/1", "is no address"),
            ("http://user:s3cret@h/1", "scheme `http` is not supported"),
            ("rtsps://h/1", "not supported"),
            ("rtsp:///1", "no host"),
            ("rtsp://", "no host"),
            ("rtsp://user:s3cret/x@h/1", "can't be read"),
            ("rtsp://user:s3c#ret@h/1", "can't be read"),
            ("rtsp://h/1#s3cret", "write it as %23"),
            ("rtsp://h:99999/1", "can't be read"),
            ("rtsp://h/a b", "space"),
            ("rtsp://h/a\nb", "control"),
            ("rtsp://***@h/1", "write the credentials"),
            ("rtsp://h/1?pwd=***", "write the credentials"),
            ("rtsp://h/user=a_password=***_ch=1", "write the credentials"),
            ("file://relative.mp4", "no absolute file"),
            ("file:///", "no absolute file"),
            (&format!("rtsp://h/{}", "x".repeat(512)), "has 521 bytes"),
        ] {
            let message = check(bad).unwrap_err();
            assert!(message.contains(told), "{bad}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn the_mask_means_what_is_stored_for_the_same_host_only() {
        let stored = [
            "rtsp://a:b%40@cam/1?pwd=x&ch=1",
            "rtsp://c:d@cam:554/2",
            "rtsp://e:f@other/1",
            "rtsp://old/user=a&password=x&ch=1",
            "file:///data/a b.mp4",
        ];
        for (given, meant) in [
            ("rtsp://***@cam/1?pwd=***&ch=1", "rtsp://a:b%40@cam/1?pwd=x&ch=1"),
            ("rtsp://***@cam:554/2", "rtsp://c:d@cam:554/2"),
            ("rtsp://***@cam/9", "rtsp://a:b%40@cam/9"),
            ("rtsp://***@cam/1?pwd=***&ch=7", "rtsp://a:b%40@cam/1?pwd=x&ch=7"),
            ("rtsp://***@cam/1?pwd=new", "rtsp://a:b%40@cam/1?pwd=new"),
            ("rtsp://old/user=a&password=***&ch=1", "rtsp://old/user=a&password=x&ch=1"),
            ("rtsp://old/user=a&password=***&ch=2", "rtsp://old/user=a&password=x&ch=2"),
            ("rtsp://evil/user=a&password=***", "rtsp://evil/user=a&password=***"),
            ("rtsp://***@evil/1", "rtsp://***@evil/1"),
            ("rtsp://***@cam:8554/1", "rtsp://***@cam:8554/1"),
            ("rtsp://cam/1", "rtsp://cam/1"),
            ("rtsp://x:y@cam/1", "rtsp://x:y@cam/1"),
            ("nonsense", "nonsense"),
            ("file:///data/a%20b.mp4", "file:///data/a b.mp4"),
            ("file:///data/x/../a%20b.mp4", "file:///data/x/../a%20b.mp4"),
            ("file:///data/b.mp4", "file:///data/b.mp4"),
        ] {
            assert_eq!(with_stored(given, stored), meant, "{given}");
        }
    }

    #[test]
    fn the_same_stream_is_recognised_whatever_its_credentials() {
        let same = identity("rtsp://a:b@Cam/1?pwd=x");
        assert_eq!(same, identity("rtsp://cam:554/1?pwd=y"));
        assert_ne!(same, identity("rtsp://cam:8554/1?pwd=x"));
        assert_ne!(same, identity("rtsp://cam/2?pwd=x"));
        assert_eq!(identity("rtsp://cam/1/"), identity("rtsp://cam/1"));
        assert_eq!(
            identity("rtsp://h/user=a&password=x&ch=1"),
            identity("rtsp://h/user=b&password=y&ch=1")
        );
        assert_ne!(identity("rtsp://h/password=x&ch=1"), identity("rtsp://h/password=x&ch=2"));
        assert_eq!(identity("file:///a.mp4"), None);
    }
}
