//! What the macro makes of a declaration.

use std::time::Duration;

use super::*;
use crate::document;
use crate::secret::Secret;

document! {
    /// Something that is offered.
    /// In two lines.
    struct Offer (checked) {
        /// Its name.
        #[example = "qwen"]
        name: String,
        /// What it speaks.
        #[written = "type"]
        kind: Kind = Kind::Openai,
        /// Its part.
        #[range(0..=1000)]
        weight: u16 = 100,
        /// How long.
        wait: Wait = Wait::default(),
        /// Its key.
        key: Option<Secret<String>>,
        /// Sizes.
        sizes: Vec<Size> = vec![Size::mib(1)],
    }
    later ["queue"]
}

impl Offer {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if self.name.is_empty() {
            r.error(node.span, at, "empty", ());
        }
        self
    }
}

document! {
    /// What is spoken.
    enum Kind ("type") {
        /// OpenAI's.
        Openai = "openai",
        /// Any.
        Http = "http",
    }
    later ["tgi"]
    missing "say what it speaks"
}

document! {
    /// How long to wait.
    struct Wait (default) {
        /// At the beginning.
        first: Duration = Duration::from_secs(120),
        /// Between parts.
        between: Option<Duration>,
    }
}

fn node(value: Value) -> Node {
    Node::new(Span::new(3, 7), value)
}

fn text(text: &str) -> Node {
    node(Value::String(text.into()))
}

fn table<const N: usize>(entries: [(&str, Node); N]) -> Node {
    let key = |text: &str| Key {
        span: Span::default(),
        text: text.into(),
    };
    node(Value::Table(
        entries
            .into_iter()
            .map(|(name, node)| (key(name), node))
            .collect(),
    ))
}

/// What was read, and the problems as `path: message (help)`.
fn read<T: FromNode>(node: &Node) -> (Option<T>, Vec<String>) {
    let no_file = |path: &str| match path {
        "there" => Ok("from a file\n".to_owned()),
        path => Err(format!("there is no file {path}")),
    };
    let mut r = Reading::new(Format::Toml, &no_file);
    let read = T::read(node, &At::ROOT, &mut r);
    let problem = |p: &Problem| {
        let help = p
            .help
            .as_ref()
            .map_or(String::new(), |help| format!(" ({help})"));
        format!("{}: {}{help}", p.path, p.message)
    };
    (read, r.problems.iter().map(problem).collect())
}

#[test]
fn reads_what_is_given_and_defaults_the_rest() {
    let (offer, problems) = read::<Offer>(&table([
        ("name", text("a")),
        ("type", text("http")),
        ("wait", table([("between", text("1500ms"))])),
        ("key", table([("file", text("there"))])),
    ]));
    assert!(problems.is_empty(), "{problems:?}");
    let expected = Offer {
        name: "a".into(),
        kind: Kind::Http,
        weight: 100,
        wait: Wait {
            first: Duration::from_secs(120),
            between: Some(Duration::from_millis(1500)),
        },
        key: Some(Secret::new("from a file".into())),
        sizes: vec![Size(1 << 20)],
    };
    assert_eq!(offer, Some(expected));
}

#[test]
fn reports_everything_at_once() {
    let (offer, problems) = read::<Offer>(&table([
        ("nmae", text("a")),
        ("type", text("tgi")),
        ("weight", node(Value::Int(1001))),
        ("wait", table([("first", node(Value::Int(5)))])),
        ("key", table([("file", text("nowhere"))])),
        (
            "sizes",
            node(Value::List(vec![text("1KB"), text("1 KiB"), text("x")])),
        ),
        ("queue", node(Value::Bool(true))),
    ]));
    assert_eq!(offer, None);
    assert_eq!(
        problems,
        [
            "nmae: unknown field (did you mean \"name\"?)",
            "queue: queue is not supported yet by this version (take it out until a version supports it)",
            "type: \"tgi\" is not supported yet by this version (supported now: \"openai\", \"http\")",
            "weight: 1001 is out of range (from 0 to 1000)",
            "wait.first: expected a duration with its unit, found the number 5 (write the unit: \"5ms\", \"5s\" or \"5m\")",
            "key.file: there is no file nowhere",
            "sizes[2]: \"x\": not a size (write a number with its unit: \"64KiB\", \"32MiB\", \"1GiB\" (or B, KB, MB, GB))",
        ]
    );
}

