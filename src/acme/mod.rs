//! Certificates that are ordered (ACME, RFC 8555): who needs one, the order, the proof that a host is ours, and what is kept of it.
//!
//! Orders come from the configuration alone: no request and no handshake makes one, whatever host it names. An order that fails leaves what is
//! there in force. What is kept is sealed ([`Seal`]); what cannot be opened is never written over.

mod account;
mod challenges;
mod client;
mod hook;
mod issuer;
mod kept;
mod order;
mod seal;
mod standing;

pub use challenges::Challenges;
pub use issuer::{Issuer, Job, Outcome, Wanted};
pub use seal::{Opened, Seal};
pub use standing::{OrderState, Standing};
