//! Does it obey the protocols?

mod http1;
mod http2;
mod openapi;
