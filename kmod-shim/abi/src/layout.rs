//! How a structure is written down once, and read from bytes and written to them without `unsafe`.

/// A field of fixed size, little-endian.
pub trait Field: Sized {
    /// From its bytes, of which there are exactly as many as it has.
    fn read(bytes: &[u8]) -> Self;

    /// Into as many bytes.
    fn write(&self, to: &mut [u8]);
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn write(&self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i32, i64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    fn read(bytes: &[u8]) -> Self {
        let mut own = [T::default(); N];
        for (one, bytes) in own.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
            *one = T::read(bytes);
        }
        own
    }

    fn write(&self, to: &mut [u8]) {
        for (one, to) in self.iter().zip(to.chunks_exact_mut(size_of::<T>())) {
            one.write(to);
        }
    }
}

/// Where a field lies, for the comparison with C.
#[derive(Clone, Copy, Debug)]
pub struct FieldLayout {
    /// Its name, as in C.
    pub name: &'static str,
    /// Bytes from the structure's start.
    pub offset: usize,
    /// Its bytes.
    pub len: usize,
}

/// A structure's layout, for the comparison with C.
#[derive(Clone, Copy, Debug)]
pub struct StructLayout {
    /// Its name in C, behind `struct`.
    pub name: &'static str,
    /// Its bytes.
    pub len: usize,
    /// In order, without holes.
    pub fields: &'static [FieldLayout],
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $c:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        // No padding: the fields fill it.
        const _: () = assert!(0 $(+ size_of::<$type>())* == size_of::<$name>());

        impl $name {
            /// Its bytes.
            pub const LEN: usize = size_of::<Self>();

            /// Where its fields lie.
            pub const LAYOUT: $crate::layout::StructLayout = $crate::layout::StructLayout {
                name: $c,
                len: Self::LEN,
                fields: &[$($crate::layout::FieldLayout {
                    name: stringify!($field),
                    offset: core::mem::offset_of!(Self, $field),
                    len: size_of::<$type>(),
                },)*],
            };

            /// From the first bytes of `bytes`; nothing if there are fewer than [`Self::LEN`].
            #[must_use]
            pub fn read(bytes: &[u8]) -> Option<Self> {
                let bytes = bytes.get(..Self::LEN)?;
                Some(Self {$(
                    $field: {
                        let at = core::mem::offset_of!(Self, $field);
                        <$type as $crate::layout::Field>::read(&bytes[at..at + size_of::<$type>()])
                    },
                )*})
            }

            /// Its bytes, as they lie in the memory.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                let mut bytes = [0; size_of::<Self>()];
                $({
                    let at = core::mem::offset_of!(Self, $field);
                    $crate::layout::Field::write(&self.$field, &mut bytes[at..at + size_of::<$type>()]);
                })*
                bytes
            }
        }
    };
}

/// Constants with their names in C, and the list of them.
macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr, $c:literal;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// Every constant with its name in C, for the comparison.
        pub const CONSTANTS: &[(&str, u64)] = &[$(($c, $name as u64),)*];
    };
}

pub(crate) use {constants, layout};
