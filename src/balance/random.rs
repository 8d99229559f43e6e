//! Any target, as likely as it is heavy.

use super::{Ask, Guard, Policy, Target, draw, settle, weights};

/// Weighted random choice, each pick independent of all others.
#[derive(Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let mut weights = weights(targets, ask);
        settle(targets, &mut weights, |weights| {
            draw(weights, rand::random())
        })
    }
}
