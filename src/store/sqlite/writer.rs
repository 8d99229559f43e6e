//! The thread that writes.
//!
//! It does jobs as they come, writes records in batches, and deletes old things little by little. A batch that cannot be written stays in
//! hand and is tried again, after longer and longer pauses, while further records wait in the buffer.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::UsageRecord;
use super::super::buffer::Buffer;
use super::super::models::Models;
use super::batch::Batch;
use super::file::File;
use super::write;

/// The first and the longest pause after a write that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often old things are looked for.
const UPKEEP: Duration = Duration::from_hours(1);
/// What is between two small deletions: a third of the time is others'.
const BETWEEN: Duration = Duration::from_millis(20);

pub(super) struct Writer {
    file: File,
    buffer: Arc<Buffer<File>>,
    models: Models,
    batch: Batch,
    /// What is being written, or could not be.
    hand: Vec<UsageRecord>,
    pause: Duration,
    retry: Option<Instant>,
    upkeep: Instant,
}

impl Writer {
    pub(super) fn new(file: File, buffer: Arc<Buffer<File>>) -> Self {
        Self {
            models: Models::new(file.options.models),
            batch: Batch::default(),
            file,
            buffer,
            hand: Vec::new(),
            pause: PAUSES.0,
            retry: None,
            upkeep: Instant::now(),
        }
    }

    /// Works until the buffer is closed.
    pub(super) fn run(mut self) {
        loop {
            let work = self.buffer.next(self.retry, self.upkeep);
            for job in work.jobs {
                job(&mut self.file);
            }
            if !work.records.is_empty() {
                self.hand = work.records;
            }
            let written = !work.write || self.write();
            if work.closing && (!written || self.buffer.open() == 0) {
                break;
            }
            if self.upkeep <= Instant::now() {
                self.delete_old();
            }
        }
        let lost = self.buffer.open();
        if lost > 0 {
            log::error!("the store ends with {lost} usage records that could not be written");
        }
    }

    /// Writes what is in hand; whether that worked.
    fn write(&mut self) -> bool {
        if self.hand.is_empty() {
            return true;
        }
        let result = self.file.transact(false, |transaction| {
            write::batch(transaction, &mut self.batch, &mut self.models, &self.hand)
        });
        match result {
            Ok(()) => {
                let count = self.hand.len();
                self.hand.clear();
                if self.retry.take().is_some() {
                    log::info!("usage is written again");
                }
                self.pause = PAUSES.0;
                self.buffer.settled(count, std::mem::take(&mut self.hand));
                true
            }
            Err(error) => {
                self.retry = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(PAUSES.1);
                if self.buffer.failed(error.clone()) {
                    log::error!("usage cannot be written and waits: {error}");
                }
                false
            }
        }
    }

    fn delete_old(&mut self) {
        let now = SystemTime::now();
        let (records, rollups) = (
            self.file.options.keep_records,
            self.file.options.keep_rollups,
        );
        let more = self.file.transact(false, |transaction| {
            write::delete_old(transaction, now, records, rollups)
        });
        // A file that cannot be written has been reported by then.
        let pause = match more {
            Ok(true) => BETWEEN,
            Ok(false) | Err(_) => UPKEEP,
        };
        self.upkeep = Instant::now() + pause;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also after a panic: callers must not wait for nobody.
        self.buffer.end();
    }
}
