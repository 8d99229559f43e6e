//! `request_validator`: what a request's JSON must and may hold.
//!
//! It owns three checks, of fields that must be there, of the names that may stand at the top, and of numbers' maxima, and reports every
//! fault of a request at once. It changes nothing. It has no JSON Schema: no library for it is worth its dependencies so far.

use std::sync::Arc;

use http::Method;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromText, Node, Quoted, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};

use crate::json::{self, Kind, Malformed};
use crate::path::DottedPath;

document! {
    /// What the JSON of a request must and may hold; another gets 400 with all that is wrong with it. Requests of methods that have no
    /// body pass.
    pub struct RequestValidator (checked) {
        /// Fields that must be there and not null.
        #[example = ["messages", "metadata.user"]]
        required: Vec<DottedPath> = Vec::new(),
        /// The only names that may stand at the top; empty is all.
        #[example = ["model", "messages", "max_tokens"]]
        allowed_parameters: Vec<String> = Vec::new(),
        /// The largest value of numbers, by field; a field that is given must be a number.
        max: Vec<(DottedPath, f64)> = Vec::new(),
    }
    later ["schema"]
}

impl RequestValidator {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let fields = ["required", "allowed_parameters", "max"];
        if fields.iter().all(|name| node.entry(name).is_none()) {
            let help = "for example: required = [\"messages\"], or max = { max_tokens = 4096 }";
            r.error(node.span, at, "nothing is checked", help);
        }
        let first = |path: &DottedPath| path.parts().first().cloned().unwrap_or_default();
        if !self.allowed_parameters.is_empty() {
            let paths = self.required.iter().map(first);
            for missing in paths.filter(|name| !self.allowed_parameters.contains(name)) {
                let message = format!("`{missing}` is required but not among the allowed");
                let given = node.entry("allowed_parameters").unwrap_or(node);
                let help = format!("add {} to it", Quoted(&missing));
                r.error(given.span, &at.field("allowed_parameters"), message, help);
            }
        }
        self
    }
}

impl Builds for RequestValidator {
    const NAME: &'static str = "request_validator";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Validator(self.clone()))
    }
}

struct Validator(RequestValidator);

/// What is wrong with a request, and where.
struct Fault {
    field: String,
    message: String,
}

/// As many faults as one answer tells.
const MAX_FAULTS: usize = 10;

impl Plugin for Validator {
    fn needs(&self) -> Needs {
        Needs {
            request_body: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        let bodies = [Method::POST, Method::PUT, Method::PATCH];
        if !bodies.contains(x.request.method) && x.body.is_empty() {
            return Step::PASS;
        }
        self.validate(&x.body).into()
    }
}

impl Validator {
    fn validate(&self, body: &[u8]) -> Verdict {
        let not_json =
            |at: usize| Refusal::invalid(format!("the body is not JSON, at byte {at}"), None);
        let text = std::str::from_utf8(body).map_err(|error| not_json(error.valid_up_to()))?;
        let faults = self
            .faults(text)
            .map_err(|malformed| not_json(malformed.at))?;
        let Some(first) = faults.first() else {
            return Ok(());
        };
        let told: Vec<_> = faults
            .iter()
            .take(MAX_FAULTS)
            .map(|f| &*f.message)
            .collect();
        Err(Refusal::invalid(told.join("; "), Some(&first.field)))
    }

