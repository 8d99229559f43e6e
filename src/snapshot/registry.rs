//! Live state, kept by identity across revisions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::balance::TargetState;

/// Target states by upstream name and target URL. What no revision refers to any more is forgotten at the next
/// compile, once its last request has ended.
#[derive(Debug, Default)]
pub struct Registry {
    // Only locked while a snapshot is compiled.
    targets: Mutex<HashMap<(Arc<str>, Arc<str>), Arc<TargetState>>>,
}

impl Registry {
    /// The state of a target, new or as it was.
    pub fn target(&self, upstream: &Arc<str>, url: &Arc<str>) -> Arc<TargetState> {
        let mut targets = self
            .targets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        targets
            .entry((upstream.clone(), url.clone()))
            .or_default()
            .clone()
    }

    /// Forgets states that nothing holds any more.
    pub fn sweep(&self) {
        let mut targets = self
            .targets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        targets.retain(|_, state| Arc::strong_count(state) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_while_anything_holds_it() {
        let registry = Registry::default();
        let (name, url): (Arc<str>, Arc<str>) = ("u".into(), "http://a".into());
        let first = registry.target(&name, &url);
        registry.sweep();
        assert!(Arc::ptr_eq(&first, &registry.target(&name, &url)));
        let address = Arc::as_ptr(&first) as usize;
        drop(first);
        registry.sweep();
        assert!(
            registry.targets.lock().unwrap().is_empty(),
            "{address:x} should be gone"
        );
    }
}
