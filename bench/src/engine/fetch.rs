//! How an engine that decodes gets what another has computed: by HTTP, from the engine at the address it was told.

use std::io::{Error, ErrorKind, Result};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::handover::Source;

/// Fetches; fails when it is not there, whoever should have it is not, or says no.
pub(super) async fn fetch(source: &Source) -> Result<()> {
    let ask = json!({
        "id": source.id,
        "engine": source.engine,
        "waits": source.waits,
        "computes": source.computes,
    });
    let ask = ask.to_string();
    let host = source.host.trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, source.port)).await?;
    let request = format!(
        "POST /sim/kv HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ask}",
        ask.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::NotFound, "there is nothing to fetch")),
    }
}
