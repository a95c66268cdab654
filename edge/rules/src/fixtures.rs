//! What the tests of the rules share: heads and times with boring defaults.
