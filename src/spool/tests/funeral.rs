//! Dead letters and the queue: each event is in one of them, whatever is cut off or fails in between.
use super::*;
