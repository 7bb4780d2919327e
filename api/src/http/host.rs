//! Who is asked for, and for whom: `Host`, read exactly (RFC 9110 section 7.2, RFC 9112 section
//! 3.2), and the headers by which browsers say which page sends a request. Pure.
//!
//! Without authentication this is what keeps web pages out: a page can't make a browser name the
//! loopback when it reached this machine under a name of its own, and can't keep it from naming the
//! page.

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Uri, Version};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Host and port that a request is for; `None` = HTTP/1.0 that names none.
///
/// # Errors
/// Why the request is not one.
pub fn of(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut lines = headers.get_all(HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err("request has more than one Host".into());
    }
    if line.is_none() && version > Version::HTTP_10 {
        return Err("request has no Host, which HTTP/1.1 demands".into());
    }
    let line = match line {
        Some(line) => {
            let text = line.to_str().ok().filter(|text| parsed(text).is_some());
            Some(text.ok_or("Host is not a name or address with an optional port")?.to_owned())
        }
        None => None,
    };
    // A target that names its host is for that one, whatever Host says.
    let Some(authority) = uri.authority() else { return Ok(line) };
    match parsed(authority.as_str()) {
        Some(_) => Ok(Some(authority.as_str().to_owned())),
        None => Err("request target names no host, or a user".into()),
    }
}

/// Why a request for this host is not answered here; `None` = it is the loopback.
pub fn refusal(host: &str) -> Option<String> {
    let loopback = match parsed(host) {
        Some(Host::V6(address)) => address.is_loopback(),
        Some(Host::Name(name)) => {
            let address: Option<Ipv4Addr> = name.parse().ok();
            name.eq_ignore_ascii_case("localhost") || address.is_some_and(|a| a.is_loopback())
        }
        None => false,
    };
    (!loopback).then(|| {
        format!(
            "host `{host}` is not a name of this machine's loopback; without authentication serve \
             answers only to localhost, 127.0.0.0/8 and [::1], so that no web page can reach it \
             under another name"
        )
    })
}

/// Why a request is not answered: a page of another origin sent it. Programs send none of these
/// headers; browsers say with every request from where it comes. Only the page itself may be opened
/// from elsewhere.
pub fn foreign(method: &str, path: &str, headers: &HeaderMap, host: &str) -> Option<String> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    let texts = |name: &HeaderName| -> Vec<String> {
        let lines = headers.get_all(name).iter();
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
    };
    let origins = texts(&ORIGIN);
    let own = |origin: &String| {
        origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
    };
    let from_here = matches!(origins.len(), 0 | 1) && origins.iter().all(own);
    let sites = texts(&SITE);
    let same = sites.iter().all(|site| matches!(site.as_str(), "same-origin" | "none"));
    if from_here && same {
        return None;
    }
    let opens = matches!(method, "GET" | "HEAD") && path == "/" && texts(&MODE) == ["navigate"];
    if opens && from_here {
        return None;
    }
    let origin = origins.into_iter().next().unwrap_or_else(|| "another site".into());
    Some(format!("a page of {origin} may not ask for this; open the page at http://{host}/"))
}

/// A host as the grammar knows it.
#[derive(Debug, PartialEq, Eq)]
enum Host<'h> {
    V6(Ipv6Addr),
    /// A name or an IPv4 address.
    Name(&'h str),
}

