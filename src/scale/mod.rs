//! Scaling: what is asked of a service decides how many replicas it has, and an actuator starts and ends them.
//!
//! Once a second, for each service that says how: [`reading`] is what its requests left behind, [`signals`] what that comes to over a window, [`decide`] says how many there should be and why,
//! and the actuator brings that about. Replicas become targets of the service's upstream, and leave it, by the road of every change. Requests that wait
//! for the first of them are `proxy/`'s.

mod actuator;
pub mod decide;
mod reading;
mod run;
pub mod signals;

pub use run::Scaling;
