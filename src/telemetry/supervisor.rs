//! What the service manager is told, by the protocol of systemd's `sd_notify(3)`: lines in a datagram to the socket that `$NOTIFY_SOCKET` names.
//!
//! Without that variable nobody wants to know, and nothing is said. Saying never fails anything: a manager that does not hear has its own
//! patience.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Requests are taken.
pub fn ready() {
    say("READY=1");
}

/// The configuration is read again; [`ready`] ends that.
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The process drains or stops.
pub fn stopping() {
    say("STOPPING=1");
}

/// Requests are taken by this process, which is the service now in place of another.
pub fn took_over() {
    // In one message, so that none comes between.
    say(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// The process is alive.
pub fn alive() {
    say("WATCHDOG=1");
}

/// How often the manager wants to hear that this process is [`alive`]: twice as often as it must, as is recommended.
pub fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    // It may be meant for another process, which has started this one.
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    ours.then(|| Duration::from_micros(micros / 2))
}

fn say(lines: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    if let Err(error) = send(&path, lines) {
        log::warn!("the service manager cannot be told {lines:?}: {error}");
    }
}

fn send(path: &OsStr, lines: &str) -> io::Result<()> {
    let address = match path.as_bytes().split_first() {
        // A name that is no file's.
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_without_a_file_are_reached() {
        let name = format!("tollgate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
        assert!(send(OsStr::new("/no/such/socket"), "READY=1").is_err());
    }
}
