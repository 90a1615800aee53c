//! How the structures that other processes read lie in memory, told by their definitions: see `laid_out!`.

/// What a structure, or a part of one, is made of.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// An unsigned integer of this many bits, in native byte order.
    Integer(u32),
    /// So many of a kind.
    Array(&'static Shape, usize),
    /// Members in order of their offsets, without a gap.
    Struct(&'static [Member]),
}

/// A member of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// What it is made of.
    pub shape: Shape,
    /// What it is for: the lines of its documentation.
    pub what: &'static [&'static str],
}

/// A type that knows its layout.
pub trait Layout {
    /// What it is made of.
    const SHAPE: Shape;
}

impl Shape {
    /// Its size in bytes.
    pub fn size(&self) -> usize {
        match *self {
            Self::Integer(bits) => bits as usize / 8,
            Self::Array(of, count) => of.size() * count,
            Self::Struct(members) => {
                members.last().map_or(0, |last| last.offset + last.shape.size())
            }
        }
    }
}

macro_rules! integers {
    ($($kind:ty)*) => {
        $(impl Layout for $kind {
            const SHAPE: Shape = Shape::Integer(Self::BITS);
        })*
    };
}

integers!(u8 u16 u32 u64);

impl<T: Layout, const N: usize> Layout for [T; N] {
    const SHAPE: Shape = Shape::Array(&T::SHAPE, N);
}

/// Defines a structure, each member with its documentation, and tells its layout.
macro_rules! laid_out {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ $seen:vis $member:ident: $kind:ty,)+
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[doc = $doc])+ $seen $member: $kind,)+
        }

        impl $crate::layout::Layout for $name {
            const SHAPE: $crate::layout::Shape = $crate::layout::Shape::Struct(&[
                $($crate::layout::Member {
                    name: stringify!($member),
                    offset: core::mem::offset_of!($name, $member),
                    shape: <$kind as $crate::layout::Layout>::SHAPE,
                    what: &[$($doc),+],
                },)+
            ]);
        }
    };
}

pub(crate) use laid_out;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entry::Entry, key::FlowKey, record::Record};

    /// Every byte of a structure is some member's.
    fn assert_no_gap(shape: &Shape) {
        match *shape {
            Shape::Integer(_) => {}
            Shape::Array(of, _) => assert_no_gap(of),
            Shape::Struct(members) => {
                let mut end = 0;
                for Member { name, offset, shape, what } in members {
                    assert_eq!(*offset, end, "a gap before {name}");
                    assert!(!what.is_empty());
                    assert_no_gap(shape);
                    end += shape.size();
                }
            }
        }
    }

    #[test]
    fn the_members_are_all_of_a_structure() {
        for (shape, size) in [
            (Entry::SHAPE, size_of::<Entry>()),
            (FlowKey::SHAPE, size_of::<FlowKey>()),
            (Record::SHAPE, size_of::<Record>()),
        ] {
            assert_no_gap(&shape);
            assert_eq!(shape.size(), size);
        }
    }
}
