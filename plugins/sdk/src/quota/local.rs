//! Limits counted in this process.

/// Counts in memory.
#[derive(Debug, Default)]
pub struct Local {}
