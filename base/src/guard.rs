//! Where a panic is caught on purpose: around code that others wrote, over bytes that others chose.
//!
//! Everywhere else a panic is a fault of ours, and the process ends at once, whatever thread it was in
//! (`vas`, `crash.rs`): every process can end at any time, but one with a thread missing looks alive.
//! The files that may guard are listed in `hack/xtask/src/tidy.rs`, each with its reason.

use crate::told::told;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// How many guards this thread is inside of.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Runs foreign code; when it panics, what it said is the error. What `work` borrows may be left half
/// changed then: whoever guards drops it, or knows that it is whole.
///
/// # Errors
/// The message of the panic, fit to be told.
pub fn foreign<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    INSIDE.set(INSIDE.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(INSIDE.get() - 1);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        told(text.unwrap_or("it said nothing"), [""; 0])
    })
}

/// Whether a panic of this thread would be caught. For the hook that ends the process otherwise.
pub fn is_inside() -> bool {
    INSIDE.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message_and_the_guard_is_over() {
        assert!(!is_inside());
        assert_eq!(foreign(is_inside), Ok(true));
        let nested = foreign(|| (foreign(|| panic!("{} frames", 7)), is_inside()));
        assert_eq!(nested, Ok((Err::<(), _>("7 frames".to_owned()), true)));
        assert_eq!(foreign(|| panic!("static")), Err::<(), _>("static".to_owned()));
        let said = foreign(|| panic!("no answer to rtsp://a:PW@h/1\nmore"));
        assert_eq!(said, Err::<(), _>("no answer to rtsp://***@h/1".to_owned()));
        let silent = foreign(|| std::panic::resume_unwind(Box::new(7)));
        assert_eq!(silent, Err::<(), _>("it said nothing".to_owned()));
        assert!(!is_inside());
    }
}
