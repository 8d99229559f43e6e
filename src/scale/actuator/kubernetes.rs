//! Replicas that are pods: the scale of a deployment is set, and the ready endpoints of its service are the targets.
//!
//! Both go by the API server with the credential of the service account, which is read each time, since it is replaced now and then. Which pod ends is
//! Kubernetes' choice; it leaves the endpoints first, and its `terminationGracePeriodSeconds` is how long it may finish what it has.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use serde_json::{Value, json};
use tollgate_sdk::plugin::Http as _;

use super::targets::{self, Replica};
use super::{Actuator, Order, Standing};
use crate::calls::Calls;
use crate::model;

const SERVER: &str = "https://kubernetes.default.svc";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How often endpoints are listed.
const LOOK: Duration = Duration::from_secs(2);
/// How often the scale is set although nothing has changed: somebody else may have set it.
const AGAIN: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MOST: usize = 8 << 20;

pub(super) struct Kubernetes {
    settings: model::Kubernetes,
    calls: Option<Calls>,
    set: Option<(u32, Instant)>,
    listed: Option<Instant>,
    ready: u32,
    problem: Option<String>,
}

impl Kubernetes {
    pub(super) fn new(settings: &model::Kubernetes) -> Kubernetes {
        Kubernetes {
            settings: settings.clone(),
            calls: None,
            set: None,
            listed: None,
            ready: 0,
            problem: None,
        }
    }

    fn account(&self, file: &str) -> PathBuf {
        let folder = self.settings.account.as_ref().map(|folder| &*folder.0);
        folder.unwrap_or(Path::new(ACCOUNT)).join(file)
    }

    async fn read(&self, file: &str) -> Result<String, String> {
        let path = self.account(file);
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
        let text = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let text = text.map_err(|error| format!("the service account's {file}: {error}"))?;
        Ok(text.trim().to_owned())
    }

    async fn namespace(&self) -> Result<String, String> {
        match &self.settings.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => self.read("namespace").await,
        }
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Value)>,
    ) -> Result<Value, String> {
        let server = self.settings.server.as_ref().map(|server| server.as_str());
        let server = server.unwrap_or(SERVER).trim_end_matches('/').to_owned();
        let token = self.read("token").await?;
        let calls = match &self.calls {
            Some(calls) => calls.clone(),
            None => {
                let calls = match server.starts_with("https:") {
                    true => {
                        let authorities = self.read("ca.crt").await?;
                        let trusting = Calls::trusting(authorities.as_bytes());
                        trusting.map_err(|why| format!("the service account's ca.crt: {why}"))?
                    }
                    false => Calls::new(),
                };
                self.calls = Some(calls.clone());
                calls
            }
        };
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{server}{path}"))
            .header(ACCEPT, "application/json");
        let mut credential = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "the service account's token is no header's value".to_owned())?;
        credential.set_sensitive(true);
        request = request.header(AUTHORIZATION, credential);
        let mut text = String::new();
        if let Some((kind, body)) = body {
            request = request.header(CONTENT_TYPE, kind);
            text = body.to_string();
        }
        let request = request.body(Bytes::from(text));
        let request = request.map_err(|_| format!("{path} is no path"))?;
        let answer = calls.call(request, self.settings.timeout, MOST).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // Its authority may have been replaced.
                self.calls = None;
                return Err(format!("the API server: {error}"));
            }
        };
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(format!("{method} {path} was answered {status}"));
        }
        let told = serde_json::from_slice(answer.body());
        told.map_err(|_| format!("{method} {path} was answered with no JSON"))
    }

    /// Sets the deployment's scale.
    async fn set(&mut self, desired: u32) -> Result<(), String> {
        let namespace = self.namespace().await?;
        let name = &self.settings.deployment;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale");
        let patch = json!({"spec": {"replicas": desired}});
        let body = Some(("application/merge-patch+json", patch));
        self.ask(Method::PATCH, &path, body).await.map(drop)
    }

    /// The pods that serve.
    async fn list(&mut self) -> Result<Vec<Replica>, String> {
        let namespace = self.namespace().await?;
        let service = self.settings.service.as_ref();
        let service = service.unwrap_or(&self.settings.deployment);
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        );
        let slices = self.ask(Method::GET, &path, None).await?;
        Ok(endpoints(&slices, self.settings.port))
    }
}

