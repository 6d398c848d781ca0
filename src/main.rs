//! The `phosphod` command; everything is in the library.

fn main() -> std::process::ExitCode {
    phosphod::cli::main()
}
