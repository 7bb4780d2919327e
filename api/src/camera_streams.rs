//! Which streams a camera has and what each is for.

use store::control::Stream;

/// What a stream can be for.
pub const ROLES: [&str; 3] = ["record", "live", "detect"];

fn transport_of(url: &str, transport: &str) -> String {
    // Files have none.
    if url.starts_with("file:") { String::new() } else { transport.to_owned() }
}

/// The streams of a camera with a main and perhaps a smaller address. `sub_roles` are those of the
/// smaller one, by default `detect`: models need fewer pixels than people. The main one has the rest.
pub fn streams(
    main: &str,
    sub: Option<&str>,
    transport: Option<&str>,
    sub_roles: Option<&[String]>,
) -> Vec<Stream> {
    let transport = transport.unwrap_or("tcp");
    let detect = ["detect".to_owned()];
    let of_sub = match sub {
        Some(_) => sub_roles.unwrap_or(&detect),
        None => &[],
    };
    let stream = |name: &str, url: &str, roles: Vec<String>| Stream {
        name: name.into(),
        url: url.into(),
        transport: transport_of(url, transport),
        roles,
    };
    let rest = ROLES.iter().filter(|role| !of_sub.iter().any(|r| r == *role));
    let mut streams = vec![stream("main", main, rest.map(|r| (*r).to_owned()).collect())];
    streams.extend(sub.map(|sub| stream("sub", sub, of_sub.to_vec())));
    streams
}

/// The streams of a camera that had others before. What is `None` stays as it was: the transport of
/// each stream (that of a new one is the main one's), and their roles while they are as many.
pub fn altered(
    before: &[Stream],
    main: &str,
    sub: Option<&str>,
    transport: Option<&str>,
    sub_roles: Option<&[String]>,
) -> Vec<Stream> {
    let known = || before.iter().filter(|stream| !stream.transport.is_empty());
    let first = known().next().map(|stream| stream.transport.as_str());
    let mut made = streams(main, sub, transport.or(first), sub_roles);
    let as_many = made.len() == before.len();
    for new in &mut made {
        if let (None, Some(old)) = (transport, known().find(|old| old.name == new.name)) {
            new.transport = transport_of(&new.url, &old.transport);
        }
        let old = before.iter().find(|old| old.name == new.name);
        if let (None, true, Some(old)) = (sub_roles, as_many, old) {
            new.roles.clone_from(&old.roles);
        }
    }
    made
}

/// A stream as a person named it, with what it does not name.
pub fn named(name: &str, url: &str, transport: Option<&str>, roles: Vec<String>) -> Stream {
    let transport = transport_of(url, transport.unwrap_or("tcp"));
    Stream { name: name.to_owned(), url: url.to_owned(), transport, roles }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_given_once() {
        let shown = |streams: Vec<Stream>| -> Vec<String> {
            streams
                .iter()
                .map(|s| format!("{} {} {}", s.name, s.transport, s.roles.join("+")))
                .collect()
        };
        let (main, sub) = ("rtsp://h/1", Some("rtsp://h/2"));
        assert_eq!(shown(streams(main, None, None, None)), ["main tcp record+live+detect"]);
        assert_eq!(
            shown(streams(main, sub, Some("udp"), None)),
            ["main udp record+live", "sub udp detect"]
        );
        let both = ["live".to_owned(), "detect".to_owned()];
        assert_eq!(
            shown(streams(main, sub, None, Some(&both))),
            ["main tcp record", "sub tcp live+detect"]
        );
        assert_eq!(
            shown(streams("file:///a", None, Some("udp"), None))[0],
            "main  record+live+detect"
        );
    }
}
