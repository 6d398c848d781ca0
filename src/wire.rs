//! Shapes of the wire: what stands between the bytes of a request and an event.
pub mod json;
