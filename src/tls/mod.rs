//! TLS: what files hold, what is shown to clients and to targets, and the handshake with clients.
//!
//! A document names files; a handle stands for them over all revisions ([`Identity`] towards clients, [`Credentials`] towards targets), so that compiling
//! reads nothing. What is ordered comes without files ([`Issued`]). [`Files`] fills the handles before a configuration comes into force and again when the files have changed. Files with a mistake leave
//! what was there. Handshakes are ours and not Pingora's, since its listener has one configuration for all names for as long as the process lives.

mod accept;
mod client;
mod files;
mod issued;
mod pem;
mod revoked;
mod server;
mod stream;

pub use accept::{ALPN_OF_CHALLENGES, Choice, Handshake, Known, Refused, Way, accept};
pub use client::{ClientFiles, Credentials, Uncertain};
pub use files::{Files, read_pem};
pub use issued::Issued;
pub use pem::{Leaf, Part, ReadPem, Wrong};
pub use server::{Identity, Origin, ServerFiles};
pub use stream::Encrypted;
