//! Settings: files, environment and flags in, one checked structure out.
