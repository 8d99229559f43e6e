//! Who goes next of those that wait.
//!
//! The urgent before the others, but who has waited long becomes urgent. Among equals the owner who has had the least of what is
//! given out, for its weight: start-time fair queueing (Goyal, Vin and Cheng 1996) over owners, so that one who sends a
//! thousand requests and one who sends one take turns. Of one owner's requests those that begin like the last one served, since what that
//! one left in a cache is still there; then the short before the long, as far as they have not waited longer.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

/// After so long a request counts as one class more urgent.
const AGEING: Duration = Duration::from_secs(30);
/// A second of waiting outweighs this many seconds of work.
const PATIENCE: f64 = 0.2;
/// What a request takes of which nobody knows it, in seconds.
const UNKNOWN: f64 = 0.1;

/// What a request says of itself. Requests that say nothing are equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// How little urgent it is: 0 goes first.
    pub class: u8,
    /// Whose it is.
    pub owner: u64,
    /// The owner's part beside others; 0 counts as 1.
    pub weight: u32,
    /// Seconds of work it brings, if that is known.
    pub work: Option<f64>,
    /// How it begins.
    pub head: Option<u64>,
}

/// What has been given out.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// How far each owner has come, in seconds for each unit of its weight.
    owners: HashMap<u64, f64>,
    /// How far the one served last had come.
    now: f64,
    head: Option<u64>,
}

/// A place in the order; the least goes first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    class: u64,
    had: f64,
    apart: bool,
    work: f64,
    number: u64,
}

impl Rank {
    pub(super) fn total_cmp(&self, other: &Rank) -> Ordering {
        (self.class.cmp(&other.class))
            .then(self.had.total_cmp(&other.had))
            .then(self.apart.cmp(&other.apart))
            .then(self.work.total_cmp(&other.work))
            .then(self.number.cmp(&other.number))
    }
}

impl Order {
    pub(super) fn rank(&self, claim: &Claim, waited: Duration, number: u64) -> Rank {
        let aged = waited.as_secs() / AGEING.as_secs();
        // Work that nobody knows is no reason to go before or after another.
        let work = claim
            .work
            .map_or(0.0, |work| work - PATIENCE * waited.as_secs_f64());
        Rank {
            class: u64::from(claim.class).saturating_sub(aged),
            had: self.had(claim),
            apart: claim.head.is_none() || claim.head != self.head,
            work,
            number,
        }
    }

    /// Who has had nothing for a while begins where the others are, not in the past.
    fn had(&self, claim: &Claim) -> f64 {
        let had = self.owners.get(&claim.owner).copied();
        had.map_or(self.now, |had| had.max(self.now))
    }

    pub(super) fn served(&mut self, claim: &Claim) {
        let start = self.had(claim);
        let work = claim.work.unwrap_or(UNKNOWN).max(0.001);
        let weight = f64::from(claim.weight.max(1));
        self.owners.insert(claim.owner, start + work / weight);
        self.now = start;
        self.head = claim.head;
        // Owners that are behind are where everybody begins.
        let now = self.now;
        self.owners.retain(|_, had| *had > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    /// Serves what waits until all is served; the order in which that was.
    fn serve(waiting: Vec<Claim>) -> Vec<usize> {
        let mut order = Order::default();
        let mut left: Vec<usize> = (0..waiting.len()).collect();
        let mut served = Vec::new();
        while !left.is_empty() {
            let rank = |i: &usize| order.rank(&waiting[*i], SOON, *i as u64);
            let first = left
                .iter()
                .copied()
                .min_by(|a, b| rank(a).total_cmp(&rank(b)));
            let first = first.unwrap();
            order.served(&waiting[first]);
            left.retain(|i| *i != first);
            served.push(first);
        }
        served
    }

    fn of(owner: u64, weight: u32, count: usize) -> Vec<Claim> {
        let claim = Claim {
            owner,
            weight,
            ..Claim::default()
        };
        vec![claim; count]
    }

    #[test]
    fn who_says_nothing_is_served_as_it_came() {
        assert_eq!(serve(vec![Claim::default(); 5]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn owners_take_turns_by_their_weight_however_many_they_send() {
        let waiting = [of(1, 1, 60), of(2, 1, 20), of(3, 2, 40)].concat();
        let served = serve(waiting);
        let owner = |i: &usize| match i {
            0..60 => 1,
            60..80 => 2,
            _ => 3,
        };
        let first: Vec<i32> = served.iter().take(40).map(owner).collect();
        let count = |wanted| first.iter().filter(|owner| **owner == wanted).count();
        assert!((9..=11).contains(&count(1)), "{first:?}");
        assert!((9..=11).contains(&count(2)), "{first:?}");
        assert!((19..=21).contains(&count(3)), "{first:?}");
    }

    #[test]
    fn the_urgent_go_first_until_others_have_waited_long() {
        let class = |class| Claim {
            class,
            ..Claim::default()
        };
        assert_eq!(
            serve(vec![class(2), class(1), class(0), class(1)]),
            [2, 1, 3, 0]
        );
        let order = Order::default();
        let rank = |claim: &Claim, waited: u64, number| {
            order.rank(claim, Duration::from_secs(waited), number)
        };
        let (bulk, urgent) = (class(2), class(0));
        assert!(rank(&urgent, 0, 2).total_cmp(&rank(&bulk, 59, 1)).is_lt());
        assert!(rank(&bulk, 61, 1).total_cmp(&rank(&urgent, 0, 2)).is_lt());
    }

    #[test]
    fn the_short_before_the_long_unless_these_have_waited_longer() {
        let work = |work| Claim {
            work: Some(work),
            ..Claim::default()
        };
        assert_eq!(serve(vec![work(3.0), work(0.5), work(1.0)])[0], 1);
        let order = Order::default();
        let (long, short) = (work(3.0), work(0.5));
        let waited = |claim: &Claim, secs| order.rank(claim, Duration::from_secs(secs), 1);
        assert!(waited(&short, 0).total_cmp(&waited(&long, 12)).is_lt());
        assert!(waited(&long, 13).total_cmp(&waited(&short, 0)).is_lt());
    }

    #[test]
    fn what_begins_alike_is_served_together() {
        let head = |head| Claim {
            head: Some(head),
            ..Claim::default()
        };
        let served = serve(vec![head(1), head(2), head(1), head(2), head(1)]);
        assert_eq!(served, [0, 2, 4, 1, 3]);
    }
}
