//! Clips decoded in this process: against the sums of FFmpeg's own decoding, and bad ones.
#![allow(clippy::unwrap_used)] // The helpers are tests as well.

use base::{ColourMatrix, ColourRange, Size};
use ingest::clip::{ClipError, ClipFrame, ClipFrames};
use std::path::{Path, PathBuf};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets").join(name)
}

fn pedestrians() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/pedestrians.mp4")
}

fn frames(path: &Path) -> Vec<ClipFrame> {
    ClipFrames::open(path).unwrap().collect::<Result<_, _>>().unwrap()
}

/// CRC-32 of IEEE 802.3, over the pixels of all frames.
fn crc(frames: &[ClipFrame]) -> u32 {
    let mut table = [0u32; 256];
    for (n, entry) in table.iter_mut().enumerate() {
        *entry =
            (0..8).fold(n as u32, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 });
    }
    let bytes = frames.iter().flat_map(|frame| &frame.pixels);
    !bytes.fold(!0, |c, b| table[(c as u8 ^ b) as usize] ^ c >> 8)
}

#[test]
fn every_frame_is_what_ffmpeg_decodes() {
    let size = Size { width: 128, height: 96 };
    for (name, matrix, range, sum) in [
        ("bframes.mp4", ColourMatrix::Bt709, ColourRange::Limited, 0xdfd5_89cd),
        ("hevc.mp4", ColourMatrix::Unspecified, ColourRange::Limited, 0x785b_518a),
    ] {
        let frames = frames(&asset(name));
        assert_eq!(frames.len(), 50, "{name}");
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!((frame.index, frame.size), (n as u64, size), "{name}");
            assert_eq!((frame.matrix, frame.range), (matrix, range), "{name}");
        }
        assert_eq!(crc(&frames), sum, "{name}");
    }
}

#[test]
fn the_demo_clip_has_300_frames_of_768x576_at_10_fps() {
    let clip = ClipFrames::open(&pedestrians()).unwrap();
    assert_eq!(clip.fps(), 10.0);
    let frames: Vec<ClipFrame> = clip.collect::<Result<_, _>>().unwrap();
    assert_eq!(frames.len(), 300);
    assert!(frames.iter().all(|f| f.size == Size { width: 768, height: 576 }));
    assert!(frames.windows(2).all(|pair| pair[0].pixels != pair[1].pixels));
}

#[test]
fn ten_bits_and_a_change_of_size_are_decoded() {
    let ten = frames(&asset("ten_bits.mkv"));
    assert_eq!(ten.len(), 25);
    // The test picture holds saturated colours: eight bits of luma reach far apart.
    let luma = &ten[0].pixels[..128 * 96];
    assert!(luma.iter().max() > Some(&200) && luma.iter().min() < Some(&40));
    let sizes: Vec<u32> = frames(&asset("two_sizes.h264")).iter().map(|f| f.size.width).collect();
    assert_eq!(sizes, [[128; 25], [192; 25]].concat());
}

fn refusal(path: &Path) -> String {
    let error: ClipError = match ClipFrames::open(path) {
        Err(error) => error,
        Ok(frames) => frames.map(|frame| frame.err()).find_map(|e| e).expect("it was played"),
    };
    error.to_string()
}

#[test]
fn what_can_not_be_played_is_named_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let clip = std::fs::read(asset("bframes.mp4")).unwrap();
    let playlist =
        format!("#EXTM3U\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n", asset("hevc.mp4").display());
    for (path, parts) in [
        (directory.path().join("missing.mp4"), ["missing.mp4", "No such file", "check the path"]),
        (directory.path().to_owned(), ["can't be played", "not a regular file", "name a video"]),
        (file("text.mp4", b"this is no video"), ["text.mp4", "Invalid data", "use MP4"]),
        (file("empty.mp4", b""), ["empty.mp4", "it is empty", "name a video file"]),
        (file("cut.mp4", &clip[..4000]), ["cut.mp4", "Invalid data", "use MP4"]),
        (file("list.m3u8", playlist.as_bytes()), ["list.m3u8", "can't be played", "use MP4"]),
        (asset("yuv444.mp4"), ["yuv444.mp4", "yuv444p", "4:2:0"]),
    ] {
        let error = refusal(&path);
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn a_path_is_a_path_and_never_a_protocol() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["concat:a|b.mp4", "a b%20c.mp4", "-i.mp4"] {
        let path = directory.path().join(name);
        std::fs::copy(asset("bframes.mp4"), &path).unwrap();
        assert_eq!(frames(&path).len(), 50, "{name}");
    }
}

#[test]
fn damage_inside_a_clip_costs_frames_and_not_the_clip() {
    let directory = tempfile::tempdir().unwrap();
    let clip = std::fs::read(pedestrians()).unwrap();
    for (seed, every) in [(1usize, 997), (2, 4096), (3, 50_000)] {
        let mut damaged = clip.clone();
        // Not in the index at the end.
        for at in (seed * 10_000..clip.len() * 9 / 10).step_by(every) {
            damaged[at] ^= 0x55;
        }
        let path = directory.path().join(format!("{seed}.mp4"));
        std::fs::write(&path, damaged).unwrap();
        match ClipFrames::open(&path) {
            Ok(frames) => assert!(frames.count() <= 301),
            Err(error) => assert!(error.to_string().contains("can't be played")),
        }
    }
}
