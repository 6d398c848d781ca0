//! Telling systemd how the daemon is.
