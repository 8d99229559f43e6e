//! A typed tree to JSON, with what only this machine knows: `{ file = "…" }` is read, and a reference to the environment becomes the
//! number or boolean its field wants.
//!
//! Both depend on the field, which its schema describes: a label may be called `file`, and a text may look like a number.

use serde_json::{Map, Number, Value, json};
use tollgate_plugins::BUILTINS;
use tollgate_sdk::document::{At, Node, Origin, Reading, Value as Typed};

/// Fills in the values that one schema describes.
pub(super) struct Fill<'s> {
    /// What the value may be.
    ways: Vec<&'s Value>,
}

impl<'s> Fill<'s> {
    pub(super) fn new(schema: &'s Value) -> Self {
        let several = schema.get("anyOf").or_else(|| schema.get("oneOf"));
        let several = several.and_then(Value::as_array).into_iter().flatten();
        let below = several.flat_map(|way| Fill::new(way).ways);
        // A choice may stand beside what holds of all its ways.
        Fill {
            ways: std::iter::once(schema).chain(below).collect(),
        }
    }

    /// The value of a field of such a table.
    pub(super) fn field(&self, name: &str, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Value {
        let below = { self.ways.iter() }.find_map(|way| {
            let own = way.get("properties").and_then(|fields| fields.get(name));
            own.or_else(|| {
                way.get("additionalProperties")
                    .filter(|any| any.is_object())
            })
        });
        Fill::new(below.unwrap_or(&Value::Null)).value(node, at, r)
    }

    fn value(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Value {
        match &node.value {
            Typed::Null => Value::Null,
            Typed::Bool(value) => json!(value),
            Typed::Int(value) => json!(value),
            Typed::Float(value) => {
                Number::from_f64(*value).map_or_else(|| value.to_string().into(), Value::Number)
            }
            Typed::String(text) => match node.origin {
                Origin::Wholly if self.takes_reference() => scalar(text),
                _ => text.as_str().into(),
            },
            Typed::List(items) => {
                let below = self.ways.iter().find_map(|way| way.get("items"));
                let below = Fill::new(below.unwrap_or(&Value::Null));
                let items = items.iter().enumerate();
                items
                    .map(|(index, item)| below.value(item, &at.index(index), r))
                    .collect()
            }
            Typed::Table(entries) => {
                if let Some(file) = self.file(node) {
                    return self.content(file, &at.field("file"), r);
                }
                let settings = settings_of(node);
                let mut table = Map::new();
                for (key, value) in entries {
                    let at = at.field(&key.text);
                    let value = match (key.text.as_str(), &settings) {
                        ("settings", Some(schema)) => Fill::new(schema).value(value, &at, r),
                        (name, _) => self.field(name, value, &at, r),
                    };
                    table.insert(key.text.clone(), value);
                }
                table.into()
            }
        }
    }

    /// Whether a number or a boolean may be given as one reference to the environment.
    fn takes_reference(&self) -> bool {
        let mut texts =
            { self.ways.iter() }.filter(|way| way.get("type") == Some(&json!("string")));
        match texts.next() {
            Some(text) => {
                let pattern = text.get("pattern").and_then(Value::as_str);
                pattern == Some(r"^\$\{[^}]*\}$") && texts.next().is_none()
            }
            None => self.is_open(),
        }
    }

    /// Whether nothing is known of what stands here.
    fn is_open(&self) -> bool {
        self.ways.iter().all(|way| {
            let said = [
                "properties",
                "additionalProperties",
                "items",
                "const",
                "enum",
                "anyOf",
                "oneOf",
            ];
            let kind = way.get("type").and_then(Value::as_str);
            matches!(kind, None | Some("object"))
                && !said.iter().any(|word| way.get(word).is_some())
        })
    }

    /// The file that the table stands for.
    fn file<'n>(&self, node: &'n Node) -> Option<&'n Node> {
        let [(key, file)] = node.as_table()? else {
            return None;
        };
        let file = Some(file).filter(|file| key.text == "file" && file.as_str().is_some())?;
        (self.is_secret() || self.is_open()).then_some(file)
    }

    fn is_secret(&self) -> bool {
        let text = json!("string");
        let is_file = |way: &&&Value| way.get("required") == Some(&json!(["file"]));
        self.ways.iter().any(|way| way.get("type") == Some(&text))
            && self.ways.iter().find(is_file).is_some()
    }