#[test]
fn says_what_is_missing_and_how_to_add_it() {
    let (_, problems) = read::<Offer>(&table([]));
    assert_eq!(problems, [": missing field `name` (add: name = \"qwen\")"]);
}

#[test]
fn a_reference_may_stand_for_a_number() {
    let given = |text: &str, origin| Node {
        origin,
        ..node(Value::String(text.into()))
    };
    assert_eq!(read::<u16>(&given("7", Origin::Wholly)).0, Some(7));
    assert_eq!(read::<bool>(&given("true", Origin::Wholly)).0, Some(true));
    assert_eq!(read::<f64>(&given("0.5", Origin::Wholly)).0, Some(0.5));
    assert_eq!(read::<u16>(&given("7", Origin::Partly)).0, None);
    let (_, problems) = read::<u16>(&given("hunter2", Origin::Wholly));
    assert!(!problems.concat().contains("hunter2"));
}

#[test]
fn an_empty_secret_counts_as_none_and_no_secret_is_told() {
    assert_eq!(read::<Option<Secret<String>>>(&text("")).0, Some(None));
    let (_, problems) = read::<Secret<String>>(&node(Value::Int(424_242)));
    assert!(!problems.concat().contains("424242"), "{problems:?}");
    let (_, problems) = read::<u16>(&text("http://user:hunter2@host/"));
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn a_word_may_stand_in_a_table() {
    assert_eq!(
        read::<Kind>(&table([("type", text("http"))])).0,
        Some(Kind::Http)
    );
    let (_, problems) = read::<Kind>(&table([("type", text("http")), ("x", text("y"))]));
    assert_eq!(problems, ["x: unknown field (known fields: type)"]);
}

#[test]
fn quantities_are_written_as_they_are_read() {
    for written in ["0s", "1500ms", "30s", "120s", "5m", "90m", "24h", "7d"] {
        assert_eq!(
            Duration::from_text(written).map(|d| d.to_text()).as_deref(),
            Ok(written)
        );
    }
    for written in ["0B", "1000B", "64KiB", "32MiB", "1GiB"] {
        assert_eq!(
            Size::from_text(written).map(|s| s.to_string()).as_deref(),
            Ok(written)
        );
    }
    assert_eq!(Size::from_text("2MB"), Ok(Size(2_000_000)));
    for refused in [
        "",
        "s",
        "5",
        "5x",
        "-5s",
        "1.5s",
        "5s5",
        "20000000000000000000s",
        "18446744073709551615m",
    ] {
        assert!(Duration::from_text(refused).is_err(), "{refused}");
    }
}

#[test]
fn the_schema_says_what_reading_does() {
    let schema = <Offer as FromNode>::schema();
    assert_eq!(
        schema["description"],
        "Something that is offered.\nIn two lines."
    );
    assert_eq!(schema["required"], json!(["name"]));
    assert_eq!(schema["additionalProperties"], false);
    let weight = &schema["properties"]["weight"];
    assert_eq!(weight["default"], 100);
    assert_eq!(
        weight["anyOf"][0],
        json!({"type": "integer", "minimum": 0, "maximum": 1000})
    );
    assert_eq!(
        schema["properties"]["wait"]["default"],
        json!({"first": "120s"})
    );
    assert_eq!(schema["properties"]["type"]["anyOf"][0]["const"], "openai");
    assert!(schema["properties"].get("queue").is_none());
    assert_eq!(<Offer as Document>::later(), ["queue"]);
}

#[test]
fn examples_are_written_in_the_format_at_hand() {
    let value = json!({"by": "header", "n": [1, true]});
    let written =
        [Format::Toml, Format::Yaml, Format::Json].map(|format| format.field("a", &value));
    assert_eq!(
        written,
        [
            "a = { by = \"header\", n = [1, true] }",
            "a: { by: \"header\", n: [1, true] }",
            "\"a\": { \"by\": \"header\", \"n\": [1, true] }",
        ]
    );
    assert_eq!(Format::Toml.field("a b", &json!(1)), "\"a b\" = 1");
}
