//! A world for tests: policies run in `cargo test` as they are, and what they ask is answered by a [`World`].
//!
//! ```
//! use tidegate_policy::testing::World;
//! use tidegate_policy::{Grant, Rejection, Request, Result, lookup};
//!
//! fn authorize(request: &Request, _: &[String]) -> Result<Grant> {
//!     let sid = request.cookie("session").ok_or(Rejection::unauthorized("Unauthorized"))?;
//!     let user = lookup::text(&format!("session:{sid}"))?.ok_or(Rejection::unauthorized("Unauthorized"))?;
//!     Ok(Grant::to(user))
//! }
//!
//! let world = World::new().string("session:s1", "alice");
//! let alice = Request::get("/api/realtime").with_cookie("session", "s1");
//! assert_eq!(world.ask(authorize, &alice, &["default"]).to_string(), "allowed alice");
//! assert_eq!(world.ask(authorize, &Request::get("/"), &["default"]).to_string(), "401 Unauthorized");
//! assert_eq!(world.store_away().ask(authorize, &alice, &["default"]).to_string(), "503 Try again");
//! ```

mod answer;
pub(crate) mod host;
mod request;
mod world;

pub use answer::Answer;
pub use world::World;

#[cfg(test)]
mod tests;
