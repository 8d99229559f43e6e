//! The settings of policies that go by prompts.

use std::time::Duration;

use tollgate_sdk::document;
use tollgate_sdk::document::{Document, FromNode, JsonTable};

document! {
    /// Settings of "cache_aware". The defaults serve; costs are in seconds.
    pub struct CacheAware (default) {
        /// Bytes of prompt that are known or unknown together, a multiple of 32: about 64 tokens.
        #[range(32..=4096)]
        block: u32 = 256,
        /// Tokens of a prompt that a target computes in a second, until its answers have told.
        #[range(1..=100000000)]
        prefill_rate: u32 = 8000,
        /// Seconds that each token of a prompt takes for each token before it.
        attention: f64 = 2.5e-9,
        /// Tokens each target's cache has room for. Absent: as its engine says, corrected by what answers report as cached.
        #[example = 500000]
        #[range(1..=100000000000)]
        cache_tokens: Option<u64>,
        /// What it costs that a second of work is done again which another target has cached, while nobody waits.
        duplication: f64 = 0.5,
        /// How much that rises with every second of work that targets have before them, on average.
        duplication_rise: f64 = 1.0,
        /// The most that it may cost.
        max_duplication: f64 = 16.0,
        /// What each request at a target costs beside the work it brings.
        load: Duration = Duration::from_millis(50),
        /// How long a target that has nothing cached yet gets only a quarter of the prompts that nobody has.
        warm_up: Duration = Duration::from_secs(60),
        /// A target with more work than this before it takes no more, where the service lets requests wait (`queue`): they are placed when there is
        /// room, and by what is known then.
        #[example = "3s"]
        max_pending: Option<Duration>,
        /// The time to first token to be kept: a target that is expected to break it is passed over for one that is not.
        #[example = "2s"]
        slo: Option<Duration>,
    }
}

document! {
    /// Settings of "prefix_hash".
    pub struct PrefixHash (default) {
        /// How much of a prompt's beginning is hashed, in bytes, a multiple of 32.
        #[range(32..=4096)]
        prefix: u32 = 1024,
    }
}

document! {
    /// Settings of "sglang_cache_aware", under its names and with its defaults.
    pub(super) struct Sglang (default) {
        /// The share of a prompt that must be known for it to go where that went.
        cache_threshold: f64 = 0.3,
        /// Load differs too much when requests at targets are further apart than this,
        #[range(0..=1000000)]
        balance_abs_threshold: u32 = 64,
        /// and the most is more than this many times the least.
        balance_rel_threshold: f64 = 1.5,
        /// Bytes of prompts that are remembered for each target.
        #[range(1024..=100000000000)]
        max_tree_size: u64 = 67108864,
    }
}

/// Settings of "sglang_cache_aware".
#[derive(Clone, Debug, PartialEq)]
pub struct SglangCacheAware {
    /// Bytes of prompt that are known or unknown together.
    pub block: u32,
    /// The share of a prompt that must be known for it to go where that went.
    pub cache_threshold: f64,
    /// Load differs too much when requests at targets are further apart than this,
    pub balance_abs_threshold: u32,
    /// and the most is more than this many times the least.
    pub balance_rel_threshold: f64,
    /// Bytes of prompts that are remembered for each target.
    pub max_tree_size: u64,
}

impl Default for SglangCacheAware {
    fn default() -> Self {
        Sglang::default().into()
    }
}

impl From<Sglang> for SglangCacheAware {
    fn from(read: Sglang) -> Self {
        Self {
            block: CacheAware::default().block,
            cache_threshold: read.cache_threshold,
            balance_abs_threshold: read.balance_abs_threshold,
            balance_rel_threshold: read.balance_rel_threshold,
            max_tree_size: read.max_tree_size,
        }
    }
}

impl SglangCacheAware {
    /// As it stands in a document.
    pub(super) fn fields_in_document(&self) -> JsonTable {
        let read = Sglang {
            cache_threshold: self.cache_threshold,
            balance_abs_threshold: self.balance_abs_threshold,
            balance_rel_threshold: self.balance_rel_threshold,
            max_tree_size: self.max_tree_size,
        };
        let mut fields = read.value_fields();
        fields.insert("block".into(), self.block.value());
        fields
    }
}
