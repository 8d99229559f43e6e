//! What must never happen.

mod admin_access;
mod forbidden_frames;
mod injection;
mod secrets;
mod shown_resources;
mod smuggling;
