//! The access log: one JSON line per exchange, written off the hot path.
//!
//! The proxy renders a line into a buffer and offers it to a bounded queue; one thread writes. When the queue is
//! full the line is dropped and counted (`tollgate_access_log_dropped_total`): a slow disk never slows a request.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;

/// Lines waiting at most: about 4 MiB, some tenths of a second of full load.
const QUEUE: usize = 16_384;

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// The sending end; cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    queue: Option<SyncSender<Vec<u8>>>,
    dropped: IntCounter,
}

/// The writing end, to be run on a thread of its own.
pub struct Writer {
    lines: Receiver<Vec<u8>>,
    out: Box<dyn Write + Send>,
}

impl AccessLog {
    /// Opens the destination. `Writer` is `None` when there is nothing to write.
    pub fn open(to: &Destination, dropped: IntCounter) -> io::Result<(AccessLog, Option<Writer>)> {
        let out: Box<dyn Write + Send> = match to {
            Destination::Off => {
                return Ok((
                    AccessLog {
                        queue: None,
                        dropped,
                    },
                    None,
                ));
            }
            Destination::Stdout => Box::new(BufWriter::with_capacity(1 << 16, io::stdout())),
            Destination::File(path) => Box::new(BufWriter::with_capacity(1 << 16, append(path)?)),
        };
        let (queue, lines) = sync_channel(QUEUE);
        Ok((
            AccessLog {
                queue: Some(queue),
                dropped,
            },
            Some(Writer { lines, out }),
        ))
    }

    /// Whether anybody reads lines: rendering one costs more than a look.
    pub fn on(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands over one line, newline included.
    pub fn write(&self, line: Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(line) {
            self.dropped.inc();
        }
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Writer {
    /// Writes until every sender is gone. Lines reach the file at the latest 200 ms after they came.
    pub fn run(mut self) {
        let mut failing = false;
        loop {
            let result = match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => self.out.write_all(&line),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => self.out.flush(),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            };
            match result {
                Err(error) if !failing => {
                    failing = true;
                    log::error!("the access log cannot be written: {error}");
                }
                Ok(()) => failing = false,
                Err(_) => {}
            }
        }
        let _ = self.out.flush();
    }
}
