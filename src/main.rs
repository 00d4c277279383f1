//! The command `lapidary`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    restore_sigpipe();
    ExitCode::from(cli::main())
}

/// A reader that goes away (`lapidary show … | head`) ends the command quietly, as it does other tools: Rust's
/// start-up ignores the signal, which would turn it into panics of `println!`.
#[cfg(unix)]
fn restore_sigpipe() {
    unsafe extern "C" {
        fn signal(number: i32, handler: usize) -> usize;
    }
    const SIGPIPE: i32 = 13;
    const SIG_DFL: usize = 0;
    // SAFETY: resets a signal to its default before any thread is started.
    unsafe {
        signal(SIGPIPE, SIG_DFL);
    }
}

#[cfg(not(unix))]
fn restore_sigpipe() {}
