//! Services that have their models from engines need engines that are asked.

use tollgate_sdk::document::{Node, Quoted, Reading, json};

use super::sections::Sections;

/// Reports services with `models = "auto"` whose upstream says nothing of its engine.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for service in sections.all("service") {
        let given = service.node.entry("models");
        let Some(given) = given.filter(|given| given.as_str() == Some("auto")) else {
            continue;
        };
        let upstream = service.node.entry("upstream").and_then(Node::as_str);
        // One that there is not was reported.
        let Some(upstream) = upstream.and_then(|name| sections.find("upstream", name)) else {
            continue;
        };
        let engine = upstream.node.entry("engine").and_then(Node::as_str);
        if engine.is_none_or(|engine| engine == "none") {
            let name = upstream.name.as_ref().map_or("", |name| name.as_str());
            let message = format!("nobody asks the engines of the upstream {}", Quoted(name));
            let engine = r.format.field("engine", &json!("vllm"));
            let help = format!("give it its engine: {engine}; or list the models");
            service.at(|at| r.error(given.span, &at.field("models"), message, help));
        }
    }
}
