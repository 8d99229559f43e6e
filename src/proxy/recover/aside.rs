//! Waiting outside of Pingora.
//!
//! Pingora's future for a request has room for all that could become of it, some 14 KB, and a request that waits for its turn uses none of it. So whoever
//! has to wait steps aside: the road is left at a point from which it can be taken again, session and exchange go to the connection's task, and
//! Pingora ends its future with a stand-in, which nobody sees. The task takes up the road from that point, and then does what Pingora does after it. HTTP/2 streams wait where they are.

use std::io::Cursor;

use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, Session};

use super::{Road, Service};
use crate::proxy::Proxy;
use crate::proxy::account::Account;
use crate::proxy::exchange::Exchange;

/// Whether an exchange goes aside when it has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) enum Aside {
    /// No: it is somewhere else than on the road, has done so, or cannot.
    #[default]
    Stays,
    /// Yes, before the next wait.
    Goes,
    /// It is going, and takes up the road there.
    Left(Point),
}

/// Where the road is taken up again. All else that was done stands in the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Point {
    /// Before a look for a target of its service.
    Service,
    /// Before the service's 429 queue.
    Queue,
}

/// An exchange that has left Pingora.
pub(in crate::proxy) struct Parked {
    session: Session,
    x: Box<Exchange>,
    at: Point,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parked").field(&self.at).finish()
    }
}

impl Exchange {
    /// Called before a wait.
    ///
    /// # Errors
    /// It goes aside: the error is to reach [`leave`].
    pub(in crate::proxy) fn step_aside(&mut self, at: Point) -> Result<()> {
        if self.aside != Aside::Goes {
            return Ok(());
        }
        self.aside = Aside::Left(at);
        Err(Error::new_in(ErrorType::InternalError))
    }

    /// Whether the error that comes back is [`step_aside`](Self::step_aside)'s.
    pub(in crate::proxy) fn has_left(&self) -> bool {
        matches!(self.aside, Aside::Left(_))
    }
}

/// Allows it to go aside: the connection is one that takes it up.
pub(in crate::proxy) fn allow(session: &Session, x: &mut Exchange) {
    if x.alarm.is_some() && !session.as_downstream().is_http2() {
        x.aside = Aside::Goes;
    }
}

/// Leaves stand-ins to Pingora, and what was there to the connection's task.
///
/// # Errors
/// The stand-in is no good; nothing has been moved.
pub(in crate::proxy) async fn leave(
    session: &mut Session,
    x: &mut Box<Exchange>,
    at: Point,
) -> Result<()> {
    let Some(alarm) = x.alarm.clone() else {
        return Ok(());
    };
    // Ends with its answer.
    let asked = Cursor::new(b"GET / HTTP/1.0\r\n\r\n".to_vec());
    let mut other = Session::new_h1(Box::new(asked));
    other.as_downstream_mut().read_request().await?;
    let mut nobody = Box::new(Exchange::new(x.account.clone()));
    Account::leave_out(&mut nobody);
    alarm.park(Box::new(Parked {
        session: std::mem::replace(session, other),
        x: std::mem::replace(x, nobody),
        at,
    }));
    Ok(())
}

impl Road {
    async fn take_up(&self, session: &mut Session, x: &mut Exchange, at: Point) -> Result<()> {
        match at {
            Point::Service => self.carry(session, x).await,
            Point::Queue => self.go_on(session, x, Service::TooMany).await,
        }
    }
}

impl Proxy {
    /// Serves what has left Pingora. Returns the connection if there may be another request on it.
    pub(in crate::proxy) async fn take_up(&self, parked: Box<Parked>) -> Option<ReusedHttpStream> {
        let Parked {
            mut session,
            mut x,
            at,
        } = *parked;
        let served = Box::pin(self.road.take_up(&mut session, &mut x, at)).await;
        let error = served.err();
        if let Some(error) = &error {
            self.fail_to_proxy(&mut session, error, &mut x).await;
        }
        self.logging(&mut session, error.as_deref(), &mut x).await;
        if error.is_some() {
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = Box::pin(session.downstream_session.finish()).await;
        let stream = stream.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}
