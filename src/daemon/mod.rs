//! Puts the parts together, watches over them and shuts them down.
pub mod bind;
