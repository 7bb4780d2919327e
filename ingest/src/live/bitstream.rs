//! What live view must know of an H.264 access unit: profile, B pictures, RTP payloads.
//!
//! Pure. Units are Annex B. Payloads are those of RFC 6184, packetization mode 1: parameter sets
//! and other small NAL units travel together (STAP-A), large ones in pieces (FU-A).

use crate::annexb;
use crate::bits::Bits;
use std::sync::Arc;

/// Most bytes of an RTP payload (derived: with RTP, extensions, SRTP, UDP and IPv6 it stays below
/// 1200 bytes, which every path of a browser carries).
pub const PAYLOAD_BYTES_MAX: usize = 1100;
/// Where a first slice and parameter sets are looked for (chosen: SEI may be long).
const HEAD_BYTES: usize = 16 << 10;

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// `profile_idc` and constraint flags of a unit's first sequence parameter set, as they stand in
/// `profile-level-id`: `0x6400`, `0x42e0`.
pub fn profile(unit: &[u8]) -> Option<u16> {
    let sps = nals(head(unit)).find(|nal| nal[0] & 31 == NAL_SPS)?;
    Some(u16::from(*sps.get(1)?) << 8 | u16::from(*sps.get(2)?))
}

/// Whether a unit's first slice is a B slice. Pictures with such slices are not sent in the order
/// in which they are shown, and browsers show what comes in the order in which it comes.
pub fn bipredicted(unit: &[u8]) -> bool {
    let Some(slice) = nals(head(unit)).find(|nal| (1..=NAL_IDR).contains(&(nal[0] & 31))) else {
        return false;
    };
    // first_mb_in_slice and slice_type.
    let mut bits = Bits::new(&slice[1..]);
    bits.unsigned().and_then(|_| bits.unsigned()).is_some_and(|kind| kind % 5 == 1)
}

/// The RTP payloads of a unit, in order; the last one gets the marker.
pub fn payloads(unit: &[u8]) -> Vec<Arc<[u8]>> {
    let mut payloads = Vec::with_capacity(unit.len() / PAYLOAD_BYTES_MAX + 2);
    let mut small: Vec<&[u8]> = Vec::new();
    let mut small_bytes = 1;
    for nal in nals(unit) {
        // Access unit delimiters, ends of sequence and of stream, filler: nobody needs them.
        if matches!(nal[0] & 31, 9..=12) {
            continue;
        }
        if small_bytes + 2 + nal.len() > PAYLOAD_BYTES_MAX {
            aggregate(&mut small, &mut payloads);
            small_bytes = 1;
        }
        if nal.len() + 3 > PAYLOAD_BYTES_MAX {
            fragment(nal, &mut payloads);
        } else {
            small_bytes += 2 + nal.len();
            small.push(nal);
        }
    }
    aggregate(&mut small, &mut payloads);
    payloads
}

fn aggregate(small: &mut Vec<&[u8]>, payloads: &mut Vec<Arc<[u8]>>) {
    match small.as_slice() {
        [] => return,
        [one] => payloads.push(Arc::from(*one)),
        many => {
            // The highest importance of those inside (RFC 6184, 5.7.1).
            let importance = many.iter().map(|nal| nal[0] & 0x60).max().unwrap_or(0);
            let mut payload = vec![importance | STAP_A];
            for nal in many {
                // At most PAYLOAD_BYTES_MAX.
                payload.extend((nal.len() as u16).to_be_bytes());
                payload.extend(*nal);
            }
            payloads.push(payload.into());
        }
    }
    small.clear();
}

fn fragment(nal: &[u8], payloads: &mut Vec<Arc<[u8]>>) {
    let (indicator, kind) = (nal[0] & 0x60 | FU_A, nal[0] & 31);
    let mut rest = &nal[1..];
    let mut start = 0x80;
    // Pieces of one size: no small one at the end.
    let pieces = rest.len().div_ceil(PAYLOAD_BYTES_MAX - 2);
    let size = rest.len().div_ceil(pieces.max(1));
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        let end = if behind.is_empty() { 0x40 } else { 0 };
        let mut payload = Vec::with_capacity(2 + piece.len());
        payload.extend([indicator, start | end | kind]);
        payload.extend(piece);
        payloads.push(payload.into());
        (rest, start) = (behind, 0);
    }
}

fn head(unit: &[u8]) -> &[u8] {
    &unit[..unit.len().min(HEAD_BYTES)]
}

/// The NAL units that hold anything.
fn nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    annexb::nals(stream).filter(|nal| !nal.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Undoes [`payloads`].
    fn nals_of(payloads: &[Arc<[u8]>]) -> Vec<Vec<u8>> {
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for payload in payloads {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            match payload[0] & 31 {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while let [high, low, behind @ ..] = rest {
                        let (nal, behind) =
                            behind.split_at(usize::from(*high) << 8 | usize::from(*low));
                        nals.push(nal.to_vec());
                        rest = behind;
                    }
                }
                FU_A => {
                    if payload[1] & 0x80 != 0 {
                        nals.push(vec![payload[0] & 0xe0 | payload[1] & 31]);
                    }
                    nals.last_mut().unwrap().extend(&payload[2..]);
                }
                _ => nals.push(payload.to_vec()),
            }
        }
        nals
    }

    #[test]
    fn payloads_hold_every_nal_in_order_and_none_is_too_large() {
        let nal = |kind: u8, bytes: usize| {
            let mut nal = vec![0x60 | kind];
            nal.extend((1..bytes).map(|n| n as u8 | 1));
            nal
        };
        for large in [2, 1096, 1097, 1098, 1099, 1100, 1101, 2196, 2197, 2198, 50_000] {
            let wanted = [nal(7, 20), nal(8, 5), nal(8, 6), nal(6, 40), nal(5, large), nal(1, 300)];
            let mut unit = vec![0, 0, 0, 1, 9, 0xf0];
            for (at, nal) in wanted.iter().enumerate() {
                unit.extend(if at % 2 == 0 { &[0, 0, 1][..] } else { &[0, 0, 0, 0, 1] });
                unit.extend(nal);
            }
            assert_eq!(nals_of(&payloads(&unit)), wanted, "large NAL of {large} bytes");
        }
        assert!(payloads(&[]).is_empty());
        assert!(payloads(&[0, 0, 1]).is_empty());
        assert!(payloads(&[0, 0, 1, 9, 0xf0]).is_empty());
    }

    #[test]
    fn profile_and_b_slices_are_read() {
        let key = [0, 0, 0, 1, 0x67, 0x64, 0, 0x1f, 7, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 0x88, 0x84];
        assert_eq!(profile(&key), Some(0x6400));
        assert!(!bipredicted(&key), "slice type 7: I");
        let slice = |bits: u8| [0, 0, 1, 0x41, bits, 0xff];
        // first_mb 0 = `1`; slice types 0 = `1`, 1 = `010`, 5 = `00110`, 6 = `00111`.
        assert!(!bipredicted(&slice(0b1100_0000)));
        assert!(bipredicted(&slice(0b1010_0000)));
        assert!(!bipredicted(&slice(0b1001_1000)));
        assert!(bipredicted(&slice(0b1001_1100)));
        for garbage in [&[][..], &[0, 0, 1], &[0, 0, 1, 0x41], &[0, 0, 1, 0x41, 0, 0, 0, 0, 0, 0]] {
            assert!(!bipredicted(garbage) && profile(garbage).is_none());
        }
    }
}
