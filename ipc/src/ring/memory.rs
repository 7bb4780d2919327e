//! Mapped files of a ring: `frame.meta` as atomic words, `frame.data` as raw bytes.
//!
//! Only files whose size was checked are mapped, and a published file is never truncated, so that
//! no access can leave the file. What the bytes say is believed by nobody in here.

use super::layout::{HEADER_BYTES, META_BYTES_MAX};
use super::seqlock::Word;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FileType, Stat};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// A mapped frame.meta.
pub(super) struct Meta {
    map: MmapRaw,
}

/// What a file that is not a ring's is refused with.
pub(super) fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Size of a regular file; anything else is refused.
pub(super) fn regular_bytes(stat: &Stat) -> io::Result<u64> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("not a regular file".to_owned()));
    }
    u64::try_from(stat.st_size).map_err(|_| refused(format!("size {}", stat.st_size)))
}

impl Meta {
    /// Maps an open frame.meta after checking its type and size.
    pub fn map(file: &File, writable: bool) -> io::Result<Meta> {
        let bytes = regular_bytes(&rustix::fs::fstat(file)?)?;
        if !(HEADER_BYTES as u64..=META_BYTES_MAX as u64).contains(&bytes)
            || !bytes.is_multiple_of(8)
        {
            return Err(refused(format!(
                "{bytes} bytes, a header has {HEADER_BYTES} to {META_BYTES_MAX}"
            )));
        }
        let mut options = MmapOptions::new();
        options.len(bytes as usize);
        let map =
            if writable { options.map_raw(file)? } else { options.map_raw_read_only(file)? };
        Ok(Meta { map })
    }

    /// The file as words. Storing is only for those who mapped it writable.
    pub fn words(&self) -> &[AtomicU64] {
        let start = self.map.as_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping is page aligned, `len` bytes long (a multiple of 8) and lives as long
        // as `self`; every access to it in any process is atomic by contract, and an AtomicU64 is
        // valid with any bits. The file is never truncated while it has its name.
        unsafe { std::slice::from_raw_parts(start, self.map.len() / 8) }
    }

    /// Marks the generation as replaced. For the holder of the camera's lock, on a writable map.
    pub fn retire(&self) {
        super::layout::retired(self.words()).store(1, Ordering::Relaxed);
        // Readers that see the odd sequence see the word above (their load is an Acquire). It stays
        // odd: nobody may believe this header again.
        let sequence = super::layout::sequence(self.words());
        let value = Word::load(sequence, Ordering::Relaxed);
        sequence.store(value | 1, Ordering::Release);
    }
}

/// A mapped frame.data.
pub(super) struct Data {
    map: MmapRaw,
}

impl Data {
    /// Maps the first `bytes` bytes for writing and makes them present, so that no write faults.
    pub fn map_writable(file: &File, bytes: u64) -> io::Result<Data> {
        let map = MmapOptions::new().len(bytes as usize).populate().map_raw(file)?;
        Ok(Data { map })
    }

    /// Maps the first `bytes` bytes read-only. The caller has checked the file's size.
    pub fn map_read_only(file: &File, bytes: u64) -> io::Result<Data> {
        Ok(Data { map: MmapOptions::new().len(bytes as usize).map_raw_read_only(file)? })
    }

    /// Address of `bytes` bytes at `offset`. Panics when they are not inside the mapping.
    pub fn at(&self, offset: u64, bytes: usize) -> *mut u8 {
        let offset = usize::try_from(offset).expect("offsets were checked against the mapping");
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.map.len()), "slot outside of frame.data");
        // SAFETY: `offset <= len` was just checked, so the address is inside the mapping or one
        // past its end.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }
}
