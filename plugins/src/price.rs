//! What tokens cost, by model.
//!
//! It owns the arithmetic of money, all of it in integers, and which price is a model's. Prices are for a million tokens, in any currency; costs are in
//! millionths of it. Invariant: one cost is rounded once, up to a whole millionth, so that nothing with a price is free.

use std::collections::HashMap;

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::llm::ModelPattern;
use tollgate_sdk::llm::usage::Usage;

/// Millionths in one.
pub(crate) const MICRO: f64 = 1e6;

/// The highest price: one of the currency for each token.
const HIGHEST: f64 = 1e6;

document! {
    /// What a million tokens cost.
    pub struct Price (checked) {
        /// Those of the prompt.
        #[example = 2.5]
        input: f64,
        /// Those of the prompt that the engine had in its cache; as much as the others unless it is said.
        #[example = 1.25]
        cached: Option<f64>,
        /// Those generated.
        #[example = 10.0]
        output: f64,
    }
}

impl Price {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = [
            ("input", Some(self.input)),
            ("cached", self.cached),
            ("output", self.output.into()),
        ];
        for (name, price) in given {
            if price.is_some_and(|price| !(0.0..=HIGHEST).contains(&price)) {
                let span = node.entry(name).map_or(node.span, |node| node.span);
                let help = "from 0 to 1000000, for a million tokens";
                r.error(span, &at.field(name), "not a price", help);
            }
        }
        self
    }
}

/// A price in integers: millionths of the currency for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    input: u64,
    cached: u64,
    output: u64,
}

impl Rates {
    fn new(price: &Price) -> Self {
        // Within u64: what was read is at most HIGHEST.
        let micro = |price: f64| (price * MICRO).round() as u64;
        Self {
            input: micro(price.input),
            cached: micro(price.cached.unwrap_or(price.input)),
            output: micro(price.output),
        }
    }

    /// What these tokens cost, in millionths.
    pub(crate) fn cost(&self, usage: &Usage) -> u64 {
        let cached = usage.cached.min(usage.input);
        let parts = [
            (usage.input - cached, self.input),
            (cached, self.cached),
            (usage.output, self.output),
        ];
        let sum: u128 = parts
            .iter()
            .map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate))
            .sum();
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// The prices of all models.
#[derive(Debug)]
pub(crate) struct Prices {
    exact: HashMap<String, Rates>,
    /// The longest first.
    prefixes: Vec<(String, Rates)>,
}

impl Prices {
    pub(crate) fn new(prices: &[(ModelPattern, Price)]) -> Self {
        let (mut exact, mut prefixes) = (HashMap::new(), Vec::new());
        for (pattern, price) in prices {
            match pattern.clone() {
                ModelPattern::Exact(name) => {
                    exact.insert(name, Rates::new(price));
                }
                ModelPattern::Prefix(prefix) => prefixes.push((prefix, Rates::new(price))),
            }
        }
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { exact, prefixes }
    }

    /// The price of a model: under its name, else under the longest prefix of it. A request that names none is priced as `*` is.
    pub(crate) fn of(&self, model: Option<&str>) -> Option<Rates> {
        let model = model.unwrap_or_default();
        self.exact.get(model).copied().or_else(|| {
            let matches = |(prefix, _): &&(String, Rates)| model.starts_with(prefix.as_str());
            self.prefixes.iter().find(matches).map(|(_, rates)| *rates)
        })
    }
}

#[cfg(test)]
mod tests {
    use tollgate_sdk::document::FromText;

    use super::*;

    fn price(input: f64, cached: Option<f64>, output: f64) -> Price {
        Price {
            input,
            cached,
            output,
        }
    }

    fn usage(input: u64, cached: u64, output: u64) -> Usage {
        Usage {
            input,
            cached,
            output,
        }
    }

    #[test]
    fn a_cost_is_the_sum_of_its_parts_in_millionths() {
        let rates = Rates::new(&price(2.5, Some(1.25), 10.0));
        // 2 million at 2.5, one of them cached, and a tenth at 10: 2.5 + 1.25 + 1.
        assert_eq!(rates.cost(&usage(2_000_000, 1_000_000, 100_000)), 4_750_000);
        // One token of the prompt costs 2.5 millionths, and with one more exactly 5.
        assert_eq!(rates.cost(&usage(1, 0, 0)), 3);
        assert_eq!(rates.cost(&usage(2, 0, 0)), 5);
        assert_eq!(rates.cost(&usage(0, 0, 0)), 0);
        // Prices that binary fractions cannot hold.
        let odd = Rates::new(&price(0.1, None, 0.7));
        assert_eq!(
            odd.cost(&usage(10_000_000, 10_000_000, 10_000_000)),
            8_000_000
        );
        // More from the cache than there was: the prompt is paid once.
        assert_eq!(rates.cost(&usage(4, 400, 0)), 5);
        assert_eq!(rates.cost(&usage(u64::MAX, 0, u64::MAX)), u64::MAX);
    }

    #[test]
    fn a_name_wins_over_prefixes_and_a_longer_prefix_over_a_shorter() {
        let one = |name: &str, input| {
            let pattern = ModelPattern::from_text(name).unwrap();
            (pattern, price(input, None, 0.0))
        };
        let all = [
            one("*", 1.0),
            one("gpt-4o*", 3.0),
            one("gpt-4o", 4.0),
            one("gpt-*", 2.0),
        ];
        let prices = Prices::new(&all);
        let of = |model| prices.of(model).map(|rates| rates.input);
        assert_eq!(of(Some("gpt-4o")), Some(4_000_000));
        assert_eq!(of(Some("gpt-4o-mini")), Some(3_000_000));
        assert_eq!(of(Some("gpt-3.5")), Some(2_000_000));
        assert_eq!(of(Some("GPT-4o")), Some(1_000_000));
        assert_eq!(of(None), Some(1_000_000));
        let named = Prices::new(&all[1..3]);
        assert_eq!(named.of(Some("gpt-4")), None);
        assert_eq!(named.of(None), None);
    }
}
