//! The prediction service: forecasts of a guest's next event over HTTP, in the formats of the original Python service.

pub mod forecast;
pub mod server;
