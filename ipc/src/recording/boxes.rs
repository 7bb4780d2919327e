//! Boxes of ISO/IEC 14496-12, read from bytes that nobody vouches for.

/// One box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Atom<'a> {
    /// Its four characters.
    pub kind: [u8; 4],
    /// What it holds.
    pub body: &'a [u8],
}

/// The boxes that follow one another in `bytes`, up to the first that is cut off or malformed.
pub fn boxes(bytes: &[u8]) -> impl Iterator<Item = Atom<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (kind, header, length) = head(rest)?;
        let length = usize::try_from(length).ok()?;
        let body = rest.get(header..length)?;
        rest = &rest[length..];
        Some(Atom { kind, body })
    })
}

/// The first box of this kind in `bytes`.
pub fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|atom| atom.kind == *kind).map(|atom| atom.body)
}

/// The box at the end of a path of boxes in boxes.
pub fn descend<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| find(bytes, kind))
}

/// Kind, length of the header and of the whole box that begins here. A box that reaches to the end
/// of its file, without a length, is malformed here.
pub fn head(bytes: &[u8]) -> Option<([u8; 4], usize, u64)> {
    let mut fields = Fields(bytes);
    let short = fields.u32()?;
    let kind = fields.u32()?.to_be_bytes();
    let (header, length) = match short {
        1 => (16, fields.u64()?),
        _ => (8, u64::from(short)),
    };
    (length >= header as u64).then_some((kind, header, length))
}

/// Reads numbers, big-endian, from the front.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_found_and_malformed_ones_end_the_list() {
        let bytes =
            b"\0\0\0\x0cfreeabcd\0\0\0\x10moov\0\0\0\x08trak\0\0\0\x01mdat\0\0\0\0\0\0\0\x12xy";
        let kinds: Vec<_> = boxes(bytes).map(|atom| atom.kind).collect();
        assert_eq!(kinds, [*b"free", *b"moov", *b"mdat"]);
        assert_eq!(find(bytes, b"mdat"), Some(&b"xy"[..]));
        assert_eq!(descend(bytes, &[b"moov", b"trak"]), Some(&b""[..]));
        assert_eq!(descend(bytes, &[b"moov", b"mdia"]), None);
        for cut in 0..bytes.len() {
            assert!(boxes(&bytes[..cut]).count() < 3, "cut at {cut}");
        }
        for bad in [
            &b"\0\0\0\0free"[..],
            b"\0\0\0\x07free",
            b"\xff\xff\xff\xfffree",
            b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(boxes(bad).count(), 0, "{bad:?}");
        }
    }
}
