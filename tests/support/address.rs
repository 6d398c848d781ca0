//! Addresses that nobody else takes.
//!
//! A port of 127.0.0.1 that was free a moment ago can be taken the next moment: by another test, or as the near end of any
//! connection. Even a connection to a closed port can be made, by connecting to itself. All of 127.0.0.0/8 is loopback, and
//! who asks for no other address gets 127.0.0.1, so a port of another one stays free.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address of the caller's own.
pub(crate) fn own_host() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    let process = std::process::id() & 0x7fff;
    Ipv4Addr::from(0x7f80_0000 | process << 8 | number)
}
