//! RTP packets of pictures (RFC 3550, 6184, 7798) and the sender's report.

use crate::clip::Codec;

/// Largest payload.
const PAYLOAD: usize = 1400;

/// Makes the packets of one sender.
#[derive(Debug)]
pub struct Packetizer {
    codec: Codec,
    sender: u32,
    sequence: u16,
}

impl Packetizer {
    pub fn new(codec: Codec, sender: u32, sequence: u16) -> Packetizer {
        Packetizer { codec, sender, sequence }
    }

    /// The payloads of a picture's NAL units, large ones in fragments.
    pub fn payloads(&self, nals: &[Vec<u8>]) -> Vec<Vec<u8>> {
        nals.iter().flat_map(|nal| fragments(self.codec, nal)).collect()
    }

    /// Packets of payloads, the last one marked.
    pub fn packets(&mut self, payloads: &[Vec<u8>], timestamp: u32) -> Vec<Vec<u8>> {
        let last = payloads.len().saturating_sub(1);
        let packet = |(at, payload): (usize, &Vec<u8>)| self.packet(payload, timestamp, at == last);
        payloads.iter().enumerate().map(packet).collect()
    }

    pub fn packet(&mut self, payload: &[u8], timestamp: u32, marker: bool) -> Vec<u8> {
        let packet = packet(self.sender, self.sequence, timestamp, marker, payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// A packet of another sender.
    pub fn foreign(&self, timestamp: u32) -> Vec<u8> {
        let nal = [0x41, 0x9a, 1, 2, 3, 4];
        packet(!self.sender, self.sequence.wrapping_mul(7), timestamp, true, &nal)
    }

    /// A sender's report: RTP time and wall clock, seconds since 1900.
    pub fn report(&self, timestamp: u32, wall_seconds: u64) -> Vec<u8> {
        let mut report = vec![0x80, 200, 0, 6];
        report.extend(self.sender.to_be_bytes());
        report.extend((wall_seconds as u32).to_be_bytes());
        report.extend([0; 4]);
        report.extend(timestamp.to_be_bytes());
        report.extend([0; 8]);
        report
    }
}

fn packet(sender: u32, sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(sender.to_be_bytes());
    packet.extend(payload);
    packet
}

fn fragments(codec: Codec, nal: &[u8]) -> Vec<Vec<u8>> {
    let header = match codec {
        Codec::H264 => 1,
        Codec::H265 => 2,
    };
    if nal.len() <= PAYLOAD {
        return vec![nal.to_vec()];
    }
    let chunks: Vec<_> = nal[header..].chunks(PAYLOAD - 3).collect();
    let last = chunks.len() - 1;
    let fragment = |(at, chunk): (usize, &&[u8])| {
        let bits = u8::from(at == 0) << 7 | u8::from(at == last) << 6;
        let mut payload = match codec {
            // FU-A.
            Codec::H264 => vec![nal[0] & 0xe0 | 28, bits | nal[0] & 0x1f],
            // FU.
            Codec::H265 => {
                vec![nal[0] & 0x81 | 49 << 1, nal[1], bits | nal[0] >> 1 & 0x3f]
            }
        };
        payload.extend(*chunk);
        payload
    };
    chunks.iter().enumerate().map(fragment).collect()
}
