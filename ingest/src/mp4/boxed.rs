//! Boxes, written from the inside out into one buffer.

/// A buffer of boxes.
#[derive(Debug, Default)]
pub struct Boxes(pub Vec<u8>);

impl Boxes {
    /// A box around what `fill` writes.
    pub fn boxed(&mut self, kind: &[u8; 4], fill: impl FnOnce(&mut Boxes)) {
        let at = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind);
        fill(self);
        let length = u32::try_from(self.0.len() - at).expect("a box without pictures is small");
        self.0[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// A box with version and flags.
    pub fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, fill: impl FnOnce(&mut Boxes)) {
        self.boxed(kind, |b| {
            b.u32(u32::from(version) << 24 | flags);
            fill(b);
        });
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// So many zeros.
    pub fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// The unity matrix of headers.
    pub fn matrix(&mut self) {
        for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
            self.u32(value);
        }
    }
}
