//! A viewer's offer, and the peer that answers it.
//!
//! Made on the thread of whoever asks: reading what a stranger wrote must not take the time of those
//! who watch. Bounded before it is read, and in time linear in what is read.

use super::clock::Clock;
use base::{Instant, guard};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

/// Longest offer (chosen: a browser's is about 6 KiB).
const BYTES_MAX: usize = 64 << 10;
/// Most lines of an offer (chosen: a browser's with sound, pictures and data has about 250).
const LINES_MAX: usize = 1000;
/// Longest line (chosen: a browser's longest has about 200).
const LINE_BYTES_MAX: usize = 2048;
/// Most media of an offer (chosen: a viewer needs one).
const MEDIA_MAX: usize = 8;
/// Packets of the past that a viewer can ask for again (chosen: 1 s of 16 Mb/s).
const RESEND_PACKETS: usize = 2048;

/// Why an offer is not taken, as in HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Status.
    pub status: u16,
    /// Reason and remedy.
    pub message: String,
}

impl Refused {
    /// With a status, a reason and a remedy.
    pub fn new(status: u16, message: impl Into<String>) -> Refused {
        Refused { status, message: message.into() }
    }
}

/// What every viewer of a hub has in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Certificate of the hub.
    pub certificate: DtlsCert,
    /// Both clocks.
    pub clock: Clock,
}

/// A peer that has answered.
pub struct Peer {
    pub(super) rtc: Rtc,
    /// The video that it sends.
    pub(super) mid: Mid,
    /// Profile and payload type, of all that were agreed on.
    pub(super) types: Vec<(u16, Pt)>,
    /// Candidate addresses, ours.
    pub(super) local: Vec<SocketAddr>,
}

impl Peer {
    /// Takes an offer; returns the answer also. `ice` are credentials of this viewer alone.
    ///
    /// # Errors
    /// 400 when it is no offer of a browser that wants to see video, 406 when it has no H.264.
    pub fn answer(
        sdp: &str,
        ice: IceCreds,
        local: Vec<SocketAddr>,
        common: &Common,
        now: Instant,
    ) -> Result<(Peer, String), Refused> {
        let read = read(sdp)?;
        let answer = || answer(&read, ice, local, common, now);
        // A fault of the library is one offer's.
        guard::foreign(answer).unwrap_or_else(|_| Err(bad("it can't be read")))
    }
}

fn bad(what: &str) -> Refused {
    Refused::new(
        400,
        format!(
            "the offer is not one of a WebRTC viewer: {what}; send the SDP of a peer connection \
             with one video transceiver that receives"
        ),
    )
}

fn no_h264() -> Refused {
    Refused::new(
        406,
        "the browser offers no H.264 with packetization-mode 1, and pictures are sent as the camera \
         codes them; use a browser with H.264 in WebRTC",
    )
}

/// An offer within its bounds.
struct Offer {
    /// Without the candidates: a viewer is known by the addresses that it proves to have, and nothing is
    /// ever sent to one that it only names.
    sdp: String,
    /// Profile and number of the payload types that are H.264 of packetization mode 1.
    types: Vec<(u16, Pt)>,
}

fn read(sdp: &str) -> Result<Offer, Refused> {
    let bound = |has: usize, of: &str, most: usize| match has > most {
        true => Err(Refused::new(
            400,
            format!("the offer has {has} {of}, the limit is {most}; send that of a browser"),
        )),
        false => Ok(()),
    };
    bound(sdp.len(), "bytes", BYTES_MAX)?;
    let lines = || sdp.lines().map(str::trim_end);
    bound(lines().count(), "lines", LINES_MAX)?;
    bound(lines().map(str::len).max().unwrap_or(0), "bytes in a line", LINE_BYTES_MAX)?;
    bound(lines().filter(|line| line.starts_with("m=")).count(), "media", MEDIA_MAX)?;
    if !lines().any(|line| line.starts_with("m=video")) {
        return Err(bad("it has no m=video line"));
    }
    let types = h264_types(sdp);
    if types.is_empty() {
        return Err(no_h264());
    }
    let kept = lines().filter(|line| !line.starts_with("a=candidate:"));
    let sdp = kept.flat_map(|line| [line, "\r\n"]).collect();
    Ok(Offer { sdp, types })
}

