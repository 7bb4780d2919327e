//! Tries an address for somebody who is about to add it: a camera or a clip.
//!
//! In a process of its own, because the address is anybody's: what answers there may send without
//! end, and a clip may be made for the parser.

use super::{Done, Failed};
use crate::clip_file::Places;
use crate::container::ClipReader;
use crate::rtsp::{self, Probed};
use crate::source::{ClipPath, Source};
use std::path::PathBuf;
use std::time::Duration;

/// Longest try of a camera (spec V1).
const LIMIT: Duration = Duration::from_secs(10);

/// Opens `url`, looks and keeps nothing. `file_roots`: where a clip may lie.
///
/// # Errors
/// [`Failed`]: 401 refused credentials, 422 an address or a clip of no use, 502 and 504 a camera that
/// does not do as it should.
pub fn run(url: &str, transport: &str, file_roots: Vec<PathBuf>) -> Result<Done, Failed> {
    let probed = match Source::parse(url, transport, &Places::Below(file_roots.into())) {
        Source::Unusable(why) => return Err(Failed::new(422, why)),
        Source::Rtsp(source) => {
            rtsp::probe(&source, LIMIT).map_err(|(c, why)| Failed::new(c, why))?
        }
        Source::File(ClipPath { path, places }) => {
            let clip = ClipReader::open_in(&path, &places);
            let info = clip.map_err(|error| Failed::new(422, error.to_string()))?.info();
            Probed { codec: info.codec, size: info.size, fps: info.fps }
        }
    };
    let (width, height) = (probed.size.map(|s| s.width), probed.size.map(|s| s.height));
    Ok(Done::Probe { codec: probed.codec, width, height, fps: probed.fps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Codec;

    #[test]
    fn a_clip_below_the_roots_is_described_and_any_other_has_one_answer() {
        let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
        let assets = std::fs::canonicalize(assets).unwrap();
        let clip = assets.join("pedestrians.mp4").display().to_string();
        let roots = || vec![assets.clone()];
        let done = run(&format!("file://{clip}"), "", roots()).unwrap();
        let (width, height) = (Some(768), Some(576));
        assert_eq!(done, Done::Probe { codec: Codec::H264, width, height, fps: 10.0 });
        let refused = |url: &str, roots| match run(url, "", roots) {
            Err(Failed { code: 422, message }) => message.replace(url, "URL"),
            other => panic!("{url}: {other:?}"),
        };
        let none = refused(&clip, vec![]);
        assert!(none.contains("file_roots"), "{none}");
        for other in ["/etc/passwd", "/etc/shadow", "/nowhere/at/all", "/etc", "/proc/kmsg"] {
            assert_eq!(refused(other, roots()), none, "nobody learns what there is");
        }
        let missing = assets.join("missing.mp4").display().to_string();
        assert_eq!(refused(&missing, roots()), none);
        // Of what may be read it is told why it can't be played.
        let own = tempfile::tempdir().unwrap();
        let text = own.path().join("text.mp4");
        std::fs::write(&text, "no video at all").unwrap();
        let told = refused(&text.display().to_string(), vec![own.path().to_owned()]);
        assert!(told.contains("use MP4, Matroska"), "{told}");
    }

    #[test]
    fn an_address_of_no_use_is_told_without_its_credentials() {
        for (url, transport, code, part) in [
            ("rtsps://u:secret@h/1", "", 422, "rtsps"),
            ("rtsp://u:secret@h/1", "pigeon", 422, "pigeon"),
            ("rtsp://u:secret@127.0.0.1:1/1", "tcp", 502, "127.0.0.1:1: Connection refused"),
        ] {
            let failed = run(url, transport, vec![]).unwrap_err();
            assert_eq!(failed.code, code, "{failed}");
            assert!(
                failed.message.contains(part) && !failed.message.contains("secret"),
                "{failed}"
            );
        }
    }
}
