//! What happens when others fail.
