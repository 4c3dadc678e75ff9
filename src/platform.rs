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

/// Runs `body` in a thread that takes signals, for the processes that it starts inherit
/// what is blocked: a gpg-agent would stay deaf for its life. Emacs's handlers pass on
/// to its own thread what reaches them in another.
#[cfg(all(unix, feature = "gpg"))]
pub fn with_signals<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the set was filled in by the system.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut());
            }
        }
    }
    // SAFETY: as in block_signals.
    let _restore = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, &raw mut before);
        Restore(before)
    };
    body()
}

/// Windows has no such signals.
#[cfg(all(not(unix), feature = "gpg"))]
pub fn with_signals<T>(body: impl FnOnce() -> T) -> T {
    body()
}
