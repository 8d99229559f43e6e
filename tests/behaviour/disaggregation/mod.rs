//! Requests that are split between prefill and decode: every byte of both legs, and the same with engines that are strict about them.

mod flow;
mod legs;
mod parts;
