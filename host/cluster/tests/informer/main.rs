//! Informers against a real API server, with everything that goes wrong between the two.

mod crd;
mod events;
mod faults;
mod rights;
mod sharing;
mod stage;
