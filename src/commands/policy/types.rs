//! `tidegate policy types`: prints the declarations of the SDK for TypeScript.

use crate::commands::print_text;

/// Generated from the SDK's sources; `tests/e2e/types.test.js` compares them.
const DECLARATIONS: &str = include_str!("../../../sdk/typescript/policy.d.ts");

pub fn run() -> anyhow::Result<()> {
    print_text(DECLARATIONS)
}
