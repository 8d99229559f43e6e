//! What a pick comes to, and what it leaves behind.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::balance::tests::{any, targets};
use crate::balance::{Told, Usable};

mod simulated;

fn policy(targets: &[Target], settings: model::CacheAware) -> CacheAware {
    let names = (0..targets.len()).map(|i| format!("http://engine-{i}:8000").into());
    CacheAware::new(settings, Arc::default(), names)
}

/// A prompt of so many tokens, at four bytes each, of which the first `shared` are the same in all of this `family`.
fn prompt(family: u64, shared: usize, own: u64, tokens: usize) -> Prompt {
    let block = |i: usize| {
        let seed = match i * 64 < shared {
            true => family << 32 | i as u64,
            false => (own + 1) << 40 | family << 32 | i as u64,
        };
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17)
    };
    Prompt {
        blocks: (0..tokens / 64).map(block).collect(),
        bytes: tokens * 4,
    }
}

fn ask(prompt: &Prompt) -> Ask<'_> {
    let asked = Prompted {
        prompt,
        streamed: true,
    };
    Ask {
        prompt: Some(asked),
        ..any()
    }
}

fn told(tokens: f64) -> Told {
    Told {
        prompt_tokens: Some(tokens),
        ..Told::default()
    }
}

fn nothing_is_left(policy: &CacheAware, targets: &[Target]) {
    for (target, place) in targets.iter().zip(policy.places()) {
        assert_eq!((target.state.in_flight(), place.pending()), (0, 0.0));
    }
}

#[test]
fn a_burst_with_a_new_beginning_stays_together() {
    let targets = targets(&[1; 8]);
    let policy = policy(&targets, model::CacheAware::default());
    let prompts: Vec<Prompt> = (0..28).map(|i| prompt(1, 20_000, i, 20_200)).collect();
    let picks: Vec<_> = prompts
        .iter()
        .map(|prompt| policy.pick(&targets, &ask(prompt)).unwrap())
        .collect();
    let chosen: HashSet<usize> = picks.iter().map(|(i, _)| *i).collect();
    assert!(chosen.len() <= 2, "{chosen:?}");
    drop(picks);
    nothing_is_left(&policy, &targets);
    // What each had for itself was never computed. Of what they shared nobody knows that any more.
    for prompt in &prompts {
        let held = policy.caches.index().matched(&prompt.blocks);
        assert!(held.iter().all(|blocks| *blocks <= 313), "{held:?}");
    }
}

#[test]
fn who_leaves_before_its_first_token_has_left_nothing_in_the_cache() {
    let targets = targets(&[1; 2]);
    let policy = policy(&targets, model::CacheAware::default());
    let (early, late) = (prompt(1, 0, 0, 6_400), prompt(2, 0, 0, 6_400));
    drop(policy.pick(&targets, &ask(&early)).unwrap());
    let (_, mut guard) = policy.pick(&targets, &ask(&late)).unwrap();
    guard.first_byte();
    drop(guard);
    let held = |prompt: &Prompt| policy.caches.index().matched(&prompt.blocks);
    assert_eq!(held(&early).iter().sum::<u32>(), 0);
    assert_eq!(held(&late).iter().sum::<u32>(), 100);
}

#[test]
fn a_target_that_becomes_slow_loses_its_share_within_twenty_requests() {
    let targets = targets(&[1; 4]);
    let policy = policy(&targets, model::CacheAware::default());
    let mut counts = [[0; 4]; 2];
    for round in 0..80 {
        let slow = round >= 40;
        let prompt = prompt(round, 0, round, 8_000);
        let (chosen, mut guard) = policy.pick(&targets, &ask(&prompt)).unwrap();
        let rate = if slow && chosen == 2 {
            2_000.0
        } else {
            8_000.0
        };
        guard.first_byte();
        guard.learn(Computed {
            tokens: 8_000,
            cached: 0,
            first_token: Some(Duration::from_secs_f64(8_000.0 / rate + 0.08)),
        });
        if !(40..60).contains(&round) {
            counts[usize::from(slow)][chosen] += 1;
        }
    }
    let [before, after] = counts;
    assert!(before[2] >= 3, "{before:?}");
    assert_eq!(after[2], 0, "{after:?}");
    nothing_is_left(&policy, &targets);
}

#[test]
fn a_hundred_thousand_that_leave_leave_nothing() {
    let targets = targets(&[1; 8]);
    let policy = policy(&targets, model::CacheAware::default());
    std::thread::scope(|threads| {
        for t in 0..4_u64 {
            let (policy, targets) = (&policy, &targets);
            threads.spawn(move || {
                for i in 0..25_000 {
                    let prompt = prompt(i % 7, 1_024, t * 100_000 + i, 2_048);
                    let (_, mut guard) = policy.pick(targets, &ask(&prompt)).unwrap();
                    if i % 3 == 0 {
                        guard.first_byte();
                    }
                }
            });
        }
    });
    nothing_is_left(&policy, &targets);
}

