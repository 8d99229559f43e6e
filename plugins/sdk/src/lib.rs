//! .

pub mod document;
pub mod llm;
pub mod secret;
