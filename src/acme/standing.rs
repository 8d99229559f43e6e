//! How each gateway's order stands: when it is due, and when it is tried again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::tls::Issued;

/// The longest wait after a failure, unless the authority asks for a longer one.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderState {
    /// It is to be made.
    Waiting,
    /// It is under way.
    Ordering,
    /// Its certificate is there.
    Issued,
    /// It failed, and is tried again.
    Failed,
    /// It cannot be made as things are: somebody has to mend something.
    Blocked,
}

impl OrderState {
    /// All of them.
    pub const ALL: [OrderState; 5] = [
        OrderState::Waiting,
        OrderState::Ordering,
        OrderState::Issued,
        OrderState::Failed,
        OrderState::Blocked,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            OrderState::Waiting => "waiting",
            OrderState::Ordering => "ordering",
            OrderState::Issued => "issued",
            OrderState::Failed => "failed",
            OrderState::Blocked => "blocked",
        }
    }
}

/// How an order stands, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub state: OrderState,
    /// Why, if it failed or is blocked.
    pub reason: Option<String>,
    /// When the next order is due, if that is known.
    pub next: Option<SystemTime>,
    /// Whether there is a certificate that an authority issued.
    pub has_certificate: bool,
}

/// What is known of a gateway's order.
pub(super) struct Record {
    pub(super) names: Arc<[String]>,
    /// The last failure since something changed.
    pub(super) failed: Option<String>,
    pub(super) failures: u32,
    /// Not to be tried before.
    pub(super) not_before: Option<SystemTime>,
    /// What stands in the way, as the configuration is.
    pub(super) obstacle: Option<String>,
    /// What is kept cannot be opened.
    pub(super) locked: Option<String>,
    pub(super) under_way: bool,
    pub(super) certificate: Option<Held>,
}

/// A certificate that an authority issued.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) issued: Arc<Issued>,
    pub(super) directory: String,
    pub(super) renew_at: SystemTime,
}

impl Held {
    pub(super) fn new(issued: Arc<Issued>, directory: String) -> Self {
        let leaf = issued.leaf();
        let (from, until) = (leaf.not_before, leaf.not_after);
        let renew_at = renewal(from, until, fraction(issued.certificate()));
        Self {
            issued,
            directory,
            renew_at,
        }
    }

    /// Whether it is what is wanted now.
    pub(super) fn is_good(&self, names: &[String], directory: &str, now: SystemTime) -> bool {
        self.fits(names, directory) && now < self.renew_at
    }

    fn fits(&self, names: &[String], directory: &str) -> bool {
        self.issued.covers(names) && self.directory == directory
    }
}

impl Record {
    pub(super) fn new(names: Arc<[String]>) -> Self {
        Self {
            names,
            failed: None,
            failures: 0,
            not_before: None,
            obstacle: None,
            locked: None,
            under_way: false,
            certificate: None,
        }
    }

    /// Whether an order is to be made now.
    pub(super) fn is_due(&self, directory: &str, now: SystemTime) -> bool {
        let held = self.certificate.as_ref();
        !self.under_way
            && self.blocked().is_none()
            && self.not_before.is_none_or(|at| at <= now)
            && !held.is_some_and(|held| held.is_good(&self.names, directory, now))
    }

    fn blocked(&self) -> Option<&String> {
        self.obstacle.as_ref().or(self.locked.as_ref())
    }

    pub(super) fn standing(&self, directory: &str) -> Standing {
        let held = self.certificate.as_ref();
        let fits = held.is_some_and(|held| held.fits(&self.names, directory));
        let state = match (self.under_way, self.blocked(), &self.failed) {
            (true, ..) => OrderState::Ordering,
            (_, Some(_), _) => OrderState::Blocked,
            (_, _, Some(_)) => OrderState::Failed,
            _ if fits => OrderState::Issued,
            _ => OrderState::Waiting,
        };
        Standing {
            state,
            reason: self.blocked().or(self.failed.as_ref()).cloned(),
            next: match state {
                OrderState::Failed => self.not_before,
                OrderState::Issued => held.map(|held| held.renew_at),
                _ => None,
            },
            has_certificate: held.is_some(),
        }
    }
}

