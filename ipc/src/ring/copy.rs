//! Copying pixels that another process may be overwriting.
//!
//! To the language such bytes are not memory it may reason about: a plain copy may be split, merged
//! or repeated by the compiler on the assumption that nothing changes. Volatile or atomic words are
//! sound but cost a third more than memcpy (docs/ring.md has the figures), so on x86_64 the copy is
//! a loop in assembly, which the compiler can't look into and which runs at the speed of memcpy.

/// Copies `bytes` bytes from `source` to `target`.
///
/// # Safety
/// `source` must be readable and `target` writable for `bytes` bytes, and they must not overlap.
/// The bytes at `source` may change during the copy; then `target` holds some mixture.
pub(super) unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize) {
    let wide = bytes - bytes % 128;
    // SAFETY: forwarded, for the first `wide` bytes.
    unsafe { copy_wide(source, target, wide) };
    for at in wide..bytes {
        // SAFETY: `at < bytes`, so the byte is within the readable range.
        let byte = unsafe { source.wrapping_add(at).read_volatile() };
        // SAFETY: `at < bytes`, so the byte is within the writable range.
        unsafe { target.wrapping_add(at).write(byte) };
    }
}

/// [`copy`] for a multiple of 128 bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_wide(source: *const u8, target: *mut u8, bytes: usize) {
    debug_assert!(bytes.is_multiple_of(128));
    if bytes == 0 {
        return;
    }
    if !std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the direction flag is clear on entry to asm blocks; ranges as forwarded.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") bytes => _,
                inout("rsi") source => _,
                inout("rdi") target => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    // SAFETY: AVX was detected; the loop runs bytes / 128 >= 1 times over ranges as forwarded; all
    // vector registers are declared lost, since vzeroupper clears the upper half of each.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovdqu ymm0, [{source}]",
            "vmovdqu ymm1, [{source} + 32]",
            "vmovdqu ymm2, [{source} + 64]",
            "vmovdqu ymm3, [{source} + 96]",
            "vmovdqu [{target}], ymm0",
            "vmovdqu [{target} + 32], ymm1",
            "vmovdqu [{target} + 64], ymm2",
            "vmovdqu [{target} + 96], ymm3",
            "add {source}, 128",
            "add {target}, 128",
            "dec {rounds}",
            "jnz 2b",
            "vzeroupper",
            source = inout(reg) source => _,
            target = inout(reg) target => _,
            rounds = inout(reg) bytes / 128 => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack)
        );
    }
}

/// [`copy`] for a multiple of 128 bytes.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_wide(source: *const u8, target: *mut u8, bytes: usize) {
    for at in (0..bytes).step_by(8) {
        let from = source.wrapping_add(at).cast::<u64>();
        let to = target.wrapping_add(at).cast::<u64>();
        debug_assert!(from.is_aligned());
        // SAFETY: `at + 8 <= bytes`, within the readable range; slots are page aligned, so every
        // eighth byte is aligned for u64.
        let word = unsafe { from.read_volatile() };
        // SAFETY: `at + 8 <= bytes`, within the writable range; the target may be unaligned.
        unsafe { to.write_unaligned(word) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn copies_every_length_exactly() {
        let source: Vec<u64> = (0..100u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let source: Vec<u8> = source.iter().flat_map(|w| w.to_le_bytes()).collect();
        for bytes in (0..300).chain([512, 513, 640, 799, 800]) {
            let mut target = vec![0xa5u8; 816];
            // SAFETY: 800 source bytes and 816 target bytes exist, `bytes + 3` is less, and they
            // are two allocations.
            unsafe { super::copy(source.as_ptr(), target[3..].as_mut_ptr(), bytes) };
            assert_eq!(target[3..3 + bytes], source[..bytes], "{bytes}");
            assert!(target[..3].iter().chain(&target[3 + bytes..]).all(|b| *b == 0xa5), "{bytes}");
        }
    }
}
