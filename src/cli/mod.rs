//! The command line: one verb a file.
//!
//! Results go to stdout, everything else to stderr. An error is one message; its class is the exit code: 1 a wrong
//! result, 2 usage, 3 unsupported, 4 an invalid model or data, 5 anything else.

mod bench;
mod check;
mod common;
mod compile;
mod edit;
mod html;
mod optimize;
mod profile;
mod run;
mod runtime;
mod show;

use clap::{Parser, Subcommand};
use lapidary::{Class, Error};

/// Cuts ONNX models into native code.
#[derive(Parser)]
#[command(version, about, max_term_width = 100, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Compile(compile::Compile),
    Check(check::Check),
    Bench(bench::Bench),
    Show(show::Show),
    Edit(edit::Edit),
    Optimize(optimize::Optimize),
    Runtime(runtime::Runtime),
}

/// Reads the arguments, does what they say, and gives the exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results, and clap prints them to stdout.
            let code = if error.use_stderr() {
                Class::Usage.exit_code()
            } else {
                0
            };
            let _ = error.print();
            return code;
        }
    };
    let result = match arguments.verb {
        Verb::Run(verb) => verb.run(),
        Verb::Compile(verb) => verb.run(),
        Verb::Check(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Show(verb) => verb.run(),
        Verb::Edit(verb) => verb.run(),
        Verb::Optimize(verb) => verb.run(),
        Verb::Runtime(verb) => verb.run(),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            report(&error);
            error.class().exit_code()
        }
    }
}

fn report(error: &Error) {
    use std::io::Write;
    // Nobody may be listening any more.
    let _ = writeln!(std::io::stderr(), "error: {error}");
}
