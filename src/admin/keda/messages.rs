//! The messages of KEDA's `externalscaler.proto`, as far as they are read or sent. Fields that are not named here are skipped.
//! (<https://keda.sh/docs/latest/concepts/external-scalers/>)

use std::collections::HashMap;

use prost::Message;

/// Whose replicas are asked for. It may bear a token, so it is not to be printed.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct ScaledObjectRef {
    /// The trigger's `metadata`, all of it.
    #[prost(map = "string, string", tag = "3")]
    pub(super) scaler_metadata: HashMap<String, String>,
}

/// What `IsActive` answers once, and `StreamIsActive` again and again.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct IsActiveResponse {
    /// Whether there is to be any replica.
    #[prost(bool, tag = "1")]
    pub(super) result: bool,
}

/// What `GetMetricSpec` answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetMetricSpecResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) metric_specs: Vec<MetricSpec>,
}

/// A metric, and how much of it one replica is to have.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricSpec {
    #[prost(string, tag = "1")]
    pub(super) metric_name: String,
    /// What older versions of KEDA read.
    #[prost(int64, tag = "2")]
    pub(super) target_size: i64,
    #[prost(double, tag = "3")]
    pub(super) target_size_float: f64,
}

/// What `GetMetrics` is asked. It may bear a token, so it is not to be printed.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct GetMetricsRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) scaled_object_ref: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    pub(super) metric_name: String,
}

/// What it answers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) metric_values: Vec<MetricValue>,
}

/// How much there is of a metric.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricValue {
    #[prost(string, tag = "1")]
    pub(super) metric_name: String,
    /// What older versions of KEDA read.
    #[prost(int64, tag = "2")]
    pub(super) metric_value: i64,
    #[prost(double, tag = "3")]
    pub(super) metric_value_float: f64,
}
