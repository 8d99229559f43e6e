//! Replicas that a web service has: it is told how many there should be, and may answer with those that there are.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde_json::{Value, json};
use tollgate_sdk::document::FromText;
use tollgate_sdk::plugin::Http as _;

use super::targets::{self, Replica};
use super::{Actuator, Order, Standing};
use crate::calls::Calls;
use crate::model::{self, TargetId, TargetUrl, Webhook};

/// It is told again so often while the number is not reached, and so often when it is: it may have forgotten.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(15);
/// Bytes of its answer.
const MOST: usize = 1 << 20;

pub(super) struct Http {
    settings: Webhook,
    calls: Calls,
    told: Option<(u32, Instant)>,
    problem: Option<String>,
    /// How many it has, if it says so; else the targets are those that register by themselves.
    known: Option<u32>,
}

impl Http {
    pub(super) fn new(settings: &Webhook) -> Http {
        Http {
            settings: settings.clone(),
            calls: Calls::new(),
            told: None,
            problem: None,
            known: None,
        }
    }

    fn is_due(&self, order: &Order<'_>) -> bool {
        let Some((desired, at)) = self.told else {
            return true;
        };
        let reached = self.problem.is_none() && order.targets() >= order.desired;
        let pause = if reached { LATER } else { SOON };
        desired != order.desired && self.problem.is_none() || order.now - at >= pause
    }

    async fn tell(&self, order: &Order<'_>) -> Result<Option<Vec<Replica>>, String> {
        let targets = order
            .service
            .replicas()
            .map(|target| json!({"url": &*target.label, "in_flight": target.state.in_flight()}));
        let body = json!({
            "service": &*order.service.name,
            "desired": order.desired,
            "current": order.targets(),
            "reason": order.reason,
            "revision": order.control.snapshot().revision,
            "targets": targets.collect::<Vec<_>>(),
        });
        let mut request = Request::post(self.settings.url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(body.to_string()))
            .map_err(|_| "its address cannot be asked".to_owned())?;
        if let Some(token) = &self.settings.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| "its token is no header's value".to_owned())?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let answer = self.calls.call(request, self.settings.timeout, MOST).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status().as_u16()));
        }
        read(answer.body())
    }
}

/// The targets of an answer, if it speaks of any.
fn read(body: &[u8]) -> Result<Option<Vec<Replica>>, String> {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        // "OK" is an answer, too.
        return Ok(None);
    };
    let Some(targets) = answer.get("targets") else {
        return Ok(None);
    };
    let targets = targets
        .as_array()
        .ok_or("`targets` of its answer is no list")?;
    let replica = |(index, target): (usize, &Value)| {
        let wrong = |what: &str| format!("targets[{index}] of its answer {what}");
        let url = target.get("url").and_then(Value::as_str);
        let url = url.and_then(|url| TargetUrl::from_text(url).ok());
        let url = url.ok_or_else(|| wrong("has no `url` that is a target's"))?;
        let id = match target.get("id").and_then(Value::as_str) {
            Some(id) => TargetId::from_text(id).map_err(|_| wrong("has an `id` that is none"))?,
            None => TargetId::of(&url),
        };
        let port = match target.get("bootstrap_port") {
            None | Some(Value::Null) => None,
            Some(given) => {
                let port = given.as_u64().and_then(|port| u16::try_from(port).ok());
                let port = port.filter(|port| *port > 0);
                Some(port.ok_or_else(|| wrong("has a `bootstrap_port` that is none"))?)
            }
        };
        Ok(Replica {
            id: id.as_str().to_owned(),
            url: url.to_string(),
            bootstrap_port: port,
            process: None,
        })
    };
    let replicas = targets.iter().enumerate().map(replica);
    replicas.collect::<Result<Vec<_>, String>>().map(Some)
}

#[async_trait]
impl Actuator for Http {
    async fn tend(&mut self, order: &Order<'_>) -> Standing {
        if order.leaving {
            return targets::leave(order).await;
        }
        if self.is_due(order) && !order.handed_over {
            let mut done = self.tell(order).await;
            if let Ok(Some(replicas)) = &done {
                self.known = u32::try_from(replicas.len()).ok();
                let replaced = targets::replace(order, replicas).await;
                done = replaced.map(|()| None);
            }
            let problem = done.err().map(|why| format!("the web service: {why}"));
            if let Some(problem) = problem
                .as_ref()
                .filter(|new| self.problem.as_ref() != Some(new))
            {
                log::warn!("service {}: {problem}", order.service.name);
            }
            self.problem = problem;
            self.told = Some((order.desired, order.now));
        }
        Standing {
            ready: self.known.unwrap_or(order.targets()),
            starting: 0,
            draining: 0,
            problem: self.problem.clone(),
        }
    }

    fn takes(&mut self, settings: &model::Actuator) -> bool {
        let model::Actuator::Http(settings) = settings else {
            return false;
        };
        self.settings = Webhook::clone(settings);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_target_is_told_by_its_place() {
        assert_eq!(read(b"OK"), Ok(None));
        assert_eq!(read(b"{}"), Ok(None));
        let answer = br#"{"targets":[{"url":"http://a:1"},{"id":"b","url":"http://b:1/v1"}]}"#;
        let replicas = read(answer).unwrap().unwrap();
        let told: Vec<_> = replicas.iter().map(|r| (&*r.id, &*r.url)).collect();
        assert_eq!(told, [("a:1", "http://a:1"), ("b", "http://b:1/v1")]);
        for (answer, place) in [
            (r#"{"targets":1}"#, "no list"),
            (r#"{"targets":[{"url":"x"}]}"#, "targets[0]"),
            (
                r#"{"targets":[{"url":"http://a"},{"url":"http://b","id":"/"}]}"#,
                "targets[1]",
            ),
            (
                r#"{"targets":[{"url":"http://a","bootstrap_port":70000}]}"#,
                "`bootstrap_port`",
            ),
        ] {
            let wrong = read(answer.as_bytes()).unwrap_err();
            assert!(wrong.contains(place), "{wrong}");
        }
    }
}
