//! The routes that take events and feedback.