    /// A secret without the line end that editors leave; elsewhere a JSON document, if it is one.
    fn content(&self, file: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Value {
        let text = match r.file(file.as_str().unwrap_or_default()) {
            Ok(text) => text,
            Err(wrong) => {
                r.error(file.span, at, wrong, ());
                return Value::Null;
            }
        };
        let document = match self.is_secret() {
            true => None,
            false => serde_json::from_str(&text).ok().filter(Value::is_object),
        };
        document.unwrap_or_else(|| text.trim_end_matches(['\r', '\n']).into())
    }
}

/// The schema of the settings of an entry of a chain.
fn settings_of(node: &Node) -> Option<Value> {
    node.entry("settings")?;
    let name = node.entry("name")?.as_str()?;
    let kind = BUILTINS.iter().find(|kind| kind.name == name)?;
    Some((kind.schema)())
}

/// The number or boolean that a text spells, or the text.
fn scalar(text: &str) -> Value {
    let number = text.parse::<i64>().ok().map(Value::from);
    let number = number.or_else(|| {
        let float = text.parse::<f64>().ok()?;
        Number::from_f64(float).map(Value::Number)
    });
    match text {
        "true" => true.into(),
        "false" => false.into(),
        text => number.unwrap_or_else(|| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Format, interpolate, read_tree};
    use crate::model::KINDS;

    use super::*;

    fn filled(kind: &str, text: &str) -> Result<Value, String> {
        let read_file = |path: &str| match path {
            "key" => Ok("from-a-file\n".to_owned()),
            "42" => Ok("42\n".to_owned()),
            "schema.json" => Ok("{\"type\": \"object\"}".to_owned()),
            path => Err(format!("there is no file {path}")),
        };
        let env = |name: &str| match name {
            "N" => Some("7".to_owned()),
            "ON" => Some("true".to_owned()),
            _ => None,
        };
        let mut r = Reading::new(Format::Yaml, &read_file);
        let mut root = read_tree(text, Format::Yaml, &mut r).unwrap();
        interpolate(&mut root, text, &env, &mut r);
        let kind = KINDS.iter().find(|known| known.name == kind).unwrap();
        let value = Fill::new(&(kind.schema)()).value(&root, &At::ROOT, &mut r);
        match r.problems.first() {
            Some(problem) => Err(problem.message.clone()),
            None => Ok(value),
        }
    }

    #[test]
    fn references_become_what_their_field_wants() {
        let text = "weight: \"${N}\"\nlabels: {a: \"${N}\", file: \"x\"}\nmodels: [\"${N}\"]\nowner: \"${ON}\"\n\
            retry: {attempts: \"${N}\", budget: 0.5}\nplugins:\n- {name: rate_limiter, enabled: \"${ON}\", settings: {global: {limit: \"${N}\", window: 1m}}}\n";
        let value = filled("service", text).unwrap();
        assert_eq!(value["weight"], 7);
        assert_eq!(value["labels"], json!({"a": "7", "file": "x"}));
        assert_eq!(value["models"], json!(["7"]));
        assert_eq!(value["owner"], "true");
        assert_eq!(value["retry"]["attempts"], 7);
        assert_eq!(value["plugins"][0]["enabled"], true);
        assert_eq!(value["plugins"][0]["settings"]["global"]["limit"], 7);
    }

    #[test]
    fn files_are_read_where_they_may_stand() {
        let value = filled("upstream", "api_key: {file: key}\nlabels: {file: key}").unwrap();
        assert_eq!(value["api_key"], "from-a-file");
        assert_eq!(value["labels"], json!({"file": "key"}));
        assert_eq!(
            filled("key", "secret: {file: \"42\"}").unwrap()["secret"],
            "42"
        );
        let text = "plugins: [{name: request_validator, settings: {schema: {file: schema.json}}}]";
        let value = filled("gateway", text).unwrap();
        assert_eq!(
            value["plugins"][0]["settings"]["schema"],
            json!({"type": "object"})
        );
        let wrong = filled("upstream", "api_key: {file: nowhere}").unwrap_err();
        assert_eq!(wrong, "there is no file nowhere");
    }
}
