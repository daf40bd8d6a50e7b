//! The SDK for [Tidegate](https://github.com/tidegate/tidegate) policies in Rust. A policy decides which clients may read which channels.
//!
//! ```
//! use tidegate_policy::{Grant, Rejection, Request, Result, lookup};
//!
//! tidegate_policy::policy!(authorize);
//!
//! fn authorize(request: &Request, channels: &[String]) -> Result<Grant> {
//!     let sid = request.cookie("session").ok_or(Rejection::unauthorized("Please sign in"))?;
//!     let user = lookup::text(&format!("session:{sid}"))?.ok_or(Rejection::unauthorized("Please sign in"))?;
//!     if channels.iter().any(|channel| channel.starts_with("admin-")) {
//!         return Err(Rejection::forbidden("Admin access required").into());
//!     }
//!     Ok(Grant::to(user))
//! }
//! # fn main() {}
//! ```
//!
//! The same function runs in `cargo test`, against a [`testing::TestGateway`].

pub mod answer;
#[cfg(all(target_family = "wasm", feature = "arena"))]
mod arena;
#[doc(hidden)]
pub mod bindings;
pub mod context;
mod error;
mod grant;
mod host;
pub mod json;
pub mod log;
pub mod lookup;
#[cfg(target_family = "wasm")]
mod panic_log;
#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "random"))]
#[doc(hidden)]
pub mod random;
mod rejection;
mod request;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod tokens;

pub use error::{Error, Result};
pub use grant::Grant;
pub use rejection::Rejection;
pub use request::Request;

/// Exports a function as the policy of this crate.
///
/// The function takes a [`&Request`](Request) and the requested channels, `&[String]`. It returns a `Result` of a [`Grant`] and any
/// error that converts into a [`Rejection`]: [`Error`], or an error type of your own that maps errors to other responses.
#[macro_export]
macro_rules! policy {
    ($authorize:path) => {
        const _: () = {
            struct Policy;

            impl $crate::bindings::exports::tidegate::policy::authorizer::Guest for Policy {
                fn authorize(
                    request: $crate::bindings::tidegate::policy::types::Request,
                    channels: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<
                    $crate::bindings::tidegate::policy::types::Grant,
                    $crate::bindings::tidegate::policy::types::Rejection,
                > {
                    $crate::__decide($authorize, request, &channels)
                }
            }

    $crate::bindings::export!(Policy with_types_in $crate::bindings);
        };
    };
}

/// The function that [`policy!`] calls; not part of the public interface.
#[doc(hidden)]
pub fn __decide<E: Into<Rejection>>(
    authorize: impl FnOnce(&Request, &[String]) -> Result<Grant, E>,
    request: bindings::tidegate::policy::types::Request,
    channels: &[String],
) -> Result<bindings::tidegate::policy::types::Grant, bindings::tidegate::policy::types::Rejection> {
    #[cfg(target_family = "wasm")]
    panic_log::install();
    match authorize(&Request::new(request), channels) {
        Ok(grant) => Ok(grant.answer()),
        Err(error) => Err(error.into().answer()),
    }
}
