//! Reads the bits of NAL units (ITU-T H.264 and H.265, 7.2 and 9). Pure; any bytes may come in, and
//! what reaches beyond them is `None`.

/// Bits of a NAL unit, without its emulation prevention bytes.
pub struct Bits<'a> {
    bytes: &'a [u8],
    zeros: u8,
    current: u8,
    left: u8,
}

impl<'a> Bits<'a> {
    /// At the first bit of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, zeros: 0, current: 0, left: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            return self.byte();
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }

    /// The next bit.
    pub fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            (self.current, self.left) = (self.byte()?, 8);
        }
        self.left -= 1;
        Some(u32::from(self.current >> self.left & 1))
    }

    /// The next `count` bits, at most 32, the first on top.
    pub fn take(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | self.bit()?))
    }

    /// Passes over bits.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// ue(v), Exp-Golomb of at most 31 bits (H.264, 9.1; H.265, 9.2).
    pub fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.take(zeros)?;
        Some((1u32 << zeros) - 1 + rest)
    }

    /// se(v).
    pub fn signed(&mut self) -> Option<i64> {
        let value = i64::from(self.unsigned()?);
        Some(if value % 2 == 1 { value / 2 + 1 } else { -(value / 2) })
    }

    /// The next bit as a yes or no.
    pub fn flag(&mut self) -> Option<bool> {
        self.bit().map(|bit| bit == 1)
    }

    /// Passes over `profile_tier_level` of H.265 (7.3.3): 88 bits of general profile, 8 of level,
    /// and those of the layers below the highest.
    pub fn skip_profile_tier_level(&mut self, sub_layers: u32) -> Option<()> {
        self.skip(96)?;
        let mut present = Vec::new();
        for _ in 0..sub_layers {
            present.push((self.flag()?, self.flag()?));
        }
        if sub_layers > 0 {
            self.skip(2 * (8 - sub_layers as usize))?;
        }
        for (profile, level) in present {
            self.skip(if profile { 88 } else { 0 })?;
            self.skip(if level { 8 } else { 0 })?;
        }
        Some(())
    }
}
