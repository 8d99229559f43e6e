//! What must never happen.

mod acme;
mod admin_access;
mod admin_socket;
mod audit;
mod connections;
mod floods;
mod forbidden_frames;
mod injection;
mod revoked;
mod scaler_calls;
mod secrets;
mod shown_resources;
mod smuggling;
mod tls;
