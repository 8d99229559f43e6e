//! What an API request asks for, read out of its JSON in one pass and without copying it.
//!
//! Owns the fields the engine acts upon and the prompt's canonical text: the pieces of the request a
//! model would see, each followed by a line feed. Everything else in the body is skipped. How long
//! the prompt is, what it hashes to and which cache blocks it covers all follow from that text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cache::{TOKEN_BYTES, tokens_in};
use super::text::hash;

/// The request body of any of the API paths.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(default)]
    encoding_format: Option<Text<'a>>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instructions: Option<Text<'a>>,
    #[serde(borrow, default)]
    messages: Option<Prompt<'a>>,
    #[serde(borrow, default)]
    prompt: Option<Prompt<'a>>,
    #[serde(borrow, default)]
    input: Option<Prompt<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

impl<'a> Call<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        // A derived struct would also accept a list of its fields' values.
        match body.trim_ascii_start().first() {
            Some(b'[') => Err(de::Error::custom("expected a JSON object")),
            _ => serde_json::from_slice(body),
        }
    }

    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_ref().map(|model| &*model.0)
    }

    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }

    pub(super) fn wants_base64(&self) -> bool {
        self.encoding_format
            .as_ref()
            .is_some_and(|format| format.0 == "base64")
    }

    pub(super) fn max_tokens(&self) -> Option<usize> {
        self.max_completion_tokens
            .or(self.max_tokens)
            .or(self.max_output_tokens)
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Whether the field that holds this path's prompt was there.
    pub(super) fn has_messages(&self) -> bool {
        self.messages.is_some()
    }

    pub(super) fn has_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    pub(super) fn has_input(&self) -> bool {
        self.input.is_some()
    }

    /// How many separate texts `input` holds; at least one.
    pub(super) fn inputs(&self) -> usize {
        self.input.as_ref().map_or(1, |input| input.items.max(1))
    }

    /// The pieces of the canonical text, in the order a chat template puts them.
    fn pieces(&self) -> impl Iterator<Item = &str> {
        let tools = self.tools.map(RawValue::get);
        let instructions = self.instructions.as_ref().map(|text| &*text.0);
        let prompts = [&self.messages, &self.prompt, &self.input];
        let texts = prompts
            .into_iter()
            .flatten()
            .flat_map(|prompt| &prompt.pieces);
        tools
            .into_iter()
            .chain(instructions)
            .chain(texts.map(|text| &*text.0))
    }

    /// Opens the assistant's turn, as a chat template does.
    fn suffix(&self) -> &'static str {
        if self.messages.is_some() {
            "assistant\n"
        } else {
            ""
        }
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        let bytes: usize = self.pieces().map(|piece| piece.len() + 1).sum();
        tokens_in(bytes + self.suffix().len()).max(1)
    }

    /// Stands for the prompt: same model and content, same number.
    pub(super) fn fingerprint(&self, seed: u64) -> u64 {
        let start = hash(seed, self.model().unwrap_or_default().as_bytes());
        self.pieces()
            .fold(start, |state, piece| hash(state, piece.as_bytes()))
    }

    /// The canonical text itself, for the prefix cache.
    pub(super) fn prompt_text(&self) -> String {
        let mut text = String::with_capacity(self.prompt_tokens() * TOKEN_BYTES);
        for piece in self.pieces() {
            text.push_str(piece);
            text.push('\n');
        }
        text.push_str(self.suffix());
        text
    }
}

/// A JSON string, borrowed unless it holds escapes.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Messages, a prompt or an input: a string, token numbers, or a list of strings, token lists,
/// messages and content parts in any nesting the API allows.
#[derive(Debug, Default)]
pub(super) struct Prompt<'a> {
    pieces: Vec<Text<'a>>,
    items: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Prompt<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pieces = Vec::new();
        let items = deserializer.deserialize_any(PieceVisitor {
            pieces: &mut pieces,
        })?;
        Ok(Self { pieces, items })
    }
}

/// Collects the texts of one value; yields how many items it has as a list.
struct PieceVisitor<'v, 'de> {
    pieces: &'v mut Vec<Text<'de>>,
}