fn answer(
    offer: &Offer,
    ice: IceCreds,
    local: Vec<SocketAddr>,
    common: &Common,
    now: Instant,
) -> Result<(Peer, String), Refused> {
    #[cfg(test)]
    super::fault_tests::library();
    // Not in the library's words: they hold addresses of this process.
    let unread = || bad(&why_unread(&offer.sdp));
    let parsed = SdpOffer::from_sdp_string(&offer.sdp).map_err(|_| unread())?;
    let mut rtc = RtcConfig::new()
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_h264(true)
        .set_dtls_cert(common.certificate.clone())
        .set_local_ice_credentials(ice)
        .set_send_buffer_video(RESEND_PACKETS)
        .set_stats_interval(Some(Duration::from_secs(1)))
        .build(common.clock.theirs(now));
    for &address in &local {
        match Candidate::host(address, "udp") {
            Ok(candidate) => drop(rtc.add_local_candidate(candidate)),
            Err(_) => tracing::warn!("{address} can't be offered to viewers"),
        }
    }
    let answer = rtc.sdp_api().accept_offer(parsed).map_err(|_| unread())?.to_sdp_string();
    let sends = |mid: &Mid| {
        let media = rtc.media(*mid);
        media.is_some_and(|m| m.kind() == MediaKind::Video && m.direction().is_sending())
    };
    let mids = answer.lines().filter_map(|line| line.strip_prefix("a=mid:"));
    let mid = mids.map(|mid| Mid::from(mid.trim())).find(sends);
    let mid = mid.ok_or_else(|| bad("it has no video line that receives"))?;
    // What both have: of the offer, for its numbers are those that count.
    let agreed = |pt: Pt| {
        let ours = rtc.codec_config().params().iter().any(|p| p.pt() == pt);
        ours && rtc.media(mid).is_some_and(|media| media.remote_pts().contains(&pt))
    };
    let types: Vec<_> = offer.types.iter().copied().filter(|&(_, pt)| agreed(pt)).collect();
    if types.is_empty() {
        return Err(no_h264());
    }
    Ok((Peer { rtc, mid, types, local }, answer))
}

/// What of the needed is missing in an offer that can't be read.
fn why_unread(sdp: &str) -> String {
    const NEEDED: [&str; 4] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=mid:"];
    let missing = |needed: &&&str| !sdp.lines().any(|line| line.starts_with(**needed));
    match NEEDED.iter().find(missing) {
        Some(needed) => format!("it has no {} line", needed.trim_end_matches(':')),
        None => "it can't be read as SDP".to_owned(),
    }
}

