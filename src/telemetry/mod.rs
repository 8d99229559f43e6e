//! What Tollgate tells about itself: metrics, the access log and its own log lines.
//!
//! Nothing here knows requests or configuration; the proxy hands over finished facts.

pub mod access;
mod declare;
mod engines;
pub mod logger;
pub mod metrics;
mod offer;
mod owned;
mod page;
mod scrape;
pub mod supervisor;
mod times;

pub use access::AccessLog;
pub use declare::Declared;
pub use engines::EngineMetrics;
pub use metrics::Metrics;
pub use offer::{GatewayMetrics, Handles, OfferMetrics};
pub use owned::Owned;
pub use page::{Gauges, Page};
pub use scrape::{Buckets, Scrape, quantile};
pub use times::{Times, TimesVec};