impl<'de> de::DeserializeSeed<'de> for PieceVisitor<'_, 'de> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PieceVisitor<'_, 'de> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of tokens, or a list of messages or parts")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<usize, E> {
        self.pieces.push(Text(Cow::Borrowed(text)));
        Ok(1)
    }

    fn visit_str<E>(self, text: &str) -> Result<usize, E> {
        self.pieces.push(Text(Cow::Owned(text.to_owned())));
        Ok(1)
    }

    /// A token number: four bytes with the line feed, so it counts as one token.
    fn visit_u64<E>(self, token: u64) -> Result<usize, E> {
        self.pieces
            .push(Text(Cow::Owned(format!("{:03x}", token & 0xFFF))));
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let mut items = 0;
        while let Some(found) = list.next_element_seed(PieceVisitor {
            pieces: self.pieces,
        })? {
            items += usize::from(found > 0);
        }
        Ok(items.max(1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<usize, A::Error> {
        let start = self.pieces.len();
        while let Some(name) = fields.next_key::<Text<'de>>()? {
            match &*name.0 {
                // First in every chat template, wherever the client wrote it.
                "role" => {
                    let role = fields.next_value()?;
                    self.pieces.insert(start, role);
                }
                "text" | "content" | "output" | "arguments" | "name" => {
                    fields.next_value_seed(PieceVisitor {
                        pieces: self.pieces,
                    })?;
                }
                "image_url" | "input_audio" | "video_url" | "file" | "tool_calls" => {
                    let raw = fields.next_value::<&'de RawValue>()?;
                    self.pieces.push(Text(Cow::Borrowed(raw.get())));
                }
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        Call::read(body.as_bytes()).unwrap().prompt_text()
    }

    #[test]
    fn the_canonical_text_holds_what_a_model_sees() {
        let plain = text(r#"{"messages":[{"role":"user","content":"a\nb"}]}"#);
        assert_eq!(plain, "user\na\nb\nassistant\n");
        let parts = text(
            r#"{"messages":[{"content":[{"type":"text","text":"see"},
               {"type":"image_url","image_url":{"url":"data:x"}}],"role":"user"}],"n":1}"#,
        );
        assert_eq!(parts, "user\nsee\n{\"url\":\"data:x\"}\nassistant\n");
        assert_eq!(text(r#"{"prompt":"hi"}"#), "hi\n");
        assert_eq!(text(r#"{"instructions":"be","input":"hi"}"#), "be\nhi\n");
    }

    #[test]
    fn token_numbers_count_one_each() {
        let body = format!(
            "{{\"prompt\":{:?}}}",
            (0..40).map(|k| k * 997).collect::<Vec<u32>>()
        );
        let call = Call::read(body.as_bytes()).unwrap();
        assert_eq!(call.prompt_tokens(), 40);
    }

    #[test]
    fn inputs_are_counted() {
        let count = |body: &str| Call::read(body.as_bytes()).unwrap().inputs();
        assert_eq!(count(r#"{"input":"one"}"#), 1);
        assert_eq!(count(r#"{"input":["one","two","three"]}"#), 3);
        assert_eq!(count(r#"{"input":[[1,2],[3]]}"#), 2);
        assert_eq!(count(r#"{"input":[1,2,3]}"#), 1);
    }

    #[test]
    fn limits_and_switches() {
        let body = br#"{"model":"m\u0041","max_tokens":5,"max_completion_tokens":3,"stream":true,
            "stream_options":{"include_usage":true,"other":1},"messages":[]}"#;
        let call = Call::read(body).unwrap();
        assert_eq!(call.model(), Some("mA"));
        assert_eq!(call.max_tokens(), Some(3));
        assert!(call.streams() && call.wants_usage() && call.has_messages());
        assert!(Call::read(b"{\"model\":1}").is_err());
        assert!(Call::read(b"[]").is_err());
    }

    #[test]
    fn the_fingerprint_follows_the_content() {
        let print = |body: &str| Call::read(body.as_bytes()).unwrap().fingerprint(1);
        let a = print(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#);
        let same = print(r#"{ "messages" : [{"role":"user","content":"x"}], "model":"m" }"#);
        assert_eq!(a, same);
        assert_ne!(
            a,
            print(r#"{"model":"m","messages":[{"role":"user","content":"y"}]}"#)
        );
        assert_ne!(
            a,
            print(r#"{"model":"n","messages":[{"role":"user","content":"x"}]}"#)
        );
    }
}
