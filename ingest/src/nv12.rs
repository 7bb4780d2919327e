//! Decoded planes into NV12, each byte read and written once.
//!
//! Pure and safe: the loops are shaped so that the compiler vectorises them (checked by
//! measurement, docs/ingest.md).

/// Copies `rows` of `width` bytes out of a plane with padding.
pub fn copy_plane(plane: &[u8], stride: usize, width: usize, out: &mut [u8]) {
    if stride == width {
        out.copy_from_slice(&plane[..out.len()]);
        return;
    }
    for (out, row) in out.chunks_exact_mut(width).zip(plane.chunks(stride)) {
        out.copy_from_slice(&row[..width]);
    }
}

/// Interleaves two planes of `width` columns: `u0 v0 u1 v1 ...`.
pub fn interleave(u: Plane<'_>, v: Plane<'_>, width: usize, out: &mut [u8]) {
    let rows = u.data.chunks(u.stride).zip(v.data.chunks(v.stride));
    for (out, (u, v)) in out.chunks_exact_mut(2 * width).zip(rows) {
        interleave_row(&u[..width], &v[..width], out);
    }
}

/// One plane of a decoded picture.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    /// Samples, rows `stride` bytes apart.
    pub data: &'a [u8],
    /// Bytes from row to row.
    pub stride: usize,
}

/// Samples interleaved at a time: two vectors of SSE2.
const LANES: usize = 32;

fn interleave_row(u: &[u8], v: &[u8], out: &mut [u8]) {
    let (u_blocks, u_rest) = u.as_chunks::<LANES>();
    let (v_blocks, v_rest) = v.as_chunks::<LANES>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<{ 2 * LANES }>();
    for ((u, v), out) in u_blocks.iter().zip(v_blocks).zip(out_blocks) {
        for i in 0..LANES {
            out[2 * i] = u[i];
            out[2 * i + 1] = v[i];
        }
    }
    for ((&u, &v), out) in u_rest.iter().zip(v_rest).zip(out_rest.as_chunks_mut::<2>().0) {
        *out = [u, v];
    }
}

/// A sample of 10 bits in two little-endian bytes as one of 8 bits, rounded.
fn eight_bits(low: u8, high: u8) -> u8 {
    let sample = u16::from_le_bytes([low, high]);
    ((sample.saturating_add(2)) >> 2).min(255) as u8
}

/// As [`copy_plane`], from 10-bit samples.
pub fn copy_plane_10(plane: Plane<'_>, width: usize, out: &mut [u8]) {
    for (out, row) in out.chunks_exact_mut(width).zip(plane.data.chunks(plane.stride)) {
        for (out, [low, high]) in out.iter_mut().zip(row.as_chunks::<2>().0) {
            *out = eight_bits(*low, *high);
        }
    }
}

/// As [`interleave`], from 10-bit samples.
pub fn interleave_10(u: Plane<'_>, v: Plane<'_>, width: usize, out: &mut [u8]) {
    let rows = u.data.chunks(u.stride).zip(v.data.chunks(v.stride));
    for (out, (u, v)) in out.chunks_exact_mut(2 * width).zip(rows) {
        let samples = u.as_chunks::<2>().0.iter().zip(v.as_chunks::<2>().0);
        for (out, (u, v)) in out.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
            *out = [eight_bits(u[0], u[1]), eight_bits(v[0], v[1])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_padding_interleaves_like_the_plain_loop() {
        for width in (1..70).chain([384, 960]) {
            for padding in [0, 1, 33] {
                let (stride, rows) = (width + padding, 3);
                let u: Vec<u8> = (0..stride * rows).map(|i| (i * 7) as u8).collect();
                let v: Vec<u8> = (0..stride * rows).map(|i| (i * 13 + 5) as u8).collect();
                let mut out = vec![0; 2 * width * rows];
                let plane = |data| Plane { data, stride };
                interleave(plane(&u), plane(&v), width, &mut out);
                let mut luma = vec![0; width * rows];
                copy_plane(&u, stride, width, &mut luma);
                for row in 0..rows {
                    for x in 0..width {
                        let (from, to) = (row * stride + x, row * width + x);
                        assert_eq!((out[2 * to], out[2 * to + 1]), (u[from], v[from]));
                        assert_eq!(luma[to], u[from]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_row_may_lack_its_padding() {
        let (u, v) = ([1, 2, 9, 3, 4], [5, 6, 9, 7, 8]);
        let mut out = [0; 8];
        let plane = |data| Plane { data, stride: 3 };
        interleave(plane(&u), plane(&v), 2, &mut out);
        assert_eq!(out, [1, 5, 2, 6, 3, 7, 4, 8]);
    }

    #[test]
    fn ten_bits_are_rounded_to_eight() {
        let samples = [0u16, 1, 2, 5, 6, 1021, 1022, 1023, u16::MAX];
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let plane = Plane { data: &bytes, stride: bytes.len() };
        let mut out = [0; 9];
        copy_plane_10(plane, 9, &mut out);
        assert_eq!(out, [0, 0, 1, 1, 2, 255, 255, 255, 255]);
        let mut pairs = [9; 18];
        interleave_10(plane, plane, 9, &mut pairs);
        assert_eq!(pairs[8..12], [2, 2, 255, 255]);
    }
}
