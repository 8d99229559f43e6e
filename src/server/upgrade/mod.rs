//! One process takes over from another without losing a connection.
//!
//! The old one starts the program on disk with its own arguments and gives it a socket as its standard input; over that go copies of the
//! listening sockets. What waits on them is accepted by whichever process accepts: there is no moment at which nobody listens. The new one
//! does all that can fail, says so, hears what was counted, begins to accept, and says that, too. Only then does the old one stop accepting and
//! drain. Until that last word anything that goes wrong ends the new one and leaves the old one as it was.
//!
//! ```text
//! old → new   Offer     the sockets, by address; what the new one does not find in the store
//! new → old   Ready     loaded, bound, compiled, resolved
//! old → new   Counted   what limits have counted
//! new → old   Serving   it accepts and is ready
//! ```

pub(super) mod door;
mod hand_over;
mod link;
mod program;
mod take_over;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::Resource;

pub(super) use hand_over::Old;
pub(super) use program::Program;
pub(super) use take_over::Predecessor;

/// How long a new process may take to get ready, unless it is said.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last words may take, which need nothing but the processor.
const SWITCH: Duration = Duration::from_secs(15);
/// Tells a new process that its standard input is the way to the one that it is to take over from; its value is that one's number.
const VARIABLE: &str = "TOLLGATE_UPGRADE";
/// The version of these messages.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Offer {
    version: u32,
    /// In the order in which they come along.
    sockets: Vec<SocketAddr>,
    /// After them comes what is to be the new one's standard error; until it serves that leads to the old one.
    #[serde(default)]
    stderr: bool,
    /// Of a configuration that is gone with the old process.
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Ready {
    pid: u32,
    version: String,
}

#[derive(Serialize, Deserialize)]
struct Serving {}
