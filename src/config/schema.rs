//! The JSON Schema of the whole file, from the declarations of the model.

use serde_json::{Map, Value, json};
use tollgate_sdk::document::Document;

use crate::model::{Config, KINDS};

/// The schema, as it stands in `conf/schema.json`.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

/// The schema, with each kind of resource as a definition of its own.
pub fn schema() -> Value {
    let mut schema = Config::schema();
    let mut definitions = Map::new();
    for kind in &KINDS {
        if let Some(items) = schema.pointer_mut(&format!("/properties/{}/items", kind.name)) {
            let reference = json!({"$ref": format!("#/$defs/{}", kind.name)});
            definitions.insert(kind.name.to_owned(), std::mem::replace(items, reference));
        }
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "$schema".into(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        schema.insert("title".into(), json!("Tollgate's configuration"));
        schema.insert("$defs".into(), definitions.into());
    }
    schema
}