    fn faults(&self, text: &str) -> Result<Vec<Fault>, Malformed> {
        let document = json::document(text)?;
        let mut faults = Vec::new();
        if json::kind(text, &document) != Kind::Object {
            faults.push(Fault {
                field: String::new(),
                message: "the body must be a JSON object".into(),
            });
            return Ok(faults);
        }
        for path in &self.0.required {
            let places = path.find(text, document.clone())?;
            let given = |place: &std::ops::Range<usize>| text.get(place.clone()) != Some("null");
            if !places.iter().any(given) {
                faults.push(Fault::of(path, "is missing"));
            }
        }
        if !self.0.allowed_parameters.is_empty() {
            for member in json::members(text, document.start)? {
                if !self
                    .0
                    .allowed_parameters
                    .iter()
                    .any(|name| member.key == *name)
                {
                    faults.push(Fault {
                        field: member.key.to_string(),
                        message: format!("the parameter {} is not allowed", Quoted(&member.key)),
                    });
                }
            }
        }
        for (path, most) in &self.0.max {
            for place in path.find(text, document.clone())? {
                faults.extend(exceeds(text.get(place).unwrap_or_default(), path, *most));
            }
        }
        Ok(faults)
    }
}

/// What is wrong with a value that has a maximum.
fn exceeds(value: &str, path: &DottedPath, most: f64) -> Option<Fault> {
    if value == "null" {
        return None;
    }
    match value.parse::<f64>() {
        Ok(number) if number <= most => None,
        Ok(_) => Some(Fault::of(path, &format!("is above {most}"))),
        Err(_) => Some(Fault::of(path, "must be a number")),
    }
}

impl Fault {
    fn of(path: &DottedPath, what: &str) -> Self {
        let field = path.to_text();
        let message = format!("`{field}` {what}");
        Self { field, message }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    #[test]
    fn required_fields_must_be_there() {
        let validator = plugin(
            "request_validator",
            json!({"required": ["messages", "metadata.user"]}),
        );
        let sent = json!({"messages": [], "metadata": {"user": "a"}});
        assert_eq!(Call::post(sent.to_string()).refused(&validator), None);
        for sent in [
            json!({"messages": [], "metadata": {}}),
            json!({"messages": [], "metadata": {"user": null}}),
            json!({"messages": [], "metadata": "user"}),
        ] {
            let refusal = Call::post(sent.to_string())
                .pre_request(&validator)
                .unwrap_err();
            assert_eq!(refusal.status, 400);
            assert_eq!(refusal.param.as_deref(), Some("metadata.user"));
            assert_eq!(refusal.message, "`metadata.user` is missing");
        }
    }

    #[test]
    fn only_allowed_names_stand_at_the_top() {
        let validator = plugin(
            "request_validator",
            json!({"allowed_parameters": ["model"]}),
        );
        let nested = json!({"model": {"anything": 1}}).to_string();
        assert_eq!(Call::post(nested).refused(&validator), None);
        let refusal = Call::post(r#"{"mod\u0065l":"m","tools":[]}"#)
            .pre_request(&validator)
            .unwrap_err();
        assert_eq!(refusal.message, "the parameter \"tools\" is not allowed");
    }

    #[test]
    fn numbers_have_maxima() {
        let validator = plugin(
            "request_validator",
            json!({"max": {"max_tokens": 4096, "temperature": 2, "options.n": 1.5}}),
        );
        for (body, passes) in [
            (
                r#"{"max_tokens":4096,"temperature":2.0,"options":{"n":1.5}}"#,
                true,
            ),
            (r#"{"max_tokens":null}"#, true),
            ("{}", true),
            (r#"{"max_tokens":4097}"#, false),
            (r#"{"max_tokens":1e4}"#, false),
            (r#"{"max_tokens":99999999999999999999999}"#, false),
            (r#"{"max_tokens":"4"}"#, false),
            (r#"{"max_tokens":1,"max_tokens":5000}"#, false),
            (r#"{"options":{"n":2}}"#, false),
        ] {
            assert_eq!(
                Call::post(body).refused(&validator).is_none(),
                passes,
                "{body}"
            );
        }
    }

    #[test]
    fn every_fault_of_a_request_is_told_at_once() {
        let settings = json!({"required": ["model"], "allowed_parameters": ["model", "max_tokens"], "max": {"max_tokens": 1}});
        let validator = plugin("request_validator", settings);
        let refusal = Call::post(r#"{"max_tokens":2,"x":1}"#)
            .pre_request(&validator)
            .unwrap_err();
        assert_eq!(
            refusal.message,
            "`model` is missing; the parameter \"x\" is not allowed; `max_tokens` is above 1"
        );
    }

    #[test]
    fn what_is_no_object_is_refused_and_what_has_no_body_passes() {
        let validator = plugin("request_validator", json!({"required": ["model"]}));
        for body in ["", "[]", "{\"model\":", "\u{0}", "1"] {
            assert_eq!(Call::post(body).refused(&validator), Some(400), "{body}");
        }
        assert_eq!(Call::post(vec![0xFF]).refused(&validator), Some(400));
        assert_eq!(Call::get().refused(&validator), None);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems(
            "request_validator",
            json!({"required": ["a..b", "c.d"], "allowed_parameters": ["a"], "max": {"x": "many"}, "schema": {}}),
        );
        let text = told.join("\n");
        for part in [
            "required[0]: \"a..b\": a part of the path is empty",
            "allowed_parameters: `c` is required but not among the allowed (add \"c\" to it)",
            "max.x: expected a number",
            "schema: schema is not supported yet",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        assert!(
            problems("request_validator", json!({}))
                .concat()
                .contains("nothing is checked")
        );
    }
}
