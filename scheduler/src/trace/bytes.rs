//! Little-endian numbers and texts, written and read with bounds checked.

use base::LatencyEntry;
use base::LatencyTable;
use std::str::FromStr;
use std::time::Duration;

/// Appends to a buffer.
pub(crate) struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }
    pub fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }
    pub fn duration(&mut self, value: Duration) {
        self.u64(base::time::nanos(value));
    }
    pub fn text(&mut self, value: &str) {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value.as_bytes());
    }
    pub fn option(&mut self, present: bool) {
        self.u8(u8::from(present));
    }
    pub fn table(&mut self, table: &LatencyTable) {
        self.u32(table.entries().len() as u32);
        for entry in table.entries() {
            self.u32(entry.batch);
            self.duration(entry.p50);
            self.duration(entry.p99);
        }
    }
}

/// Takes from a buffer; `None` = too short or not what it should be.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    /// A length and that many bytes.
    pub fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
    pub fn f32(&mut self) -> Option<f32> {
        self.u32().map(f32::from_bits)
    }
    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }
    pub fn duration(&mut self) -> Option<Duration> {
        self.u64().map(Duration::from_nanos)
    }
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.block()?).ok()
    }
    pub fn id<T: FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }
    /// `Some(None)` = absent.
    pub fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => value(self).map(Some),
            _ => None,
        }
    }
    pub fn table(&mut self) -> Option<LatencyTable> {
        let count = self.u32()?;
        let mut table = LatencyTable::default();
        for _ in 0..count {
            let (batch, p50, p99) = (self.u32()?, self.duration()?, self.duration()?);
            table.set(LatencyEntry { batch, p50, p99 });
        }
        Some(table)
    }
}
