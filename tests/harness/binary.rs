//! Where the program under test is.

use std::path::PathBuf;

/// The `meridian` program of the profile that this test was built with.
///
/// Cargo does not build the binary of another package for a test: `cargo build` (with the same
/// `--profile`) must have been run before; `tests/run` does it.
pub fn meridian() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap(); // target/PROFILE/deps/TEST
    let binary = profile.join("meridian");
    assert!(
        binary.is_file(),
        "{} is not there: build it first, with `cargo build -p meridian` and the profile of the \
         tests",
        binary.display()
    );
    binary
}
