//! Does it obey the protocols?
