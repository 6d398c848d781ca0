//! The routes that tell operators how things stand.
