//! What a reservation costs, in ns: `cargo run --release -p tollgate-sdk --example quota_speed`.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_sdk::quota::{Clock, Limit, Local, ManualClock, Quota, Rule, SystemClock};

const USERS: usize = 10_000;

/// The best of several runs, in ns a call.
fn time(mut call: impl FnMut(usize)) -> f64 {
    let mut run = || {
        let begin = Instant::now();
        (0..200_000).for_each(&mut call);
        begin.elapsed().as_nanos() as f64 / 200_000.0
    };
    (0..7).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn report(quota: &Local, name: &str, rule: Rule, users: &[String]) {
    let limit = Limit {
        id: format!("gateway/main/rate_limiter/0/per_key/{name}").into(),
        rule,
    };
    let who = |turn: usize| users.get(turn % users.len()).map_or("", String::as_str);
    let kept = time(|turn| {
        if let Ok(lease) = quota.reserve(&limit, black_box(who(turn)), 1) {
            lease.keep();
        }
    });
    let returned = time(|turn| drop(black_box(quota.reserve(&limit, who(turn), 1))));
    let asked = time(|turn| {
        black_box(quota.standing(&limit, who(turn)));
    });
    let line = format!(
        "{name:<22} {:>6} users: reserve and keep {kept:6.1}  reserve and give back {returned:6.1}  standing {asked:6.1}",
        users.len()
    );
    // Nobody is left to tell if that fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() {
    let users: Vec<_> = (0..USERS).map(|user| format!("key_{user:012x}")).collect();
    let minute = Duration::from_secs(60);
    let window = |limit| Rule::Window {
        limit,
        window: minute,
    };
    let rules = [
        ("window, refusing", window(15)),
        ("window, admitting", window(1_000_000_000_000)),
        (
            "bucket, refusing",
            Rule::Bucket {
                rate: 0.1,
                burst: 15,
            },
        ),
        (
            "bucket, admitting",
            Rule::Bucket {
                rate: 1e6,
                burst: 1_000_000_000_000,
            },
        ),
    ];
    let clock = SystemClock::default();
    let alone = time(|_| {
        black_box(clock.now());
    });
    let _ = writeln!(std::io::stdout(), "reading the clock alone: {alone:.1}");
    for count in [1, USERS] {
        let users = users.get(..count).unwrap_or_default();
        for (name, rule) in rules {
            report(&Local::new(), name, rule, users);
        }
    }
    let still = Local::with_clock(Arc::new(ManualClock::default()));
    report(
        &still,
        "window, no clock",
        window(1_000_000_000_000),
        &[String::new()],
    );
}