/// The ready endpoints of a list of EndpointSlices. One that does not say whether it is ready is.
fn endpoints(slices: &Value, port: u16) -> Vec<Replica> {
    let list = |value: &Value, name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let mut found: Vec<Replica> = Vec::new();
    for endpoint in list(slices, "items")
        .iter()
        .flat_map(|slice| list(slice, "endpoints"))
    {
        if endpoint.pointer("/conditions/ready") == Some(&Value::Bool(false)) {
            continue;
        }
        let address = list(&endpoint, "addresses").into_iter().next();
        let Some(address) = address.as_ref().and_then(Value::as_str) else {
            continue;
        };
        let host = match address.contains(':') {
            true => format!("[{address}]"),
            false => address.to_owned(),
        };
        let name = endpoint.pointer("/targetRef/name").and_then(Value::as_str);
        let id = name.unwrap_or(address).chars().take(128).collect();
        let replica = Replica {
            id,
            url: format!("http://{host}:{port}"),
            bootstrap_port: None,
            process: None,
        };
        // An endpoint may be in two slices for a moment.
        if found
            .iter()
            .all(|known| known.id != replica.id && known.url != replica.url)
        {
            found.push(replica);
        }
    }
    found
}

#[async_trait]
impl Actuator for Kubernetes {
    async fn tend(&mut self, order: &Order<'_>) -> Standing {
        if order.handed_over {
            return Standing::default();
        }
        if order.leaving {
            return targets::leave(order).await;
        }
        let mut problem = None;
        let is_set =
            |(number, at): (u32, Instant)| number == order.desired && order.now - at < AGAIN;
        let failed_now =
            self.problem.is_some() && self.listed.is_some_and(|at| order.now - at < LOOK);
        if !self.set.is_some_and(is_set) && !failed_now {
            match self.set(order.desired).await {
                Ok(()) => self.set = Some((order.desired, order.now)),
                Err(why) => problem = Some(why),
            }
        }
        if self.listed.is_none_or(|at| order.now - at >= LOOK) {
            self.listed = Some(order.now);
            match self.list().await {
                Ok(pods) => {
                    self.ready = u32::try_from(pods.len()).unwrap_or(u32::MAX);
                    let replaced = targets::replace(order, &pods).await;
                    problem = problem.or(replaced.err());
                }
                // Pods that served a moment ago are likely to serve still.
                Err(why) => problem = problem.or(Some(why)),
            }
            if problem.is_some() && problem != self.problem {
                let why = problem.as_deref().unwrap_or_default();
                log::warn!("service {}: Kubernetes: {why}", order.service.name);
            }
            self.problem = problem;
        } else if problem.is_some() {
            self.problem = problem;
        }
        Standing {
            ready: self.ready,
            starting: order.desired.saturating_sub(self.ready),
            draining: 0,
            problem: self.problem.clone(),
        }
    }

    fn takes(&mut self, settings: &model::Actuator) -> bool {
        match settings {
            model::Actuator::Kubernetes(settings) => **settings == self.settings,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ready_is_a_target() {
        let slices = json!({"items": [
            {"endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"name": "qwen-a"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"name": "qwen-b"}},
                {"addresses": [], "conditions": {"ready": true}},
            ]},
            {"endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"name": "qwen-a"}},
                {"addresses": ["fd00::3"]},
            ]},
            {},
        ]});
        let found = endpoints(&slices, 8000);
        let found: Vec<_> = found.iter().map(|r| (&*r.id, &*r.url)).collect();
        let expected = [
            ("qwen-a", "http://10.0.0.1:8000"),
            ("fd00::3", "http://[fd00::3]:8000"),
        ];
        assert_eq!(found, expected);
        assert_eq!(endpoints(&json!([]), 1), []);
    }
}
