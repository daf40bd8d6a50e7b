//! Enums whose variants have names in an outward contract.

/// Implements `ALL`, the variants in order, and `as_str`, the name of a variant. A variant without a name does not compile.
macro_rules! named_variants {
    ($type:ident { $($variant:ident => $name:literal,)* }) => {
        impl $type {
            /// All variants, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in metrics, APIs and the log.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

pub(crate) use named_variants;
