//! A batch of events as engines send it, in MessagePack: vLLM and those that do as it does.
//!
//! A batch and each event of it are an array, the fields in a fixed order, or a map by their names; fields that come later are passed over, and so are
//! events of other kinds. Hashes are numbers, with or without a sign, or bytes. Nothing here does I/O, and what is claimed to be long costs nothing until it comes.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::balance::{KvBlock, KvEvent, stable_hash};

/// The memory of the device, as engines name it; where they name none it is meant.
const DEVICE: &str = "gpu";

/// What a batch tells of the device's memory.
///
/// # Errors
/// When it is no such batch.
pub(super) fn read(payload: &[u8]) -> Result<Vec<KvEvent>, rmp_serde::decode::Error> {
    let Batch(Events(events)) = rmp_serde::from_slice(payload)?;
    Ok(events)
}

struct Batch(Events);

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Batch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch of events")
            }

            /// Time, events, rank.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Batch, A::Error> {
                let _: Option<IgnoredAny> = list.next_element()?;
                let events = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                events
                    .map(Batch)
                    .ok_or_else(|| de::Error::missing_field("events"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch, A::Error> {
                let mut events = None;
                while let Some(Word(key)) = map.next_key()? {
                    match key.as_str() {
                        "events" => events = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                events
                    .map(Batch)
                    .ok_or_else(|| de::Error::missing_field("events"))
            }
        }
        from.deserialize_any(Reader)
    }
}

struct Events(Vec<KvEvent>);

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Events;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            /// What is passed over takes no room.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Events, A::Error> {
                let mut events = Vec::new();
                while let Some(told) = list.next_element::<Told>()? {
                    events.extend(told.event());
                }
                Ok(Events(events))
            }
        }
        from.deserialize_seq(Reader)
    }
}

/// The fields that matter, of whatever kind of event.
#[derive(Default)]
struct Told {
    kind: String,
    hashes: Vec<Hash>,
    size: Option<u32>,
    medium: Option<String>,
    group: Option<u64>,
}

impl Told {
    /// What it comes to; nothing if it is of another memory, or of layers beside the first group's, which hold the same tokens once more.
    fn event(self) -> Option<KvEvent> {
        let device = self
            .medium
            .is_none_or(|medium| medium.eq_ignore_ascii_case(DEVICE));
        let first = self.group.unwrap_or(0) == 0;
        let hashes = self.hashes.into_iter().map(|Hash(hash)| hash).collect();
        match self.kind.as_str() {
            "AllBlocksCleared" => Some(KvEvent::Cleared),
            "BlockStored" if device && first => Some(KvEvent::Stored(KvBlock {
                hashes,
                size: self.size.unwrap_or(0),
            })),
            "BlockRemoved" if device && first => Some(KvEvent::Removed(hashes)),
            _ => None,
        }
    }

    /// The fields that follow the kind in an array.
    fn read_list<'de, A: SeqAccess<'de>>(&mut self, list: &mut A) -> Result<(), A::Error> {
        let names: &[&str] = match self.kind.as_str() {
            "BlockStored" => &[
                "block_hashes",
                "parent_block_hash",
                "token_ids",
                "block_size",
                "lora_id",
                "medium",
                "lora_name",
                "extra_keys",
                "group_idx",
            ],
            "BlockRemoved" => &["block_hashes", "medium", "group_idx"],
            _ => &[],
        };
        for name in names {
            let there = match *name {
                "block_hashes" => list.next_element()?.map(|hashes| self.hashes = hashes),
                "block_size" => list.next_element()?.map(|size| self.size = size),
                "medium" => list
                    .next_element::<Option<Word>>()?
                    .map(|m| self.set_medium(m)),
                "group_idx" => list.next_element()?.map(|group| self.group = group),
                _ => list.next_element::<IgnoredAny>()?.map(drop),
            };
            if there.is_none() {
                return Ok(());
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn set_medium(&mut self, medium: Option<Word>) {
        self.medium = medium.map(|Word(medium)| medium);
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Told;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Told, A::Error> {
                let kind = list.next_element()?;
                let Word(kind) = kind.ok_or_else(|| de::Error::missing_field("type"))?;
                let mut told = Told {
                    kind,
                    ..Told::default()
                };
                told.read_list(&mut list)?;
                Ok(told)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Told, A::Error> {
                let mut told = Told::default();
                while let Some(Word(key)) = map.next_key()? {
                    match key.as_str() {
                        "type" => Word(told.kind) = map.next_value()?,
                        "block_hashes" => told.hashes = map.next_value()?,
                        "block_size" => told.size = map.next_value()?,
                        "medium" => told.set_medium(map.next_value()?),
                        "group_idx" => told.group = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(told)
            }
        }
        from.deserialize_any(Reader)
    }
}

/// A text; some write it as bytes.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Word, E> {
                Ok(Word(word.to_owned()))
            }

            fn visit_bytes<E: de::Error>(self, word: &[u8]) -> Result<Word, E> {
                Ok(Word(String::from_utf8_lossy(word).into_owned()))
            }
        }
        from.deserialize_any(Reader)
    }
}

/// What an engine calls a block by: a number as it is, anything longer by a hash of it.
struct Hash(u64);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block's hash")
            }

            fn visit_u64<E: de::Error>(self, hash: u64) -> Result<Hash, E> {
                Ok(Hash(hash))
            }

            fn visit_i64<E: de::Error>(self, hash: i64) -> Result<Hash, E> {
                Ok(Hash(hash.cast_unsigned()))
            }

            fn visit_bytes<E: de::Error>(self, hash: &[u8]) -> Result<Hash, E> {
                Ok(Hash(stable_hash(hash)))
            }

            fn visit_str<E: de::Error>(self, hash: &str) -> Result<Hash, E> {
                self.visit_bytes(hash.as_bytes())
            }
        }
        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests;
