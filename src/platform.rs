//! What differs between platforms.

/// Blocks all signals in this thread and those it starts: Emacs handles its signals
/// on its own thread, and a closed wake pipe must not kill it with SIGPIPE.
#[cfg(unix)]
pub fn block_signals() {
    // SAFETY: both calls only write to the set given, which is a plain C struct for
    // which all zeroes is a valid value.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut signals);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals, std::ptr::null_mut());
    }
}

/// Windows has no such signals.
#[cfg(not(unix))]
pub fn block_signals() {}
