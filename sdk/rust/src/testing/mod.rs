//! A gateway for tests: a policy runs unchanged in `cargo test`, and a [`TestGateway`] provides the host functions.
//!
//! ```
//! use tidegate_policy::testing::TestGateway;
//! use tidegate_policy::{Grant, Rejection, Request, Result, lookup};
//!
//! fn authorize(request: &Request, _: &[String]) -> Result<Grant> {
//!     let sid = request.cookie("session").ok_or(Rejection::unauthorized("Unauthorized"))?;
//!     let user = lookup::text(&format!("session:{sid}"))?.ok_or(Rejection::unauthorized("Unauthorized"))?;
//!     Ok(Grant::to(user))
//! }
//!
//! let gateway = TestGateway::new().string("session:s1", "alice");
//! let alice = Request::get("/api/realtime").with_cookie("session", "s1");
//! assert_eq!(gateway.decide(authorize, &alice, &["default"]).to_string(), "allowed alice");
//! assert_eq!(gateway.decide(authorize, &Request::get("/"), &["default"]).to_string(), "401 Unauthorized");
//! assert_eq!(gateway.store_unavailable().decide(authorize, &alice, &["default"]).to_string(), "503 Try again");
//! ```

mod decision;
mod gateway;
pub(crate) mod host;
mod request;

pub use decision::Decision;
pub use gateway::TestGateway;

#[cfg(test)]
mod tests;
