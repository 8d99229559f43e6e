//! What two processes say to each other while one takes over from the other: JSON with its length before it, and sockets along with it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most sockets at once; Linux allows 253.
const MOST: usize = 250;
/// Bytes of the longest message.
const LONGEST: u32 = 1 << 30;
/// How long the other may take to read.
const WRITING: Duration = Duration::from_secs(10);

/// One end of the conversation.
pub(super) struct Link(UnixStream);

impl Link {
    pub(super) fn new(stream: UnixStream) -> io::Result<Link> {
        stream.set_write_timeout(Some(WRITING))?;
        Ok(Link(stream))
    }

    /// Says something, and gives copies of these along with it.
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        along: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if along.len() > MOST {
            let why = format!("more than {MOST} sockets cannot be handed over");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|l| *l <= LONGEST);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?.to_be_bytes();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !along.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(along)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // A process that has gone is an error, not a signal.
        let flags = SendFlags::NOSIGNAL;
        let sent = again(|| sendmsg(&self.0, &[IoSlice::new(&length)], &mut ancillary, flags))?;
        let mut stream = &self.0;
        stream.write_all(length.get(sent..).unwrap_or_default())?;
        stream.write_all(&body)
    }

    /// Hears what the other says next; `UnexpectedEof` if it has gone, `WouldBlock` or `TimedOut` if it says nothing for so long.
    pub(super) fn receive<T: DeserializeOwned>(
        &self,
        patience: Duration,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        self.0
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        let mut length = [0; 4];
        let (mut got, mut along) = (0, Vec::new());
        while got < length.len() {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let rest = length.get_mut(got..).unwrap_or_default();
            let flags = RecvFlags::CMSG_CLOEXEC;
            let mut into = [IoSliceMut::new(rest)];
            let read = again(|| recvmsg(&self.0, &mut into, &mut ancillary, flags))?.bytes;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(sockets) = message {
                    along.extend(sockets);
                }
            }
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            got += read;
        }
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = Vec::new();
        (&self.0).take(u64::from(length)).read_to_end(&mut body)?;
        Ok((serde_json::from_slice(&body)?, along))
    }
}

fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Link, Link) {
        let (one, other) = UnixStream::pair().unwrap();
        (Link::new(one).unwrap(), Link::new(other).unwrap())
    }

    #[test]
    fn messages_arrive_with_what_came_along() {
        let (one, other) = pair();
        let sockets: Vec<_> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let along: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        one.send(&"first", &along).unwrap();
        one.send(&"second", &[]).unwrap();
        let (first, got) = other.receive::<String>(Duration::from_secs(5)).unwrap();
        assert_eq!((first.as_str(), got.len()), ("first", 3));
        for (sent, got) in sockets.iter().zip(got) {
            let got = TcpListener::from(got);
            assert_eq!(got.local_addr().unwrap(), sent.local_addr().unwrap());
        }
        let (second, got) = other.receive::<String>(Duration::from_secs(5)).unwrap();
        assert_eq!((second.as_str(), got.len()), ("second", 0));
    }

    #[test]
    fn a_long_message_arrives_whole() {
        let (one, other) = pair();
        let text = "x".repeat(3 << 20);
        let sent = text.clone();
        let sending = std::thread::spawn(move || one.send(&sent, &[]));
        let (got, _) = other.receive::<String>(Duration::from_secs(10)).unwrap();
        sending.join().unwrap().unwrap();
        assert_eq!(got, text);
    }

    #[test]
    fn silence_and_absence_are_told_apart() {
        let (one, other) = pair();
        let silent = other.receive::<u8>(Duration::from_millis(10)).unwrap_err();
        assert!(matches!(
            silent.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ));
        drop(one);
        let gone = other.receive::<u8>(Duration::from_secs(5)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        let link = Link::new(other).unwrap();
        (&one).write_all(&[0, 0, 0, 3, b'{', b'{', b'{']).unwrap();
        assert!(link.receive::<u8>(Duration::from_secs(5)).is_err());
        (&one).write_all(&[255; 4]).unwrap();
        let refused = link.receive::<u8>(Duration::from_secs(5)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
