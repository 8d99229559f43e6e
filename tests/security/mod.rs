//! What must never happen.

mod forbidden_frames;
mod injection;
mod smuggling;
