use super::*;

#[test]
fn every_metric_registers_and_renders() {
    let metrics = Arc::new(Metrics::new());
    let gateway = Arc::from("main");
    let offer = OfferMetrics::of(&metrics, &gateway, &"qwen".into());
    let own = GatewayMetrics::of(&metrics, &gateway);
    offer.answered(200);
    offer.answered(418);
    offer.handles().input.inc_by(7);
    offer.handles().duration.observe(0.2);
    own.rejected("model_not_found");
    let text = metrics.render();
    for line in [
        "tollgate_requests_total{code=\"200\",gateway=\"main\",service=\"qwen\"} 1",
        "tollgate_requests_total{code=\"418\",gateway=\"main\",service=\"qwen\"} 1",
        "tollgate_tokens_total{direction=\"input\",gateway=\"main\",service=\"qwen\"} 7",
        "tollgate_rejections_total{code=\"model_not_found\",gateway=\"main\"} 1",
        "tollgate_client_disconnects_total 0",
        "tollgate_request_duration_seconds_count{gateway=\"main\",service=\"qwen\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