#[test]
fn what_is_cached_is_used_again_and_forgotten_when_the_engine_begins_anew() {
    let targets = targets(&[1; 4]);
    let policy = policy(&targets, model::CacheAware::default());
    let first = prompt(1, 6_400, 0, 6_464);
    let (owner, mut guard) = policy.pick(&targets, &ask(&first)).unwrap();
    guard.first_byte();
    drop(guard);
    for own in 1..20 {
        let next = prompt(1, 6_400, own, 6_464);
        assert_eq!(policy.pick(&targets, &ask(&next)).unwrap().0, owner);
    }
    let explained = policy.explain(&targets, &ask(&first));
    assert_eq!(explained.terms[owner].matched, 6_464.0);
    let others = || {
        explained
            .terms
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != owner)
    };
    assert!(others().all(|(_, t)| t.matched == 0.0 && t.duplicate > 0.8));
    let signals = targets[owner].state.signals();
    signals.tell(told(9e6), Instant::now());
    signals.tell(told(10.0), Instant::now());
    let explained = policy.explain(&targets, &ask(&first));
    assert!(explained.terms.iter().all(|t| t.matched == 0.0));
}

#[test]
fn who_is_out_of_the_pool_is_nobodys_best_holder() {
    let targets = targets(&[1; 3]);
    let policy = policy(&targets, model::CacheAware::default());
    let first = prompt(1, 6_400, 0, 6_464);
    let (owner, mut guard) = policy.pick(&targets, &ask(&first)).unwrap();
    guard.first_byte();
    let usable = |i: usize| match i == owner {
        true => Usable::No,
        false => Usable::Yes(1.0),
    };
    let without = Ask {
        usable: &usable,
        ..ask(&first)
    };
    let explained = policy.explain(&targets, &without);
    for (i, terms) in explained.terms.iter().enumerate() {
        assert!(i == owner || terms.duplicate == 0.0);
    }
    assert_ne!(policy.pick(&targets, &without).unwrap().0, owner);
}

#[test]
fn a_cold_target_gets_a_slice_unless_the_others_drown() {
    let targets = targets(&[1, 1, 1]);
    let policy = policy(&targets, model::CacheAware::default());
    let long_ago = Instant::now() - Duration::from_secs(3_600);
    for place in &policy.places()[..2] {
        place.warmed_at(long_ago);
    }
    let count = |policy: &CacheAware, rounds: u64| {
        let picks = (0..rounds).map(|i| {
            let prompt = prompt(i, 0, i, 2_048);
            policy.pick(&targets, &ask(&prompt)).unwrap().0
        });
        picks.filter(|chosen| *chosen == 2).count()
    };
    // Every one is over before the next: all targets cost the same, and of a third only a quarter comes here.
    let cold = count(&policy, 3_000);
    assert!((100..450).contains(&cold), "{cold}");
    for place in &policy.places()[..2] {
        place.charge(30_000_000);
    }
    assert_eq!(count(&policy, 100), 100);
}

#[test]
fn the_promised_time_goes_before_the_lowest_cost() {
    let targets = targets(&[1, 1]);
    let settings = model::CacheAware {
        slo: Some(Duration::from_secs(2)),
        ..model::CacheAware::default()
    };
    let policy = policy(&targets, settings);
    let first = prompt(1, 9_600, 0, 9_664);
    let (owner, mut guard) = policy.pick(&targets, &ask(&first)).unwrap();
    guard.first_byte();
    // Duplication costs some 4 s at this price, more than waiting does; but waiting breaks the promise.
    policy.places()[owner].charge(2_500_000);
    policy.places()[1 - owner].charge(500_000);
    let again = prompt(1, 9_600, 1, 9_664);
    let explained = policy.explain(&targets, &ask(&again));
    let cost = |i: usize| explained.terms[i].cost;
    assert!(cost(owner) < cost(1 - owner), "{explained:?}");
    assert_eq!(policy.pick(&targets, &ask(&again)).unwrap().0, 1 - owner);
}

#[test]
fn an_answer_that_is_no_stream_is_charged_only_as_long_as_its_prompt_takes() {
    let targets = targets(&[1]);
    let policy = policy(&targets, model::CacheAware::default());
    let prompt = prompt(1, 0, 0, 640);
    let asked = Prompted {
        prompt: &prompt,
        streamed: false,
    };
    let ask = Ask {
        prompt: Some(asked),
        ..any()
    };
    let (_, guard) = policy.pick(&targets, &ask).unwrap();
    let place = &policy.places()[0];
    assert!(place.pending() > 0.07);
    place.settle(Instant::now() + Duration::from_secs(1));
    assert_eq!(place.pending(), 0.0);
    assert_eq!(targets[0].state.in_flight(), 1);
    drop(guard);
    nothing_is_left(&policy, &targets);
}
