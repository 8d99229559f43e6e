//! stub
use serde_json::Value;
use super::{Converted, Dialect, Options};
pub(super) fn recognises(_: &Value) -> bool { false }
pub(super) fn convert(_: &Value, _: &Options) -> Converted { Converted{dialect: Dialect::Llumnix, resources: vec![], notes: vec![]} }
