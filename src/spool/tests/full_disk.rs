//! A disk that is really full, with the ballast.
use super::*;
