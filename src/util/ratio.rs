//! A share of a whole.

use serde::{Deserialize, Serialize};

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl TryFrom<f64> for Ratio {
    type Error = RatioError;

    fn try_from(number: f64) -> Result<Self, RatioError> {
        if (0.0..=1.0).contains(&number) { Ok(Self(number)) } else { Err(RatioError(number)) }
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

/// A number that is not a ratio.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0}: must be from 0 to 1")]
pub struct RatioError(f64);
