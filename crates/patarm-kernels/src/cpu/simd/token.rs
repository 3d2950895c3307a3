//! Methods of a type whose existence proves that an instruction set is there.

/// Defines a method whose body may use the token's instructions.
macro_rules! with_token {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: the token exists, so the instructions are present; memory
            // is reached through references to whole arrays.
            unsafe { $body }
        }
    )*};
}
