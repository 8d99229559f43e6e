//! Which models engines serve, as they list them.
//!
//! Each target's list stands with its state, so it outlives revisions and an engine that is down. An [`Edition`] that all share counts the changes: who
//! makes something of the lists makes it anew when the count is another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

/// Names of models, in order.
pub type Names = BTreeSet<Arc<str>>;

/// Counts the changes of any engine's list.
#[derive(Debug, Default)]
pub struct Edition(AtomicU64);

impl Edition {
    /// Some list has changed.
    pub fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How many times any has.
    pub fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What one engine listed last.
#[derive(Debug, Default)]
pub struct Listed(ArcSwapOption<Vec<Arc<str>>>);

impl Listed {
    /// Replaces what it listed before. Returns whether that was something else.
    pub fn replace(&self, models: &[String]) -> bool {
        let same = |known: &Arc<Vec<Arc<str>>>| {
            known.len() == models.len() && known.iter().zip(models).all(|(a, b)| **a == **b)
        };
        if self.0.load().as_ref().is_some_and(same) {
            return false;
        }
        let models = models.iter().map(|name| name.as_str().into());
        self.0.store(Some(Arc::new(models.collect())));
        true
    }

    /// The models in its order; `None` if it never told.
    pub fn models(&self) -> Option<Arc<Vec<Arc<str>>>> {
        self.0.load_full()
    }

    /// Whether this model is among them.
    pub fn has(&self, model: &str) -> bool {
        let models = self.0.load();
        let models = models.as_deref().map_or(&[][..], Vec::as_slice);
        models.iter().any(|name| **name == *model)
    }
}

/// What the engines of one upstream served when any of them was known last: what is asked for also while there are none.
#[derive(Debug, Default)]
pub struct Served(ArcSwap<Names>);

impl Served {
    /// All that these list; what was known before if none of them ever told.
    pub fn by<'l>(&self, lists: impl Iterator<Item = &'l Listed>) -> Arc<Names> {
        let mut told = false;
        let mut names = Names::new();
        for models in lists.filter_map(Listed::models) {
            told = true;
            names.extend(models.iter().cloned());
        }
        if told {
            self.0.store(Arc::new(names));
        }
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &Names) -> Vec<&str> {
        names.iter().map(|name| &**name).collect()
    }

    #[test]
    fn what_engines_list_is_put_together_and_outlives_them() {
        let (a, b, served) = (Listed::default(), Listed::default(), Served::default());
        assert!(served.by([&a, &b].into_iter()).is_empty());
        assert!(a.replace(&["m".into(), "lora".into()]));
        assert!(!a.replace(&["m".into(), "lora".into()]));
        assert!(b.replace(&["m".into()]));
        assert!(a.has("lora") && !b.has("lora"));
        assert_eq!(names(&served.by([&a, &b].into_iter())), ["lora", "m"]);
        assert!(a.replace(&["m".into()]));
        assert_eq!(names(&served.by([&a, &b].into_iter())), ["m"]);
        // Without targets, and with a new one that has told nothing yet, it is as before.
        assert_eq!(names(&served.by(std::iter::empty())), ["m"]);
        assert_eq!(names(&served.by([&Listed::default()].into_iter())), ["m"]);
    }
}
