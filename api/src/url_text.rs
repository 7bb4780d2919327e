//! Camera addresses as people may see them: without credentials.

use http_types::Url;

/// Query parameters whose values are credentials.
const SECRET: [&str; 11] =
    ["user", "username", "usr", "password", "passwd", "pass", "pwd", "psw", "token", "auth", "key"];

/// The address without user, password and the values of query parameters that hold such. What can't
/// be read as an address is not shown at all.
pub fn without_credentials(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return "(not an address)".into() };
    let hidden = parsed.set_username("").and_then(|()| parsed.set_password(None));
    if hidden.is_err() && url.contains('@') {
        return format!("{}:(hidden)", parsed.scheme());
    }
    if parsed.query().is_some() {
        let secret = |name: &str| {
            let name = name.to_ascii_lowercase();
            SECRET.iter().any(|s| name == *s)
        };
        let kept: Vec<(String, String)> = parsed
            .query_pairs()
            .map(|(name, value)| {
                let value = if secret(&name) { "hidden".into() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect();
        parsed.query_pairs_mut().clear().extend_pairs(kept);
    }
    parsed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_come_through_in_any_place() {
        for (url, shown) in [
            ("rtsp://admin:s3cret@10.0.0.9:554/ch/1", "rtsp://10.0.0.9:554/ch/1"),
            ("rtsp://admin@10.0.0.9/1", "rtsp://10.0.0.9/1"),
            ("rtsp://10.0.0.9/1?Password=s3cret&ch=2", "rtsp://10.0.0.9/1?Password=hidden&ch=2"),
            ("rtsp://a:b%40c@h/x?token=s3cret", "rtsp://h/x?token=hidden"),
            ("file:///data/clip.mp4", "file:///data/clip.mp4"),
            ("admin:s3cret@10.0.0.9", "admin:(hidden)"),
            ("s3cret", "(not an address)"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
