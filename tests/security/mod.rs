//! What must never happen.