/// Profile and number of the payload types of an offer that are H.264 of packetization mode 1, each
/// once. One pass: whoever offers chooses how many lines there are.
fn h264_types(sdp: &str) -> Vec<(u16, Pt)> {
    let sdp = sdp.to_ascii_lowercase();
    let (mut numbers, mut formats) = (Vec::new(), HashMap::new());
    for line in sdp.lines().map(str::trim) {
        let of = |name: &str| line.strip_prefix(name)?.split_once(' ');
        if let Some((number, codec)) = of("a=rtpmap:") {
            let number = number.parse::<u8>().ok().filter(|_| codec.starts_with("h264/90000"));
            numbers.extend(number.filter(|number| !numbers.contains(number)));
        } else if let Some((number, parameters)) = of("a=fmtp:")
            && let Ok(number) = number.parse::<u8>()
        {
            formats.entry(number).or_insert(parameters);
        }
    }
    let known = |number: u8| {
        let parameters = formats.get(&number)?;
        let value = |name: &str| {
            parameters.split(';').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='))
        };
        (value("packetization-mode") == Some("1")).then_some(())?;
        // Without one it is Baseline (RFC 6184, 8.1).
        let level_id =
            u32::from_str_radix(value("profile-level-id").unwrap_or("42000a"), 16).ok()?;
        Some(((level_id >> 8) as u16, Pt::from(number)))
    };
    numbers.into_iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &str) -> String {
        format!(
            "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n{lines}"
        )
    }

    #[test]
    fn payload_types_are_h264_of_mode_1_each_once_in_the_order_of_the_offer() {
        let types = |lines: &str| -> Vec<_> {
            h264_types(lines).into_iter().map(|(profile, pt)| (profile, *pt)).collect()
        };
        let all = "a=fmtp:97 profile-level-id=64001f;packetization-mode=1\r\n\
            a=rtpmap:98 VP8/90000\r\na=fmtp:98 packetization-mode=1\r\n\
            a=rtpmap:99 h264/90000\na=fmtp:99 packetization-mode=0\n\
            a=rtpmap:97 H264/90000\r\na=rtpmap:96 H264/90000\r\n\
            a=fmtp:96  packetization-mode=1\r\na=fmtp:96 packetization-mode=0\r\n\
            a=rtpmap:97 H264/90000\r\na=rtpmap:300 H264/90000\r\na=fmtp:300 packetization-mode=1";
        assert_eq!(types(all), [(0x6400, 97), (0x4200, 96)]);
        assert_eq!(types(""), []);
        assert_eq!(types("a=rtpmap:9\r\na=fmtp:\r\na=rtpmap: H264/90000"), []);
    }

    #[test]
    fn each_bound_of_an_offer_is_met_and_not_passed() {
        let refused = |sdp: &str| read(sdp).err().map(|refused| refused.message);
        let lines = offer("").lines().count();
        assert_eq!(refused(&offer(&"a=x\r\n".repeat(LINES_MAX - lines))), None);
        let why = refused(&offer(&"a=x\r\n".repeat(LINES_MAX - lines + 1))).unwrap();
        assert!(why.contains("1001 lines, the limit is 1000"), "{why}");
        assert_eq!(refused(&offer(&"a".repeat(LINE_BYTES_MAX))), None);
        let why = refused(&offer(&"a".repeat(LINE_BYTES_MAX + 1))).unwrap();
        assert!(why.contains("2049 bytes in a line"), "{why}");
        assert_eq!(refused(&offer(&"m=audio\r\n".repeat(MEDIA_MAX - 1))), None);
        let why = refused(&offer(&"m=audio\r\n".repeat(MEDIA_MAX))).unwrap();
        assert!(why.contains("9 media"), "{why}");
        let row = format!("{}\r\n", "a".repeat(1998));
        let fill = |bytes: usize| {
            let rows = offer(&row.repeat(32));
            format!("{rows}{}", "b".repeat(bytes - rows.len()))
        };
        assert_eq!(refused(&fill(BYTES_MAX)), None);
        assert!(refused(&fill(BYTES_MAX + 1)).unwrap().contains("65537 bytes"));
    }

    #[test]
    fn addresses_that_a_viewer_only_names_are_left_out() {
        let line = "a=candidate:1 1 udp 2130706431 203.0.113.9 9 typ host\r\n";
        let read = read(&offer(&line.repeat(3))).ok().unwrap();
        assert_eq!(read.sdp, offer(""));
    }

    #[test]
    fn what_can_not_be_read_is_told_in_our_words() {
        let needed = "a=ice-ufrag:x\r\na=ice-pwd:x\r\na=fingerprint:x\r\n";
        assert_eq!(why_unread(&offer(needed)), "it has no a=mid line");
        assert_eq!(why_unread(&offer(&format!("{needed}a=mid:0"))), "it can't be read as SDP");
        assert_eq!(why_unread(""), "it has no a=ice-ufrag line");
    }
}
