//! Black-box tests of the real binary against the sandbox.

mod support;
