//! Tollgate's built-in plugins, one file each.
//!
//! [`BUILTINS`] is the only list of them. It is empty: the chain that runs plugins is not built yet, and a
//! configuration that names one is refused.

/// Names of the built-in plugins.
pub const BUILTINS: [&str; 0] = [];
