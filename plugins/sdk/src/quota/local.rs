//! Limits counted in this process.
//!
//! One counter for each limit's identity and each user of it, in a map of [`SHARDS`] parts with a lock each. A lock is held for a look-up and its
//! arithmetic, never for an await. What exists is found with one hash and no allocation. Counters are known by identity alone, so they outlive every change
//! of the configuration; [`Counter`] says what becomes of one whose rule changes.
//!
//! Invariant: a counter from which nothing is missing any more is as good as none, and only such are forgotten, a second after they were asked last: a few with every new one
//! and with every [`SWEEP_EVERY`] look-ups. The exception is a full map, which forgets the one used longest ago of a few: its user
//! begins anew, so that at worst a limit is granted twice within its window. A counter takes about 300 bytes
//! and its user's name, a window's in use up to 2 KiB more.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indexmap::{Equivalent, IndexMap};

use super::clock::{Clock, SystemClock};
use super::counter::{Counter, locked};
use super::{Carried, Denied, Held, Lease, Limit, LimitId, Quota, Recent, Rule, Standing, Who};

/// Parts of the map.
const SHARDS: usize = 64;

/// How many counters there are at most, unless it is said.
const CAPACITY: usize = 1_000_000;

/// After how many look-ups in a shard a few counters are looked at.
const SWEEP_EVERY: u32 = 32;

/// How long, in nanoseconds, a counter is kept after it was asked last, even if nothing is missing from it: made anew for every request of
/// somebody who asks often, it would cost more than its room is worth.
const KEPT: u64 = 1_000_000_000;

/// How many counters are looked at in one sweep: more than are added meanwhile, so that it comes round.
const SWEEP: usize = 4;

/// Among how many the one to forget is chosen.
const SAMPLES: usize = 8;

/// Counts in memory.
pub struct Local {
    clock: Arc<dyn Clock>,
    shards: [Mutex<Shard>; SHARDS],
    shard_capacity: usize,
}

impl Default for Local {
    fn default() -> Self {
        Self::new()
    }
}

impl Local {
    /// By the system's clock, with room for a million counters.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// By this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_capacity: CAPACITY / SHARDS,
        }
    }

    /// With room for so many counters in all, rounded up to a multiple of 64. When there is no room, a new one takes the place of one used
    /// long ago, of the same limit where there is one: who floods a limit with names pays for it first.
    #[must_use]
    pub fn with_capacity(mut self, counters: usize) -> Self {
        self.shard_capacity = counters.div_ceil(SHARDS).max(1);
        self
    }

    /// How many counters there are.
    pub fn counters(&self) -> usize {
        let count = |shard: &Mutex<Shard>| locked(shard).counters.len();
        self.shards.iter().map(count).sum()
    }

    /// Whose name it is decides by its keyed hash, which the limit's number only shuffles.
    fn asked<'a>(&self, limit: &'a Limit, who: &'a Who<'_>) -> Asked<'a> {
        Asked {
            hash: (who.hash() ^ limit.id.number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            id: &limit.id,
            who,
        }
    }

    /// The part that has a hash; by bits the map itself does not look at first.
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        let [first, ..] = &self.shards;
        let at = (hash >> 40) as usize % SHARDS;
        self.shards.get(at).unwrap_or(first)
    }

    /// What can never be had needs no counter.
    fn possible(&self, limit: &Limit, who: &Who<'_>, amount: u64) -> Result<(), Denied> {
        if amount <= limit.rule.most() {
            return Ok(());
        }
        Err(Denied {
            standing: Quota::standing(self, limit, who),
            retry_after: None,
        })
    }

    /// Makes use of the counter that can judge by the limit's rule, made if there is none. Under the lock of its shard.
    fn counter<T>(
        &self,
        limit: &Limit,
        who: &Who<'_>,
        now: u64,
        make_use: impl FnOnce(&Arc<Counter>) -> T,
    ) -> T {
        let asked = self.asked(limit, who);
        let mut shard = locked(self.shard(asked.hash));
        shard.looked_up(now);
        if let Some(slot) = shard.counters.get_mut(&asked) {
            slot.touched = now;
            if !slot.counter.fits(&limit.rule) {
                slot.counter = Arc::new(slot.counter.converted(&limit.rule, now));
            }
            return make_use(&slot.counter);
        }
        let counter = Arc::new(Counter::new(self.clock.clone(), &limit.rule, now, 0));
        let slot = Slot {
            counter: counter.clone(),
            touched: now,
        };
        shard.make_room(&limit.id, self.shard_capacity, now);
        let key = Key {
            hash: asked.hash,
            id: limit.id.clone(),
            who: (**who).into(),
        };
        shard.counters.insert(key, slot);
        make_use(&counter)
    }
}