/// `uri-host [ ":" port ]`; `None` = it is not that.
fn parsed(text: &str) -> Option<Host<'_>> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Host::V6(address.parse().ok()?), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            // Letters, digits, and what RFC 3986 allows in a registered name.
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b);
            (name.bytes().all(fits).then_some(Host::Name(name))?, port)
        }
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return None,
    };
    let number: Option<u16> = digits.parse().ok();
    let is_port = digits.bytes().all(|b| b.is_ascii_digit());
    (digits.is_empty() || (is_port && number.is_some())).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_names_of_the_loopback_are_answered() {
        for good in [
            "localhost",
            "LOCALHOST:8080",
            "localhost:",
            "127.0.0.1:8080",
            "127.9.9.9",
            "127.255.255.255",
            "[::1]",
            "[::1]:80",
            "[0:0:0:0:0:0:0:1]:65535",
        ] {
            assert_eq!(refusal(good), None, "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example:80",
            "evil.localhost",
            "vas.localhost:8080",
            "localhost.",
            "127.0.0.1.",
            "126.255.255.255",
            "128.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.x",
            "127.0.0.1,evil.example",
            "%6cocalhost",
            "[::2]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ] {
            let told = refusal(bad).unwrap_or_default();
            assert!(told.contains(&format!("`{bad}`")), "{bad}: {told}");
        }
    }

    #[test]
    fn hosts_are_read_exactly() {
        for bad in [
            "[::1",
            "[::1]evil.example",
            "[::1].evil.example",
            "[::1]:",
            "[::1]:x",
            "[::1%25lo]",
            "[127.0.0.1]",
            "[localhost]",
            "::1",
            "localhost:evil",
            "127.0.0.1:evil.example",
            "localhost:80:80",
            "localhost:+80",
            "localhost:65536",
            "localhost:99999999999",
            "user@localhost",
            "localhost/x",
            "local host",
            "localhost\\x",
            "localhost#x",
            "localhost?x",
            "h\u{f6}st",
        ] {
            if bad == "[::1]:" {
                assert!(parsed(bad).is_some(), "an empty port is one");
                continue;
            }
            assert_eq!(parsed(bad), None, "{bad}");
            let uri = Uri::from_static("/");
            let mut lines = HeaderMap::new();
            lines.insert("host", HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert!(of(Version::HTTP_11, &uri, &lines).is_err(), "{bad}");
            assert!(of(Version::HTTP_10, &uri, &lines).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let path = Uri::from_static("/x");
        let whole = Uri::from_static("http://evil.example:81/x");
        let of = |version, uri: &Uri, lines: &[(&'static str, &str)]| {
            super::of(version, uri, &headers(lines))
        };
        let one = [("host", "localhost:80")];
        assert_eq!(of(Version::HTTP_11, &path, &one), Ok(Some("localhost:80".into())));
        assert_eq!(of(Version::HTTP_10, &path, &one), Ok(Some("localhost:80".into())));
        assert_eq!(of(Version::HTTP_10, &path, &[]), Ok(None));
        assert!(of(Version::HTTP_11, &path, &[]).unwrap_err().contains("no Host"));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            for second in ["localhost:80", "evil.example"] {
                let two = [one[0], ("host", second)];
                assert!(of(version, &path, &two).unwrap_err().contains("more than one"));
                assert!(of(version, &whole, &two).is_err());
            }
        }
        // The target wins over a Host, which still has to be there and to be one.
        assert_eq!(of(Version::HTTP_11, &whole, &one), Ok(Some("evil.example:81".into())));
        assert!(of(Version::HTTP_11, &whole, &[]).is_err());
        assert!(of(Version::HTTP_11, &whole, &[("host", "a b")]).is_err());
        let user = Uri::from_static("http://user@localhost/x");
        assert!(of(Version::HTTP_11, &user, &one).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        let foreign = |method: &str, path: &str, pairs: &[(&'static str, &str)]| {
            super::foreign(method, path, &headers(pairs), "localhost:8080").is_some()
        };
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            let foreign = |pairs: &[(&'static str, &str)]| foreign(method, "/health", pairs);
            assert!(!foreign(&[]), "a program");
            assert!(!foreign(&[("origin", "http://localhost:8080")]));
            assert!(!foreign(&[("origin", "http://LOCALHOST:8080")]));
            assert!(!foreign(&[("sec-fetch-site", "same-origin")]));
            assert!(!foreign(&[("sec-fetch-site", "none")]), "typed into the address bar");
            for origin in
                ["http://evil.example", "http://localhost:3000", "null", "", "localhost:8080"]
            {
                assert!(foreign(&[("origin", origin)]), "{origin}");
                assert!(foreign(&[("origin", origin), ("sec-fetch-site", "same-origin")]));
            }
            let own = ("origin", "http://localhost:8080");
            assert!(foreign(&[own, ("origin", "http://evil.example")]));
            assert!(foreign(&[own, own]), "two are none");
            for site in ["cross-site", "same-site", "", "Same-Origin", "x"] {
                assert!(foreign(&[("sec-fetch-site", site)]), "{site}");
                assert!(foreign(&[("sec-fetch-site", "none"), ("sec-fetch-site", site)]));
            }
            assert!(foreign(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        }
    }

    #[test]
    fn the_page_may_be_opened_from_elsewhere() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        let foreign = |method: &str, path: &str, pairs: &[(&'static str, &str)]| {
            super::foreign(method, path, &headers(pairs), "localhost:8080").is_some()
        };
        assert!(!foreign("GET", "/", &link));
        assert!(!foreign("HEAD", "/", &link));
        assert!(foreign("POST", "/", &link), "a form");
        assert!(foreign("GET", "/whep.js", &link));
        let fetched = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        assert!(foreign("GET", "/", &fetched));
        assert!(foreign("GET", "/", &link[..1]), "it does not say how");
        let origin = [link[0], link[1], ("origin", "http://evil.example")];
        assert!(foreign("GET", "/", &origin));
    }
}
