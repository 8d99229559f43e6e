//! Fields that hold one word of a few.

use serde_json::{Value as Json, json};

use super::node::Quoted;
use super::{At, Node, Reading, nearest::suggest};

/// The words a field accepts; made by [`document!`](crate::document!) from an enum.
pub struct Words {
    /// What is accepted, with what each word means.
    pub known: &'static [(&'static str, &'static str)],
    /// Words a later version will accept.
    pub later: &'static [&'static str],
    /// The field of a table that may hold the word instead: `{ type = "off" }`.
    pub tag: Option<&'static str>,
}

impl Words {
    /// Reads one of the words; the index of the word is returned.
    pub fn read(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<usize> {
        if let (Some(entries), Some(tag)) = (node.as_table(), self.tag) {
            return match node.entry(tag) {
                Some(word) => {
                    let index = self.read(word, &at.field(tag), r)?;
                    for (key, _) in entries.iter().filter(|(key, _)| key.text != tag) {
                        let help = format!("known fields: {tag}");
                        r.error(key.span, &at.field(&key.text), "unknown field", help);
                    }
                    Some(index)
                }
                None => {
                    let message = "a table is not supported here yet by this version";
                    r.error(node.span, at, message, self.help());
                    None
                }
            };
        }
        let Some(typed) = node.as_str() else {
            let message = format!("expected a word, found {}", node.found());
            r.error(node.span, at, message, self.help());
            return None;
        };
        if let Some(index) = self.known.iter().position(|(word, _)| *word == typed) {
            return Some(index);
        }
        if self.later.contains(&typed) {
            let message = format!("{} is not supported yet by this version", node.quoted());
            r.error(node.span, at, message, self.help());
            return None;
        }
        let words: Vec<_> = self.known.iter().map(|(word, _)| *word).collect();
        let help = suggest(typed, &words, "values");
        r.error(
            node.span,
            at,
            format!("unknown value {}", node.quoted()),
            help,
        );
        None
    }

    /// The JSON Schema.
    pub fn schema(&self) -> Json {
        let words = self.known.iter().map(|(word, doc)| {
            let doc = super::table::prose(doc);
            json!({"const": word, "description": doc})
        });
        let mut forms: Vec<Json> = words.collect();
        forms.push(json!({"type": "string", "pattern": r"\$\{"}));
        if let Some(tag) = self.tag {
            let words: Vec<_> = self.known.iter().map(|(word, _)| *word).collect();
            let mut properties = serde_json::Map::new();
            properties.insert(tag.into(), json!({"enum": words}));
            forms.push(json!({
                "type": "object",
                "properties": properties,
                "required": [tag],
                "additionalProperties": false,
            }));
        }
        json!({"anyOf": forms})
    }

    /// The first word.
    pub fn example(&self) -> Json {
        self.known
            .first()
            .map_or(Json::Null, |(word, _)| json!(word))
    }

    fn help(&self) -> String {
        let words: Vec<_> = self
            .known
            .iter()
            .map(|(word, _)| Quoted(word).to_string())
            .collect();
        format!("supported now: {}", words.join(", "))
    }
}
