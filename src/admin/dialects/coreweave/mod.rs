//! CoreWeave Inference's API, `/v1alpha1/inference`: gateways, deployments and capacity claims.

use super::super::routes::Route;

/// Every page.
pub(super) fn pages() -> Vec<Route> {
    Vec::new()
}
