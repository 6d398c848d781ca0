//! A local stand-in for the phospho API.
