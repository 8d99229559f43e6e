//! The faults that wait for requests which do not ask for them.
//!
//! A plan is a list of steps; a request takes the first step that matches its path and is not
//! used up. Set by the library or by `POST /sim/faults`; a new plan replaces the old one. Reading
//! an empty plan costs one atomic load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::faults::Faults;

/// Faults for some of the coming requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultStep {
    /// What happens to them.
    pub faults: Faults,
    /// How many requests; `None` lasts until the plan is cleared.
    pub count: Option<u64>,
    /// Only paths that begin so. Absent: every path but `/sim/…`, `/health` and `/metrics`.
    pub path: Option<String>,
}

impl FaultStep {
    /// These faults for every request until cleared.
    pub fn always(faults: Faults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    /// These faults for the next `count` requests.
    pub fn times(count: u64, faults: Faults) -> Self {
        Self {
            faults,
            count: Some(count),
            path: None,
        }
    }

    /// One step per status, each for one request; 200 serves normally.
    pub fn statuses(statuses: &[u16]) -> Vec<Self> {
        statuses
            .iter()
            .map(|&status| {
                Self::times(
                    1,
                    Faults {
                        status: Some(status),
                        ..Faults::default()
                    },
                )
            })
            .collect()
    }

    /// The same step, for paths that begin so.
    pub fn at(self, path: &str) -> Self {
        Self {
            path: Some(path.to_owned()),
            ..self
        }
    }

    fn matches(&self, path: &str) -> bool {
        match &self.path {
            Some(prefix) => path.starts_with(prefix.as_str()),
            None => !(path.starts_with("/sim/") || path == "/health" || path == "/metrics"),
        }
    }
}

/// The steps still to come.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    steps: Mutex<Vec<FaultStep>>,
    present: AtomicBool,
}

impl FaultPlan {
    pub(super) fn replace(&self, steps: Vec<FaultStep>) {
        let mut present = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        self.present.store(!steps.is_empty(), Ordering::Release);
        *present = steps;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.present.load(Ordering::Acquire)
    }

    /// Faults for a request that just arrived, which uses up one of its step's count.
    pub(super) fn take(&self, path: &str) -> Option<Faults> {
        if self.is_empty() {
            return None;
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let at = steps.iter().position(|step| step.matches(path))?;
        let step = steps.get_mut(at)?;
        let faults = step.faults.clone();
        if let Some(count) = &mut step.count {
            *count = count.saturating_sub(1);
            if *count == 0 {
                steps.remove(at);
            }
        }
        self.present.store(!steps.is_empty(), Ordering::Release);
        Some(faults)
    }
}

/// Reads what `POST /sim/faults` was given: one step or a list of them. A step has the names of
/// `x-sim`, and `count`, `path`, and `statuses` for a sequence of them.
pub(super) fn read_steps(json: &[u8]) -> Result<Vec<FaultStep>, String> {
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let list = match value {
        Value::Array(list) => list,
        single => vec![single],
    };
    let mut steps = Vec::new();
    for value in list {
        read_step(value, &mut steps)?;
    }
    Ok(steps
        .into_iter()
        .filter(|step| step.count != Some(0))
        .collect())
}

fn read_step(value: Value, steps: &mut Vec<FaultStep>) -> Result<(), String> {
    let Value::Object(fields) = value else {
        return Err("a step is a JSON object".to_owned());
    };
    let mut step = FaultStep::default();
    let mut statuses = None;
    for (name, value) in fields {
        match name.as_str() {
            "count" => {
                let count = value.as_u64().ok_or("`count` is a number of requests")?;
                step.count = Some(count);
            }
            "path" => step.path = Some(text(&value)?),
            "statuses" => {
                let list: Vec<u16> = serde_json::from_value(value).map_err(|e| e.to_string())?;
                statuses = Some(list);
            }
            // Free text, which must not be read as percent-encoded.
            "body" => step.faults.body = Some(text(&value)?),
            _ => step.faults.set(&name, &text(&value)?)?,
        }
    }
    match statuses {
        None => steps.push(step),
        Some(list) => steps.extend(list.into_iter().map(|status| FaultStep {
            faults: Faults {
                status: Some(status),
                ..step.faults.clone()
            },
            count: Some(step.count.unwrap_or(1)),
            path: step.path.clone(),
        })),
    }
    Ok(())
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        _ => Err(format!("`{value}` is not a plain value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_used_up_in_order() {
        let plan = FaultPlan::default();
        plan.replace(FaultStep::statuses(&[429, 200]));
        assert_eq!(plan.take("/health"), None);
        assert_eq!(plan.take("/v1/models").and_then(|f| f.status), Some(429));
        assert_eq!(plan.take("/v1/models").and_then(|f| f.status), Some(200));
        assert_eq!(plan.take("/v1/models"), None);
        assert!(plan.is_empty());
    }

    #[test]
    fn a_path_narrows_a_step() {
        let plan = FaultPlan::default();
        plan.replace(vec![FaultStep::always(Faults::default()).at("/health")]);
        assert_eq!(plan.take("/v1/models"), None);
        assert!(plan.take("/health").is_some());
        assert!(!plan.is_empty());
    }

    #[test]
    fn json_reads_into_steps() {
        let steps = read_steps(
            br#"[{"status":503,"retry_after":2,"count":2,"body":"50%"},
                {"statuses":[429,200],"path":"/v1"},{"stall-after":3,"stamp":true}]"#,
        )
        .unwrap();
        assert_eq!(steps.len(), 4);
        assert_eq!(steps[0].count, Some(2));
        assert_eq!(steps[0].faults.body.as_deref(), Some("50%"));
        assert_eq!(steps[2].path.as_deref(), Some("/v1"));
        assert_eq!((steps[1].count, steps[3].count), (Some(1), None));
        assert!(read_steps(b"[1]").is_err());
        assert!(read_steps(br#"{"nonsense":1}"#).is_err());
        assert!(read_steps(b"{").is_err());
    }
}
