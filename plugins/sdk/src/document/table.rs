//! Tables with known fields: what [`document!`](crate::document!) builds on.

use serde_json::{Value as Json, json};

use super::nearest::{nearest, suggest};
use super::{At, FromNode, Key, Node, Origin, Reading, Value};

/// What is known of a field, from its one declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name in a document.
    pub name: &'static str,
    /// What it means.
    pub doc: String,
    /// Whether it must be given.
    pub required: bool,
    /// What holds when it is not given.
    pub default: Option<Json>,
    /// A value to show.
    pub example: Json,
    /// The JSON Schema of its value.
    pub schema: Json,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// The fields of its value, if that is a table, or a list of tables, with known fields.
    pub fields: Vec<Field>,
}

/// A type read from a table with known fields; made by [`document!`](crate::document!).
pub trait Document: Sized {
    /// The type's doc comment.
    fn doc() -> String;

    /// Its fields, in the order of declaration.
    fn fields() -> Vec<Field>;

    /// The names of its fields, without what else is known of them: asked for every table that is read.
    fn names() -> Vec<&'static str> {
        Self::fields().iter().map(|field| field.name).collect()
    }

    /// Fields a later version will accept.
    fn later() -> Vec<&'static str>;

    /// What else the JSON Schema of the table says.
    fn constraints() -> serde_json::Map<String, Json> {
        serde_json::Map::new()
    }

    /// Reads the fields, reporting nothing about those that are not known.
    fn read_fields(table: Table<'_>, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self>;

    /// Writes the fields.
    fn value_fields(&self) -> serde_json::Map<String, Json>;

    /// Reads a table.
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let Some(entries) = node.as_table() else {
            r.expected(node, at, "a table", &Self::example());
            return None;
        };
        let meant = refuse_unknown::<Self>(entries, at, r);
        let table = Table {
            node,
            meant: &meant,
        };
        Self::read_fields(table, at, r)
    }

    /// The JSON Schema of the table.
    fn schema() -> Json {
        let fields = Self::fields();
        let required: Vec<_> = fields
            .iter()
            .filter(|f| f.required)
            .map(|f| f.name)
            .collect();
        let properties = fields.into_iter().map(|field| {
            let mut schema = field.schema;
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".into(), field.doc.into());
                schema.extend(field.default.map(|default| ("default".into(), default)));
            }
            (field.name.to_owned(), schema)
        });
        let mut schema = json!({
            "type": "object",
            "description": Self::doc(),
            "properties": properties.collect::<serde_json::Map<_, _>>(),
            "additionalProperties": false,
        });
        if let Some(schema) = schema.as_object_mut() {
            schema.extend((!required.is_empty()).then(|| ("required".into(), json!(required))));
            schema.extend(Self::constraints());
        }
        schema
    }

    /// A table with the fields that must be given, or the first if none must.
    fn example() -> Json {
        let fields = Self::fields();
        let none_required = !fields.iter().any(|f| f.required);
        let shown = fields
            .into_iter()
            .enumerate()
            .filter(|(at, f)| f.required || (*at == 0 && none_required));
        Json::Object(
            shown
                .map(|(_, f)| (f.name.to_owned(), f.default.unwrap_or(f.example)))
                .collect(),
        )
    }
}

/// The declaration of one field, as the macro passes it to [`Table::field`].
pub struct Declared<T> {
    /// The field's name in a document.
    pub name: &'static str,
    /// Makes the default.
    pub default: Option<fn() -> T>,
    /// The least and the greatest value of a number.
    pub range: Option<(i64, i64)>,
    /// Makes a value to show, if the type's is not good enough.
    pub example: Option<fn() -> Json>,
}

impl<T> Declared<Option<T>> {
    /// A field that may be left out.
    pub const fn optional(name: &'static str) -> Self {
        Self {
            name,
            default: None,
            range: None,
            example: None,
        }
    }
}

impl<T: FromNode> Declared<T> {
    /// What is known of the field.
    pub fn describe(self, doc: &str) -> Field {
        let default = self.default.map(|make| make().value());
        let mut schema = T::schema();
        if let Some((min, max)) = self.range {
            limit(&mut schema, min, max);
        }
        Field {
            name: self.name,
            doc: prose(doc),
            required: self.default.is_none() && T::absent().is_none(),
            example: self
                .example
                .map(|make| make())
                .or_else(|| default.clone())
                .unwrap_or_else(T::example),
            default: default.filter(|value| !value.is_null()),
            schema,
            secret: T::SECRET,
            fields: T::fields(),
        }
    }
}

