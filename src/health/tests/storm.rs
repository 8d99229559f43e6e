//! Threads that enter, fail and leave at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn a_half_open_breaker_never_admits_two() {
    let health = Arc::new(TargetHealth::default());
    let settings = model::Breaker {
        failures: 1,
        window: Duration::from_secs(1),
        open: Duration::from_micros(50),
    };
    health.configure(false, Some(&settings), Instant::now());
    let (trying, trials) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let (health, trying, trials) = (&health, &trying, &trials);
            threads.spawn(move || {
                for n in 0..5_000 {
                    let Some(mut ticket) = health.enter(Instant::now()) else {
                        continue;
                    };
                    let trial = ticket.is_trial();
                    if trial {
                        trials.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(trying.fetch_add(1, Ordering::SeqCst), 0);
                        trying.fetch_sub(1, Ordering::SeqCst);
                    }
                    match (n + thread) % 3 {
                        0 => _ = ticket.succeeded(Instant::now()),
                        1 => _ = ticket.failed(Failure::Reset, Instant::now()),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(trials.into_inner() > 0);
    // Nobody left their place taken.
    let later = Instant::now() + Duration::from_secs(60);
    assert_ne!(health.standing(later), Standing::HalfOpen { busy: true });
    let mut last = health.enter(later).unwrap();
    last.succeeded(later);
    let recovered = later + Duration::from_secs(60);
    assert_eq!(health.standing(recovered), Standing::Up);
}

#[test]
fn no_more_requests_than_the_threshold_meet_a_dead_target_one_by_one() {
    let health = Arc::new(TargetHealth::default());
    let now = Instant::now();
    health.configure(false, Some(&model::Breaker::default()), now);
    let mut tried = 0;
    for n in 0..1_000 {
        let now = now + Duration::from_millis(5 * n);
        if let Some(mut ticket) = health.enter(now) {
            tried += 1;
            ticket.failed(Failure::Connect, now);
        }
    }
    assert_eq!(tried, 5);
}
