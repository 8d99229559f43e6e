//! Requests whose prompts share exactly the bytes that their trace says they share.
//!
//! Each id stands for a fixed text of one block; a prompt is its blocks' texts one after the other, cut to its length.
//! The text needs no escaping in JSON, and nothing that is not meant to repeat does.

use std::net::SocketAddr;

use tollgate_bench::engine::TOKEN_BYTES;
use tollgate_bench::random::Rng;

use crate::trace::{BLOCK, Line};

/// What the engine's chat template puts around the one message: `user`, `assistant` and three line feeds.
const TEMPLATE_BYTES: usize = 16;
const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";

/// The user's message: with the template it has exactly `input_length` tokens.
pub(crate) fn text(line: &Line, out: &mut Vec<u8>) {
    let tokens = usize::try_from(line.input_length).unwrap_or(usize::MAX);
    let length = tokens
        .saturating_mul(TOKEN_BYTES)
        .saturating_sub(TEMPLATE_BYTES);
    let end = out.len().saturating_add(length);
    for id in &line.hash_ids {
        append_block(*id, out);
    }
    out.truncate(end);
}

/// The text of one block.
fn append_block(id: u64, out: &mut Vec<u8>) {
    let end = out.len() + BLOCK as usize * TOKEN_BYTES;
    let mut rng = Rng::new(id.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    while out.len() < end {
        let bits = rng.draw();
        // Ten letters of six bits each.
        out.extend((0..10).map(|k| {
            let letter = (bits >> (6 * k)) as usize & 63;
            ALPHABET.get(letter).copied().unwrap_or(b' ')
        }));
    }
    out.truncate(end);
}

/// The whole request: a streamed chat completion that tells its usage.
pub(crate) fn request(line: &Line, address: SocketAddr, model: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(line.hash_ids.len() * BLOCK as usize * TOKEN_BYTES + 256);
    body.extend_from_slice(
        format!(
            "{{\"model\":\"{model}\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\
             \"max_tokens\":{},\"messages\":[{{\"role\":\"user\",\"content\":\"",
            line.output_length
        )
        .as_bytes(),
    );
    text(line, &mut body);
    body.extend_from_slice(b"\"}]}");
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nUser-Agent: tollgate-replay\r\n\
         Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.append(&mut body);
    request
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn line(input_length: u64, hash_ids: &[u64]) -> Line {
        Line {
            timestamp: 0.0,
            input_length,
            output_length: 5,
            hash_ids: hash_ids.to_vec(),
        }
    }

    fn message(input_length: u64, hash_ids: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        text(&line(input_length, hash_ids), &mut out);
        out
    }

    #[test]
    fn prompts_share_exactly_the_blocks_whose_ids_they_share() {
        let (a, b) = (message(2000, &[0, 1, 2, 3]), message(1500, &[0, 1, 9]));
        let shared = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
        let block = BLOCK as usize * TOKEN_BYTES;
        // A letter of the third block may be the same by chance.
        assert!((2 * block..2 * block + 4).contains(&shared), "{shared}");
        assert_eq!(a, message(2000, &[0, 1, 2, 3]));
        let longer = message(2048, &[0, 1, 2, 3]);
        assert!(longer.starts_with(&a));
    }

    #[test]
    fn with_the_template_a_prompt_has_its_tokens() {
        for tokens in [5, 511, 512, 513, 2000] {
            let ids: Vec<u64> = (0..tokens_in_blocks(tokens)).collect();
            let length = message(tokens, &ids).len() + TEMPLATE_BYTES;
            assert_eq!(length, tokens as usize * TOKEN_BYTES);
        }
        assert!(message(1, &[0]).is_empty());
    }

    fn tokens_in_blocks(tokens: u64) -> u64 {
        tokens.div_ceil(BLOCK)
    }

    #[test]
    fn the_request_is_well_formed_json_of_its_length() {
        let request = request(&line(700, &[4, 5]), "127.0.0.1:80".parse().unwrap(), "m");
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let content = body
            .pointer("/messages/0/content")
            .unwrap()
            .as_str()
            .unwrap();
        assert_eq!(content.len(), 700 * TOKEN_BYTES - TEMPLATE_BYTES);
        assert_eq!(body.get("max_tokens").unwrap(), 5);
    }
}