/// A table being read.
#[derive(Clone, Copy)]
pub struct Table<'n> {
    node: &'n Node,
    /// Fields that were mistyped; each was reported as unknown, so that missing it is not worth another word.
    meant: &'n [&'static str],
}

impl<'n> Table<'n> {
    /// The table itself, to point at.
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// The value of a field, if it was given.
    pub fn entry(&self, name: &str) -> Option<&'n Node> {
        self.node.entry(name)
    }

    /// Reads one field. One that is wrong is reported and stands at its default, so that the rest can be checked.
    pub fn field<T: FromNode>(
        &self,
        field: Declared<T>,
        at: &At<'_>,
        r: &mut Reading<'_>,
    ) -> Option<T> {
        let fallback = || field.default.map(|make| make()).or_else(T::absent);
        let Some(node) = self.entry(field.name) else {
            let value = fallback();
            if value.is_none() {
                let example = field.example.map_or_else(T::example, |make| make());
                self.report_missing(field.name, &example, T::missing(), at, r);
            }
            return value;
        };
        let at = at.field(field.name);
        if T::SECRET && node.as_table().is_none() {
            r.mask(node.span);
        }
        let number = match (&node.value, node.origin) {
            (Value::Int(number), _) => Some(*number),
            (Value::String(text), Origin::Wholly) => text.trim().parse().ok(),
            _ => None,
        };
        if let (Some((min, max)), Some(number)) = (field.range, number)
            && !(min..=max).contains(&number)
        {
            let message = match node.origin {
                Origin::Typed => format!("{number} is out of range"),
                Origin::Partly | Origin::Wholly => {
                    "the number from the environment is out of range".into()
                }
            };
            r.error(node.span, &at, message, format!("from {min} to {max}"));
            return fallback();
        }
        T::read(node, &at, r).or_else(fallback)
    }

    /// Reports that a field is missing.
    pub fn report_missing(
        &self,
        name: &str,
        example: &Json,
        message: Option<&str>,
        at: &At<'_>,
        r: &mut Reading<'_>,
    ) {
        if self.meant.contains(&name) {
            return;
        }
        let message = message.map_or_else(|| format!("missing field `{name}`"), str::to_owned);
        let help = format!("add: {}", r.format.field(name, example));
        r.error(self.node.span, at, message, help);
    }
}

/// Reports every field that is not known, or not known yet; returns those that were probably meant.
fn refuse_unknown<T: Document>(
    entries: &[(Key, Node)],
    at: &At<'_>,
    r: &mut Reading<'_>,
) -> Vec<&'static str> {
    let (known, later) = (T::names(), T::later());
    let mut meant = Vec::new();
    for (key, value) in entries {
        let name = key.text.as_str();
        if known.contains(&name) {
            continue;
        }
        let at = at.field(name);
        if later.contains(&name) {
            let message = format!("{name} is not supported yet by this version");
            r.error(
                key.span,
                &at,
                message,
                "take it out until a version supports it",
            );
            continue;
        }
        let near = nearest(name, known.iter().chain(&later).copied());
        let help = match near {
            Some(near) => suggest(name, &[near], "fields"),
            None => suggest(name, &known, "fields"),
        };
        r.error(key.span, &at, "unknown field", help);
        // A mistyped secret is a secret still.
        if T::fields()
            .iter()
            .any(|field| field.secret && Some(field.name) == near)
        {
            r.mask(value.span);
        }
        meant.extend(near);
    }
    meant
}

/// A doc comment as prose: the leading space of each line taken away, lines joined by line breaks.
pub fn prose(doc: &str) -> String {
    let lines: Vec<_> = doc
        .trim()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    lines.join("\n")
}

/// Puts limits on the number in a schema.
fn limit(schema: &mut Json, min: i64, max: i64) {
    let number = match schema.pointer_mut("/anyOf/0") {
        Some(number) => number,
        None => schema,
    };
    if let Some(number) = number.as_object_mut() {
        number.insert("minimum".into(), min.into());
        number.insert("maximum".into(), max.into());
    }
}
