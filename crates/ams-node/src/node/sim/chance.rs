//! Chance by the seed: while a thread simulates, whatever asks the system for random bytes gets the seed's.
//!
//! Owns the symbol `getrandom`, which hash maps, tokio and `rand` draw on: their orders and choices then repeat too. Threads
//! that do not simulate get the system's random bytes as ever.
#![allow(unsafe_code, reason = "a C symbol cannot be defined without; test builds only")]

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on this thread's chance is the seed's.
pub(super) fn seed(seed: u64) {
    SEEDED.with(|seeded| *seeded.borrow_mut() = Some(StdRng::seed_from_u64(seed)));
}

/// As getrandom(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    if buf.is_null() || len == 0 {
        return 0;
    }
    // SAFETY: the caller owns `len` bytes at `buf`, as getrandom(2) asks of it; bytes have no invalid values.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buf, len) };
    bytes.fill(0);
    let seeded = SEEDED.try_with(|seeded| match seeded.try_borrow_mut() {
        Ok(mut seeded) => seeded.as_mut().map(|chance| chance.fill_bytes(bytes)).is_some(),
        Err(_) => false,
    });
    if seeded != Ok(true) && File::open("/dev/urandom").and_then(|mut f| f.read_exact(bytes)).is_err() {
        return -1;
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}
