use proptest::prelude::*;

use super::*;

/// The same, as simply as can be.
#[derive(Default)]
struct Model {
    /// For each place its blocks, the newest last, each with whoever brought it.
    places: Vec<(usize, Vec<(u64, Option<u32>)>)>,
}

impl Model {
    fn insert(&mut self, place: usize, blocks: &[u64], by: u32) {
        let (capacity, held) = &mut self.places[place];
        if *capacity == 0 {
            return;
        }
        for block in blocks.iter().rev() {
            let known = held.iter().position(|(b, _)| b == block);
            let by = match known.map(|at| held.remove(at)) {
                Some((_, before)) => before.filter(|before| *before == by),
                None => Some(by),
            };
            held.push((*block, by));
        }
        held.drain(..held.len().saturating_sub(*capacity));
    }

    fn undo(&mut self, place: usize, blocks: &[u64], by: u32) {
        self.places[place]
            .1
            .retain(|(block, owner)| !(blocks.contains(block) && *owner == Some(by)));
    }

    fn matched(&self, blocks: &[u64]) -> Vec<u32> {
        let of = |held: &[(u64, Option<u32>)]| {
            let holds = |block: &&u64| held.iter().any(|(b, _)| b == *block);
            blocks.iter().take_while(holds).count() as u32
        };
        self.places.iter().map(|(_, held)| of(held)).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u64, usize),
    Undo(usize, u64, usize, u32),
    Resize(usize, usize),
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..70_usize;
    prop_oneof![
        6 => (place.clone(), 0..6_u64, 1..9_usize).prop_map(|(p, c, n)| Step::Insert(p % 3 * 33, c, n)),
        2 => (place.clone(), 0..6_u64, 1..9_usize, 0..40_u32).prop_map(|(p, c, n, by)| Step::Undo(p % 3 * 33, c, n, by)),
        1 => (place.clone(), 0..20_usize).prop_map(|(p, n)| Step::Resize(p % 3 * 33, n)),
        1 => place.prop_map(|p| Step::Forget(p % 3 * 33)),
    ]
}

/// The chain of a conversation; conversations share their first blocks.
fn chain(conversation: u64, length: usize) -> Vec<u64> {
    let block = |i: u64| match i {
        0..3 => i + 1,
        _ => (conversation + 1) * 1_000 + i,
    };
    (0..length as u64)
        .map(block)
        .map(|b| b.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .collect()
}

proptest! {
    #[test]
    fn it_holds_what_the_simplest_of_caches_hold(steps in proptest::collection::vec(step(), 1..60)) {
        let mut index = Index::default();
        let mut model = Model::default();
        for place in 0..70 {
            index.resize(place, 12);
            model.places.push((12, Vec::new()));
        }
        for (by, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(place, conversation, n) => {
                    index.insert(place, &chain(conversation, n), by as u32);
                    model.insert(place, &chain(conversation, n), by as u32);
                }
                Step::Undo(place, conversation, n, by) => {
                    index.undo(place, &chain(conversation, n), by);
                    model.undo(place, &chain(conversation, n), by);
                }
                Step::Resize(place, capacity) => {
                    index.resize(place, capacity);
                    let (old, held) = &mut model.places[place];
                    *old = capacity;
                    held.drain(..held.len().saturating_sub(capacity));
                }
                Step::Forget(place) => {
                    index.forget(place);
                    model.places[place].1.clear();
                }
            }
            for conversation in 0..6 {
                let chain = chain(conversation, 9);
                prop_assert_eq!(&index.matched(&chain)[..], &model.matched(&chain)[..]);
            }
            for (place, (_, held)) in model.places.iter().enumerate() {
                prop_assert_eq!(index.held(place), held.len());
            }
        }
        (0..70).for_each(|place| index.forget(place));
        prop_assert!(index.table.is_empty());
    }
}

#[test]
fn a_block_costs_less_than_64_bytes() {
    let mut index = Index::default();
    let mut seed = 1_u64;
    // Grown from nothing, and looked at after every step: nowhere does it cost more.
    index.resize(0, 1 << 20);
    for step in 0..200 {
        let blocks: Vec<u64> = (0..1_500)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed ^ (seed >> 29)
            })
            .collect();
        index.insert(0, &blocks, step);
        let shadow = &index.shadows[0];
        let bytes = index.hashes.capacity() * 8
            + index.holders.capacity() * 8
            + index.table.allocation_size()
            + shadow.slots.capacity() * size_of::<Slot>()
            + shadow.table.allocation_size();
        let each = bytes as f64 / index.held(0) as f64;
        assert!(step < 5 || each < 64.0, "{each} at {}", index.held(0));
    }
}
