//! Does it obey the protocols?

mod http1;