impl Quota for Local {
    fn take_at(
        &self,
        limit: &Limit,
        who: &Who<'_>,
        amount: u64,
        now: Instant,
        for_good: bool,
    ) -> Result<(Lease, Standing), Denied> {
        self.possible(limit, who, amount)?;
        let now = self.clock.at(now);
        self.counter(limit, who, now, |counter: &Arc<Counter>| {
            let (mark, standing) = counter.reserve(&limit.rule, now, amount, for_good)?;
            let lease = match for_good {
                true => Lease::settled(amount),
                false => Lease::new(counter.clone(), mark, amount),
            };
            Ok((lease, standing))
        })
    }

    fn standing(&self, limit: &Limit, who: &str) -> Standing {
        let now = self.clock.now();
        let who = Who::new(who);
        let asked = self.asked(limit, &who);
        let shard = locked(self.shard(asked.hash));
        match shard.counters.get(&asked) {
            Some(slot) if slot.counter.fits(&limit.rule) => slot.counter.standing(&limit.rule, now),
            Some(slot) => slot
                .counter
                .converted(&limit.rule, now)
                .standing(&limit.rule, now),
            None => {
                Counter::new(self.clock.clone(), &limit.rule, now, 0).standing(&limit.rule, now)
            }
        }
    }

    fn export(&self) -> Vec<Held> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = locked(shard);
            all.extend(shard.counters.iter().filter_map(|(key, slot)| {
                let (period, start, used) = slot.counter.held()?;
                (used > 0).then(|| Held {
                    limit: (*key.id.name).into(),
                    who: key.who.clone(),
                    period,
                    start,
                    used,
                })
            }));
        }
        all
    }

    fn adjust(&self, held: &Held, by: i64) {
        if held.start == held.period.start(self.clock.unix().as_secs()) {
            let adjust = |counter: &Arc<Counter>| counter.adjust(held.start, by);
            let who = Who::new(&held.who);
            self.counter(&by_calendar(held), &who, self.clock.now(), adjust);
        }
    }

    fn recent(&self) -> Vec<Carried> {
        let now = self.clock.now();
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = locked(shard);
            all.extend(shard.counters.iter().filter_map(|(key, slot)| {
                Some(Carried {
                    limit: (*key.id.name).into(),
                    who: key.who.clone(),
                    recent: slot.counter.recent(now)?,
                })
            }));
        }
        all
    }

    fn resume(&self, carried: &[Carried]) {
        let now = self.clock.now();
        for one in carried {
            let rule = match one.recent {
                Recent::Window { limit, length, .. } => Rule::Window {
                    limit,
                    window: Duration::from_nanos(length),
                },
                Recent::Bucket { rate, burst, .. } => Rule::Bucket { rate, burst },
            };
            let id = one.limit.clone().into();
            let resume = |counter: &Arc<Counter>| counter.resume(now, &one.recent);
            self.counter(&Limit { id, rule }, &Who::new(&one.who), now, resume);
        }
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// The limit that held it, whatever it allowed.
fn by_calendar(held: &Held) -> Limit {
    Limit {
        id: held.limit.clone().into(),
        rule: Rule::Calendar {
            limit: u64::MAX,
            period: held.period,
        },
    }
}

/// A part of the map. Its entries have places, so that sweeping and sampling need no second structure.
#[derive(Default)]
struct Shard {
    counters: IndexMap<Key, Slot, BuildHasherDefault<Hashed>>,
    look_ups: u32,
    /// Where the next sweep begins.
    cursor: usize,
    /// The state of a generator of samples.
    random: u64,
}

struct Slot {
    counter: Arc<Counter>,
    /// When it was last asked.
    touched: u64,
}

impl Slot {
    /// Whether forgetting it changes nothing. Counters are handed out under the shard's lock only, so one that nobody else holds is not about to
    /// be used.
    fn idle(&self, now: u64) -> bool {
        if self.leased() {
            return false;
        }
        // With the decrement by which the last holder let go: what it did before is to be seen.
        fence(Ordering::Acquire);
        self.counter.used(now) == 0
    }

    /// Whether it is idle and has not been asked for a while.
    fn stale(&self, now: u64) -> bool {
        now.saturating_sub(self.touched) >= KEPT && self.idle(now)
    }

    fn leased(&self) -> bool {
        Arc::strong_count(&self.counter) > 1
    }
}

impl Shard {
    fn looked_up(&mut self, now: u64) {
        self.look_ups = self.look_ups.wrapping_add(1);
        if self.look_ups.is_multiple_of(SWEEP_EVERY) {
            self.sweep(now);
        }
    }

    /// Forgets the stale among the next few.
    fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP {
            match self.counters.get_index(self.cursor) {
                Some((_, slot)) if slot.stale(now) => {
                    self.counters.swap_remove_index(self.cursor);
                }
                Some(_) => self.cursor += 1,
                None => self.cursor = 0,
            }
        }
        // Room that was needed once is not kept for ever.
        let (len, room) = (self.counters.len(), self.counters.capacity());
        if room > 64 && len < room / 4 {
            self.counters.shrink_to(len * 2);
        }
    }

    /// Lets one more in: sweeps, and if that is not enough forgets one that is in use.
    fn make_room(&mut self, id: &LimitId, capacity: usize, now: u64) {
        self.sweep(now);
        while self.counters.len() >= capacity {
            let Some(victim) = self.victim(id, now) else {
                return;
            };
            self.counters.swap_remove_index(victim);
        }
    }

    /// Of a few: an idle one, else of the same limit, else not of the calendar, whose periods are the longest, else not leased, else the one used
    /// longest ago.
    fn victim(&mut self, id: &LimitId, now: u64) -> Option<usize> {
        let worth = |shard: &Self, at| {
            let (key, slot) = shard.counters.get_index(at)?;
            let of_others = !key.id.is(id);
            let calendar = slot.counter.is_calendar();
            let lasting = (of_others, calendar, slot.leased());
            Some((!slot.idle(now), lasting, slot.touched, at))
        };
        let sampled = (0..SAMPLES).filter_map(|_| {
            let at = self.sample();
            worth(self, at)
        });
        sampled.min().map(|(.., at)| at)
    }

    /// The place of any entry: a step of a linear congruential generator (Knuth's MMIX), of which the upper half is fair enough. Who is
    /// forgotten need not be unpredictable.
    fn sample(&mut self) -> usize {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 32) as usize % self.counters.len().max(1)
    }
}

/// Whose counter it is, with the hash of both names.
struct Key {
    hash: u64,
    id: LimitId,
    who: Box<str>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, &self.id, &self.who) == (other.hash, &other.id, &other.who)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key that is borrowed.
struct Asked<'a> {
    hash: u64,
    id: &'a LimitId,
    who: &'a str,
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && *self.who == *key.who && self.id.is(&key.id)
    }
}

/// Keys bring their hash.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
