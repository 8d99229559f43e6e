//! The same beginning of a prompt to the same target, as long as that target has not more than its share to do.

use super::{Ask, ConsistentHash, Guard, Policy, Target};

/// [`ConsistentHash`] over the first bytes of the prompt. A prompt shorter than that goes anywhere.
///
/// It knows nothing of caches, and every gateway sends the same prompt to the same target without a word between them.
#[derive(Debug)]
pub struct PrefixHash {
    /// How much of a prompt is hashed, in bytes.
    pub bytes: usize,
}

impl Policy for PrefixHash {
    fn pick(&self, targets: &[Target], ask: &Ask<'_>) -> Option<(usize, Guard)> {
        let blocks = ask.prompt.map(|asked| &asked.prompt.blocks);
        let key = blocks.and_then(|blocks| blocks.first()).copied();
        ConsistentHash.pick(targets, &Ask { key, ..*ask })
    }

    fn reads_prompts(&self) -> Option<usize> {
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tollgate_sdk::llm::prompt::prompt;

    use super::*;
    use crate::balance::tests::{any, targets};
    use crate::balance::{Prompted, Target};

    fn owner(targets: &[Target], text: &str) -> usize {
        let body = format!(r#"{{"prompt":"{text}"}}"#);
        let prompt = prompt(body.as_bytes(), "m", 128);
        let asked = Prompted {
            prompt: &prompt,
            streamed: true,
        };
        let ask = Ask {
            prompt: Some(asked),
            ..any()
        };
        PrefixHash { bytes: 128 }.pick(targets, &ask).unwrap().0
    }

    #[test]
    fn what_begins_alike_goes_to_one_and_the_rest_is_spread() {
        let targets = targets(&[1, 1, 1, 1]);
        let head = |i: usize| format!("{i} ").repeat(100);
        for i in 0..20 {
            let owners: HashSet<usize> = ["a", "b", "c"]
                .map(|tail| owner(&targets, &(head(i) + tail)))
                .into();
            assert_eq!(owners.len(), 1, "{i}");
        }
        let owners: HashSet<usize> = (0..40).map(|i| owner(&targets, &head(i))).collect();
        assert_eq!(owners.len(), 4);
        // Too short to have a beginning.
        let owners: HashSet<usize> = (0..60).map(|_| owner(&targets, "hi")).collect();
        assert_eq!(owners.len(), 4);
    }
}
