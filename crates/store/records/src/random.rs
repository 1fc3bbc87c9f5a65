//! Random bytes of the operating system.

use std::io;

use ashlar_core::{BuildId, Timestamp};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::Error;

/// Fills an array with random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut buffer = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut buffer[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Ok(buffer)
}

pub(crate) fn byte() -> Result<u8, Error> {
    Ok(bytes::<1>()?[0])
}

/// Makes a new build id.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn new_build_id(now: Timestamp) -> Result<BuildId, Error> {
    Ok(BuildId::from_parts(now.millis(), bytes()?))
}
