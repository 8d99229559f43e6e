//! The sliding window.
