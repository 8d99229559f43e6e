//! `/metrics` with vLLM's names, for gateways that steer by them.
//!
//! Everything is rendered on demand from the counters; there is no registry. Absent here means
//! absent in a vLLM without that feature, so a reader must cope.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::counters::{Counters, Histogram};
use super::shared::{Shared, lock};

/// The whole exposition.
pub(super) fn render(shared: &Shared) -> String {
    let mut page = Page {
        text: String::with_capacity(16 << 10),
        labels: labels(shared),
        shared,
    };
    // Writing to a string does not fail.
    let _ = page.render();
    page.text
}

fn labels(shared: &Shared) -> String {
    let model = shared
        .config
        .primary_model()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("engine=\"0\",model_name=\"{}\"", model.replace('\n', "\\n"))
}

struct Page<'s> {
    text: String,
    labels: String,
    shared: &'s Shared,
}

impl Page<'_> {
    fn render(&mut self) -> fmt::Result {
        let shared = self.shared;
        let config = &shared.config;
        let usage = shared
            .cache
            .as_ref()
            .map_or(0.0, |cache| lock(cache).usage());
        let running = shared.running();
        let waiting = shared.waiting();
        self.gauge(
            "num_requests_running",
            "Requests that produce tokens.",
            running,
        )?;
        self.gauge(
            "num_requests_waiting",
            "Requests that wait for a slot or for their prompt's turn.",
            waiting,
        )?;
        self.gauge(
            "kv_cache_usage_perc",
            "Share of cache blocks in use, 0 to 1.",
            usage,
        )?;
        self.head("cache_config_info", "gauge", "The cache's configuration.")?;
        writeln!(
            self.text,
            "vllm:cache_config_info{{block_size=\"{}\",cache_dtype=\"auto\",\
             enable_prefix_caching=\"{}\",engine=\"0\",gpu_memory_utilization=\"0.9\",\
             kv_cache_size_tokens=\"{}\",num_gpu_blocks=\"{}\"}} 1.0",
            config.block_size,
            if config.cache_blocks > 0 {
                "True"
            } else {
                "False"
            },
            config.block_size * config.cache_blocks,
            config.cache_blocks,
        )?;

        let queries = "Prompt tokens looked up in the prefix cache.";
        self.counter("prefix_cache_queries", queries, |c| &c.cache_queries)?;
        self.counter("prefix_cache_hits", "Prompt tokens found there.", |c| {
            &c.cache_hits
        })?;
        self.counter("prompt_tokens", "Prompt tokens.", |c| &c.prompt_tokens)?;
        self.counter("generation_tokens", "Tokens produced.", |c| {
            &c.generated_tokens
        })?;
        self.head(
            "request_success_total",
            "counter",
            "Requests answered in full.",
        )?;
        let stopped = shared.sum(|c| c.stopped.load(Relaxed));
        let limited = shared.sum(|c| c.cut_short.load(Relaxed));
        let aborted = shared.sum(|c| c.aborted.load(Relaxed));
        for (reason, count) in [("stop", stopped), ("length", limited), ("abort", aborted)] {
            writeln!(
                self.text,
                "vllm:request_success_total{{{},finished_reason=\"{reason}\"}} {count}.0",
                self.labels
            )?;
        }

        if shared.transfers.is_some() {
            let kv = shared.state().transfers;
            writeln!(
                self.text,
                "# TYPE sim:kv_transfers_held gauge\nsim:kv_transfers_held {}",
                kv.held
            )?;
            writeln!(self.text, "# TYPE sim:kv_transfers_total counter")?;
            for (end, count) in [
                ("fetched", kv.fetched),
                ("freed", kv.freed),
                ("expired", kv.expired),
                ("refused", kv.refused),
                ("duplicate", kv.duplicates),
            ] {
                writeln!(self.text, "sim:kv_transfers_total{{end=\"{end}\"}} {count}")?;
            }
        }
        let first = "From arrival to the first token.";
        self.histogram("time_to_first_token_seconds", first, |c| &c.first_token)?;
        self.histogram("inter_token_latency_seconds", "Between tokens.", |c| {
            &c.between_tokens
        })?;
        let whole = "From arrival to the end.";
        self.histogram("e2e_request_latency_seconds", whole, |c| &c.whole_request)?;
        self.histogram("request_queue_time_seconds", "Waiting for a slot.", |c| {
            &c.queue
        })?;
        self.histogram("request_prefill_time_seconds", "Computing prompts.", |c| {
            &c.prefill
        })
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(
            self.text,
            "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}"
        )
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        writeln!(self.text, "vllm:{name}{{{}}} {value}", self.labels)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&Counters) -> &AtomicU64,
    ) -> fmt::Result {
        let value = self.shared.sum(|counters| read(counters).load(Relaxed));
        self.head(&format!("{name}_total"), "counter", help)?;
        writeln!(self.text, "vllm:{name}_total{{{}}} {value}.0", self.labels)
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&Counters) -> &Histogram,
    ) -> fmt::Result {
        self.head(name, "histogram", help)?;
        let bounds = self
            .shared
            .counters
            .first()
            .map_or(&[][..], |counters| read(counters).bounds);
        let mut total = 0;
        for k in 0..=bounds.len() {
            total += self
                .shared
                .sum(|c| read(c).counts.get(k).map_or(0, |n| n.load(Relaxed)));
            let bound = bounds
                .get(k)
                .map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            writeln!(
                self.text,
                "vllm:{name}_bucket{{{},le=\"{bound}\"}} {total}.0",
                self.labels
            )?;
        }
        let nanos = self
            .shared
            .sum(|counters| read(counters).nanos.load(Relaxed));
        writeln!(self.text, "vllm:{name}_count{{{}}} {total}.0", self.labels)?;
        writeln!(
            self.text,
            "vllm:{name}_sum{{{}}} {:?}",
            self.labels,
            nanos as f64 / 1e9
        )
    }
}
