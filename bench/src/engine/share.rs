//! The engine's part of an exchange that it shares with another engine: what it fetches first, or holds for the other.

use serde_json::json;

use super::exchange::{Body, Exchange};
use super::fetch::fetch;
use super::handover::{self, Part, Prefill};
use super::peer::{End, Peer};
use super::reply::Refusal;
use super::transfer::{Hold, TransferProtocol};

/// What the engine has to do with others in one exchange.
pub(super) enum Share {
    /// Nothing.
    Nothing,
    /// It holds what it computes, for whoever decodes.
    Holds(Hold, Prefill),
    /// What it would compute was fetched.
    Fetched,
}

impl Exchange<'_> {
    /// Reads what the request asks of an engine that shares requests; fetches, if it is to decode.
    pub(super) async fn share(
        &self,
        peer: &mut Peer<'_>,
        body: &Body,
    ) -> Result<Result<Share, Refusal>, End> {
        let shared = &self.worker.shared;
        let Some(transfers) = &shared.transfers else {
            return Ok(Ok(Share::Nothing));
        };
        let port = shared.address().port();
        let part = match handover::read(&transfers.config, self.request, &body.text, port) {
            Ok(part) => part,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let failed = |message: &str| Refusal {
            status: 500,
            message: message.to_owned(),
            param: None,
        };
        Ok(match part {
            Part::Whole => Ok(Share::Nothing),
            Part::Prefill(mut prefill) => {
                if prefill.ids.is_empty() {
                    prefill
                        .ids
                        .push(format!("kv-{:032x}", self.worker.counters.next_id()));
                }
                match transfers.register(prefill.ids.clone()) {
                    Some(hold) => Ok(Share::Holds(hold, prefill)),
                    None => Err(failed("The id is taken: a real engine crashes here.")),
                }
            }
            Part::Decode(sources) => {
                for source in &sources {
                    if source.is_room && !transfers.meet(&source.id) {
                        return Ok(Err(failed("The id is taken: a real engine crashes here.")));
                    }
                }
                for source in &sources {
                    if peer.until(fetch(source)).await?.is_err() {
                        return Ok(Err(failed(
                            "What was computed elsewhere could not be fetched.",
                        )));
                    }
                }
                Ok(Share::Fetched)
            }
        })
    }

    /// Says in a prefill's answer where what it computed is, if the protocol has that.
    pub(super) fn tell_place(&self, hold: &Hold, prefill: &Prefill, answer: &mut Vec<u8>) {
        let shared = &self.worker.shared;
        let Some(transfers) = shared.transfers.as_ref().filter(|_| prefill.tells) else {
            return;
        };
        let id = hold.ids.first().cloned().unwrap_or_default();
        let address = shared.address();
        let params = match transfers.config.protocol {
            TransferProtocol::Mooncake => json!({
                "do_remote_prefill": true,
                "do_remote_decode": false,
                "transfer_id": id,
                "remote_bootstrap_addr": format!("http://{address}"),
                "remote_engine_id": transfers.engine_at(0),
            }),
            _ => json!({
                "do_remote_prefill": true,
                "do_remote_decode": false,
                "remote_engine_id": transfers.engine_at(0),
                "remote_block_ids": [[1, 2, 3]],
                "remote_host": address.ip().to_string(),
                "remote_port": address.port(),
                "remote_request_id": id,
                "tp_size": 1,
            }),
        };
        const NONE: &[u8] = b"null}";
        if answer.ends_with(NONE) {
            answer.truncate(answer.len() - NONE.len());
            answer.extend_from_slice(params.to_string().as_bytes());
            answer.push(b'}');
        }
    }
}