/// When a certificate is renewed: when two thirds of its life are over, and up to a thirtieth of it earlier, so that many that came together do not go
/// together. `chance` is from 0 to 1.
fn renewal(from: i64, until: i64, chance: f64) -> SystemTime {
    let life = Duration::from_secs(u64::try_from(until.saturating_sub(from)).unwrap_or(0));
    let early = life.mul_f64(chance.clamp(0.0, 1.0) / 30.0);
    let after = (life * 2 / 3).saturating_sub(early);
    let from = Duration::from_secs(u64::try_from(from).unwrap_or(0));
    SystemTime::UNIX_EPOCH + from + after
}

/// A number from 0 to 1 that is the certificate's own, so that a restart does not change when it is renewed.
fn fraction(certificate: &str) -> f64 {
    let digest = Sha256::digest(certificate);
    let first = digest.first_chunk::<4>().copied().unwrap_or_default();
    f64::from(u32::from_be_bytes(first)) / f64::from(u32::MAX)
}

/// How long to wait after so many failures: twice as long each time, a part of it by chance (`chance` is from 0 to 1), and never shorter than the authority
/// asked for.
pub(super) fn wait(
    first: Duration,
    failures: u32,
    chance: f64,
    asked: Option<Duration>,
) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
    let longest = first.saturating_mul(doubled).min(LONGEST.max(first));
    let wait = Duration::try_from_secs_f64(longest.as_secs_f64() * chance.clamp(0.0, 1.0));
    wait.unwrap_or(longest).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn two_thirds_of_a_life_and_never_later() {
        let days = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * DAY);
        let life = (30 * DAY as i64, 120 * DAY as i64);
        assert_eq!(renewal(life.0, life.1, 0.0), days(90));
        assert_eq!(renewal(life.0, life.1, 1.0), days(87));
        // One that makes no sense is renewed at once.
        assert_eq!(renewal(life.1, life.0, 0.5), days(120));
    }

    #[test]
    fn waits_double_up_to_a_bound_and_the_authority_has_the_last_word() {
        let minute = Duration::from_secs(60);
        let longest = |failures| wait(minute, failures, 1.0, None);
        assert_eq!(
            [longest(1), longest(2), longest(3)],
            [minute, minute * 2, minute * 4]
        );
        assert_eq!(longest(50), LONGEST);
        assert_eq!(wait(minute, 3, 0.25, None), minute);
        assert_eq!(wait(minute, 1, 0.5, Some(minute * 90)), minute * 90);
        assert_eq!(wait(Duration::MAX, 9, 1.0, None), Duration::MAX);
    }

    #[test]
    fn who_fails_waits_and_who_is_blocked_is_left_alone() {
        let now = SystemTime::now();
        let mut record = Record::new(vec!["a.example".to_owned()].into());
        assert!(record.is_due("d", now));
        record.under_way = true;
        assert!(!record.is_due("d", now));
        record.under_way = false;
        record.not_before = Some(now + Duration::from_secs(1));
        assert!(!record.is_due("d", now));
        assert!(record.is_due("d", now + Duration::from_secs(2)));
        record.locked = Some("why".into());
        assert!(!record.is_due("d", now + Duration::from_secs(2)));
        assert_eq!(record.standing("d").state, OrderState::Blocked);
    }

    #[test]
    fn another_host_or_another_authority_is_another_order() {
        let issued = Arc::new(Issued::own(&["a.example".to_owned()]).unwrap());
        let mut record = Record::new(vec!["a.example".to_owned()].into());
        record.certificate = Some(Held::new(issued, "d".into()));
        let now = SystemTime::now();
        assert!(!record.is_due("d", now));
        assert!(record.is_due("e", now));
        record.names = vec!["a.example".to_owned(), "b.example".to_owned()].into();
        assert!(record.is_due("d", now));
        let standing = record.standing("d");
        assert_eq!(
            (standing.state, standing.has_certificate),
            (OrderState::Waiting, true)
        );
    }
}
