//! Lines that join the head of an answer on its way to the client.
//!
//! How six limits stand is told in every answer. Put into a map of headers and written out of it, each of them costs as much as a plugin does; as lines
//! that are written right before the empty line they cost next to nothing. Only our own road does so, towards HTTP/1 clients, and only
//! where nobody else is to see or change the head (`response.rs`). What is to be told is given to the connection's
//! [`Alarm`](super::alarm::Alarm) just before the head is written, and taken back right after: nothing else can be written in between.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora_core::protocols::Stream;
use tokio::io::AsyncWrite;
use tollgate_sdk::quota::Standings;

/// What a head ends with; the lines go before its second half.
const END: &[u8] = b"\r\n\r\n";

/// What was taken to be written and could not be at once.
#[derive(Default)]
pub(super) struct Held(Vec<u8>);

/// A head may have cookies in it.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.0.len()).finish()
    }
}

impl Held {
    /// Writes `head` with the lines in it. What is no head goes as it is. Returns how much of `head` was taken.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        head: &[u8],
        standings: &Standings,
    ) -> Poll<io::Result<usize>> {
        if !head.starts_with(b"HTTP/1.") || !head.ends_with(END) {
            return Pin::new(stream).poll_write(cx, head);
        }
        let (fields, _) = head.split_at(head.len() - END.len() / 2);
        let mut lines = standings.lines();
        lines.end();
        match stream.get_ssl_digest() {
            // Both go into the stream's own buffer.
            None => {
                self.offer(stream, cx, fields)?;
                self.offer(stream, cx, lines.as_ref())?;
            }
            // Each would be a record of its own.
            Some(_) => self.offer(stream, cx, &[fields, lines.as_ref()].concat())?,
        }
        // What is left goes before whatever is written or flushed next.
        Poll::Ready(Ok(head.len()))
    }

    /// Writes as much as can be written now, and holds the rest.
    fn offer(&mut self, stream: &mut Stream, cx: &mut Context<'_>, piece: &[u8]) -> io::Result<()> {
        let taken = match self.0.is_empty() {
            true => match Pin::new(stream).poll_write(cx, piece)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(taken) => taken,
                Poll::Pending => 0,
            },
            false => 0,
        };
        if let Some(left @ [_, ..]) = piece.get(taken..) {
            self.0.extend_from_slice(left);
        }
        Ok(())
    }

    /// Writes what is held.
    pub(super) fn poll_rest(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.0))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written == self.0.len() {
                // A connection that waits keeps no memory for what has been sent.
                self.0 = Vec::new();
            } else {
                self.0.drain(..written);
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use pingora_core::protocols::l4::stream::Stream as L4;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tollgate_sdk::quota::Standing;

    use super::*;

    /// How much is left, and how that reads.
    fn told() -> (Standings, &'static [u8]) {
        let mut standings = Standings::default();
        standings.tell_requests(Standing {
            limit: 15,
            remaining: 14,
            reset: Duration::from_secs(60),
        });
        let lines = b"x-ratelimit-limit-requests: 15\r\n\
            x-ratelimit-remaining-requests: 14\r\n\
            x-ratelimit-reset-requests: 60\r\n";
        (standings, lines)
    }

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Box::new(L4::from(near.unwrap())), far.unwrap().0)
    }

    /// What arrives of `written`, with what is [told] beside it, and of a body after it.
    async fn arrives(written: Vec<u8>) -> Vec<u8> {
        let (mut near, mut far) = pair().await;
        let sending = tokio::spawn(async move {
            let mut held = Held::default();
            let mut rest = &written[..];
            while !rest.is_empty() {
                let standings = match rest.len() == written.len() {
                    true => told().0,
                    false => Standings::default(),
                };
                let taken = poll_fn(|cx| held.poll_write(&mut near, cx, rest, &standings));
                rest = &rest[taken.await.unwrap()..];
            }
            poll_fn(|cx| held.poll_rest(&mut near, cx)).await.unwrap();
            near.write_all(b"body").await.unwrap();
            near.flush().await.unwrap();
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        read
    }

    #[tokio::test]
    async fn lines_go_before_the_empty_line() {
        let read = arrives(b"HTTP/1.1 200 OK\r\nc: 3\r\n\r\n".into()).await;
        let fields = b"HTTP/1.1 200 OK\r\nc: 3\r\n";
        assert_eq!(read, [fields, told().1, b"\r\nbody"].concat());
    }

    #[tokio::test]
    async fn what_is_no_head_is_left_alone() {
        for other in ["data: x\r\n\r\n", "HTTP/1.1 200 OK\r\nc: 3\r\n"] {
            let read = arrives(other.into()).await;
            assert_eq!(read, [other.as_bytes(), b"body"].concat());
        }
    }

    /// More than the system takes at once: the rest follows in order.
    #[tokio::test]
    async fn a_slow_reader_gets_everything_in_order() {
        let long = "x".repeat(9_000_000);
        let fields = format!("HTTP/1.1 200 OK\r\nc: {long}\r\n");
        let read = arrives(format!("{fields}\r\n").into()).await;
        assert!(read == [fields.as_bytes(), told().1, b"\r\nbody"].concat());
    }
}
