//! Under which names engines tell what: several for the same, since names change with versions. What is not there is
//! unknown.

use serde_json::Value;

use crate::balance::Told;
use crate::model::Engine;
use crate::telemetry::Scrape;

/// The names that one engine has used for each figure, the newest first.
struct Names {
    prefix: &'static str,
    running: &'static [&'static str],
    waiting: &'static [&'static str],
    kv_usage: &'static [&'static str],
    prompt_tokens: &'static [&'static str],
    /// A figure that says the cache's size in tokens.
    cache_tokens: &'static [&'static str],
    /// Labels of `cache_config_info`: tokens in all, tokens of a block, blocks.
    cache: [&'static str; 3],
}

const VLLM: Names = Names {
    prefix: "vllm:",
    running: &["vllm:num_requests_running"],
    waiting: &[
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason",
    ],
    kv_usage: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
    prompt_tokens: &["vllm:prompt_tokens_total", "vllm:prompt_tokens"],
    cache_tokens: &[],
    cache: ["kv_cache_size_tokens", "block_size", "num_gpu_blocks"],
};

const SGLANG: Names = Names {
    prefix: "sglang:",
    running: &["sglang:num_running_reqs"],
    waiting: &["sglang:num_queue_reqs"],
    kv_usage: &["sglang:token_usage"],
    prompt_tokens: &["sglang:prompt_tokens_total", "sglang:prompt_tokens"],
    cache_tokens: &["sglang:max_total_num_tokens"],
    cache: ["", "page_size", "num_pages"],
};

const TGI: Names = Names {
    prefix: "tgi_",
    running: &["tgi_batch_current_size"],
    waiting: &["tgi_queue_size"],
    kv_usage: &[],
    prompt_tokens: &["tgi_request_input_length_sum"],
    cache_tokens: &[],
    cache: ["", "", ""],
};

/// What a metrics page tells.
pub(super) fn read(engine: Engine, page: &str) -> Told {
    let names = match engine {
        Engine::Vllm => &VLLM,
        Engine::Sglang => &SGLANG,
        Engine::Tgi => &TGI,
        Engine::None => return Told::default(),
    };
    // Buckets are most of a page.
    let wanted = |name: &str| name.starts_with(names.prefix) && !name.ends_with("_bucket");
    let scrape = Scrape::parse_some(page, wanted);
    // An engine with several ranks has a sample for each: counts add up.
    let first = |names: &[&str]| names.iter().find_map(|name| scrape.known(name));
    let mean = |names: &[&str]| {
        let name = names.iter().find(|name| scrape.count(name) > 0)?;
        Some(scrape.known(name)? / scrape.count(name) as f64)
    };
    let config = format!("{}cache_config_info", names.prefix);
    let [all, block, blocks] = names.cache.map(|label| label_sum(&scrape, &config, label));
    let ranks = scrape.count(&config).max(1) as u64;
    let block = block.map(|block| block / ranks);
    let of_blocks = || Some(block? * blocks?);
    let told = first(names.cache_tokens).map(|tokens| tokens as u64);
    Told {
        running: first(names.running),
        waiting: first(names.waiting),
        kv_usage: mean(names.kv_usage).filter(|usage| (0.0..=1.0).contains(usage)),
        cache_tokens: told.or(all).or_else(of_blocks).filter(|tokens| *tokens > 0),
        block_tokens: block.filter(|tokens| *tokens > 0),
        adapters: adapters(&scrape),
        prompt_tokens: first(names.prompt_tokens),
    }
}

/// The sum over all samples of a number that stands in a label; it may be missing, or no number ("None").
fn label_sum(scrape: &Scrape, name: &str, label: &str) -> Option<u64> {
    let values = scrape.values(name, label);
    let numbers: Option<Vec<u64>> = values.iter().map(|value| value.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| !numbers.is_empty())?;
    numbers.into_iter().try_fold(0_u64, u64::checked_add)
}

fn adapters(scrape: &Scrape) -> Vec<String> {
    let labels = ["running_lora_adapters", "waiting_lora_adapters"];
    let told = labels
        .iter()
        .flat_map(|label| scrape.values("vllm:lora_requests_info", label));
    let mut names: Vec<String> = told
        .flat_map(|list| list.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The names in a list of models; `None` if it is no such list.
pub(super) fn models(page: &str) -> Option<Vec<String>> {
    let list: Value = serde_json::from_str(page).ok()?;
    let models = list.get("data")?.as_array()?.iter();
    let ids = models.filter_map(|model| model.get("id")?.as_str());
    let ids = ids.filter(|id| !id.is_empty());
    Some(ids.take(1_000).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vllm_is_understood_by_its_old_names_and_its_new() {
        let new = r#"# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 1.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.7
vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="1000",num_gpu_blocks="9"} 1.0
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="1000",num_gpu_blocks="9"} 1.0
vllm:prompt_tokens_total{engine="0"} 5e4
vllm:lora_requests_info{max_lora="4",running_lora_adapters="b,a",waiting_lora_adapters="a, c"} 1.7e9
"#;
        let told = read(Engine::Vllm, new);
        assert_eq!((told.running, told.waiting), (Some(7.0), Some(3.0)));
        assert!((told.kv_usage.unwrap() - 0.6).abs() < 1e-9);
        assert_eq!(
            (told.cache_tokens, told.block_tokens),
            (Some(2_000), Some(16))
        );
        assert_eq!(told.prompt_tokens, Some(5e4));
        assert_eq!(told.adapters, ["a", "b", "c"]);
        let old = r#"vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="100",kv_cache_size_tokens="None"} 1.0
vllm:prompt_tokens{model_name="m"} 12
"#;
        let told = read(Engine::Vllm, old);
        assert_eq!((told.running, told.waiting), (None, Some(0.0)));
        assert_eq!(
            (told.kv_usage, told.cache_tokens),
            (Some(0.25), Some(1_600))
        );
        assert_eq!(told.prompt_tokens, Some(12.0));
    }

    #[test]
    fn sglang_and_tgi_have_names_of_their_own() {
        let told = read(
            Engine::Sglang,
            "sglang:num_running_reqs{tp_rank=\"0\"} 2\nsglang:num_queue_reqs 5\nsglang:token_usage 0.9\nsglang:max_total_num_tokens 70000\nsglang:cache_config_info{page_size=\"64\",num_pages=\"9\"} 1\nvllm:num_requests_running 50\n",
        );
        assert_eq!((told.running, told.waiting), (Some(2.0), Some(5.0)));
        assert_eq!(
            (told.kv_usage, told.cache_tokens),
            (Some(0.9), Some(70_000))
        );
        assert_eq!(told.block_tokens, Some(64));
        let told = read(Engine::Tgi, "tgi_batch_current_size 4\ntgi_queue_size 1\n");
        assert_eq!((told.running, told.waiting), (Some(4.0), Some(1.0)));
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        for page in [
            "",
            "\u{0}{{{",
            "vllm:cache_config_info{block_size=\"x\"} 1",
            "<html>",
        ] {
            assert_eq!(read(Engine::Vllm, page), Told::default(), "{page}");
        }
        assert_eq!(
            models("{\"data\":[{\"id\":\"a\"},{\"no\":1},{\"id\":2}]}"),
            Some(vec!["a".to_owned()])
        );
        assert_eq!(models("{\"data\":[]}"), Some(Vec::new()));
        assert_eq!((models("nonsense"), models("{}")), (None, None));
    }
}
