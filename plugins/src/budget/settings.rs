//! The settings of `budget`, and what can be wrong with them.
//!
//! It owns the reading; amounts leave it in the unit that is counted: tokens, or millionths of the currency.

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};
use tollgate_sdk::llm::ModelPattern;
use tollgate_sdk::plugin::By;
use tollgate_sdk::quota::Period;

use crate::price::{MICRO, Price};

/// The highest limit of money.
const MOST_MONEY: f64 = 1e12;

/// The highest limit of tokens: below 2^53, so that every whole number is one.
const MOST_TOKENS: f64 = 1e15;

document! {
    /// So much money, or so many tokens, in a day or a month of the calendar (UTC), counted by whom or what requests concern. What is beyond it gets
    /// 429 `insufficient_quota` until the next period.
    ///
    /// Before a request goes on an estimate is reserved: a token for every 4 bytes of its body, and as many generated as it allows by `max_tokens`,
    /// `max_completion_tokens` or `max_output_tokens`, else `default_output`; at most the whole limit. With the end it is settled to what was used, and given back if
    /// nothing was generated. So a period can come to more than its limit only by what exchanges that were under way at the same
    /// time used beyond their estimates, each by: its prompt's tokens beyond a quarter of its body's bytes (none for most text; more for images by URL and for
    /// scripts with many tokens a byte), what it generated beyond its estimate (none if it named a maximum that the engine keeps; with `n` answers up to `n` times
    /// that), and what was cut from an estimate above the whole limit. Once it stands above the limit nothing passes. An exchange counts in the period in which
    /// it began; one that ends in the next one stays at its estimate there.
    ///
    /// Of a stream that broke off or was left before it told its usage, a token is counted for every event with content, and for the prompt as many
    /// for each byte of the request as the service's prompts have had lately, a quarter of one before any was told: that is off by as much as the
    /// request's own tokens a byte differ from that. An answer in one piece that its client does not wait for is not known and not charged.
    pub struct Budget (checked) {
        /// The most in a period: tokens, or money in the currency of the prices.
        #[example = 100.0]
        limit: f64,
        /// What is counted.
        unit: Unit = Unit::Money,
        /// In which period.
        per: Per = Per::Month,
        /// By whom or what it is counted; requests that do not name it are not counted.
        by: By = By::Key,
        /// What a million tokens cost, by the model asked for; a `*` at the end of a name stands for any rest. The exact name wins, then the longest
        /// beginning.
        prices: Vec<(ModelPattern, Price)> = Vec::new(),
        /// Tokens that a request is taken to generate when it does not say.
        #[range(0..=10000000)]
        default_output: u64 = 512,
        /// Whether requests beyond the budget are refused; else they are only counted.
        enforce: bool = true,
        /// What becomes of a model without a price, where money is counted.
        unpriced: Unpriced = Unpriced::Refuse,
    }
}

document! {
    /// What a budget counts.
    pub enum Unit {
        /// Money, by `prices`.
        Money = "money",
        /// Tokens, those of the prompt and those generated.
        Tokens = "tokens",
    }
}

document! {
    /// A period of the calendar, UTC.
    pub enum Per {
        /// From midnight to midnight.
        Day = "day",
        /// From the first of a month to the first of the next.
        Month = "month",
    }
}

document! {
    /// What becomes of a model without a price.
    pub enum Unpriced {
        /// It gets 403.
        Refuse = "refuse",
        /// It costs nothing.
        Pass = "pass",
    }
}

impl Per {
    pub(super) fn period(self) -> Period {
        match self {
            Self::Day => Period::Day,
            Self::Month => Period::Month,
        }
    }
}

impl Budget {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let limit = node.entry("limit").map_or(node.span, |limit| limit.span);
        let at_limit = at.field("limit");
        match self.unit {
            Unit::Money if !(1.0 / MICRO..=MOST_MONEY).contains(&self.limit) => {
                let help = "from 0.000001 to 1000000000000, in the currency of the prices";
                r.error(limit, &at_limit, "not an amount of money", help);
            }
            Unit::Tokens
                if !(1.0..=MOST_TOKENS).contains(&self.limit) || self.limit.fract() > 0.0 =>
            {
                let help = "a whole number from 1 to 1000000000000000";
                r.error(limit, &at_limit, "not a number of tokens", help);
            }
            Unit::Money | Unit::Tokens => {}
        }
        let none = || match node.entry("prices") {
            Some(prices) => prices.as_table().is_some_and(<[_]>::is_empty),
            None => true,
        };
        if self.unit == Unit::Money && none() {
            let example = json!({"*": {"input": 2.5, "output": 10.0}});
            let help = format!("add: {}", r.format.field("prices", &example));
            let message = "money can be counted only with prices";
            r.error(node.span, &at.field("prices"), message, help);
        }
        self
    }

    /// The limit in the unit that is counted.
    pub(super) fn most(&self) -> u64 {
        // Within u64: what was read is at most MOST_MONEY or MOST_TOKENS.
        match self.unit {
            Unit::Money => (self.limit * MICRO).round() as u64,
            Unit::Tokens => self.limit as u64,
        }
    }
}
