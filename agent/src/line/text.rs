//! Where a line is written. Nearly all of it is short: pieces of a few bytes, which are written as blocks of fixed
//! size, a few moves each, where a copy of any length is a call; what goes beyond a piece is overwritten by the next.

use std::fmt;

/// A short text, to be written as a block.
#[derive(Debug)]
pub(super) struct Piece {
    block: [u8; Self::BLOCK],
    len: usize,
}

impl Piece {
    const BLOCK: usize = 32;

    /// A piece shorter than a block, as the fields' names are.
    pub(super) fn new(text: &[u8]) -> Self {
        assert!(text.len() < Self::BLOCK, "too long for a piece");
        let mut block = [0; Self::BLOCK];
        block[..text.len()].copy_from_slice(text);
        Self { block, len: text.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Bytes of the longest number: a float's. Of integers none has more than 20.
pub(super) const LONGEST_NUMBER: usize = 24;

/// Bytes that may be overwritten behind the last one.
pub(super) const SLACK: usize = 2 * Piece::BLOCK;

/// Room for a line.
#[derive(Debug)]
pub(super) struct Room<'a> {
    bytes: &'a mut [u8],
    /// Where the next byte goes. Those behind it mean nothing.
    at: usize,
}

impl<'a> Room<'a> {
    /// Room from the first of these bytes on; there are enough of them.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that are written.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Writes a piece, and behind it an integer.
    #[inline]
    pub(super) fn piece_and_integer(&mut self, piece: &Piece, n: u64) {
        if n < 1000 {
            // Most are: one look at the room for both.
            let space = &mut self.bytes[self.at..self.at + SLACK];
            space[..Piece::BLOCK].copy_from_slice(&piece.block);
            let len = piece.len % Piece::BLOCK;
            let (digits, count) = first_digits(n);
            space[len..len + 4].copy_from_slice(&digits);
            self.at += len + count;
        } else {
            self.piece(piece);
            self.at = long_integer(self.bytes, self.at, n);
        }
    }

    #[inline]
    pub(super) fn piece(&mut self, piece: &Piece) {
        self.block(&piece.block, piece.len);
    }

    /// Writes the first `len` bytes of a block.
    #[inline]
    pub(super) fn block<const N: usize>(&mut self, block: &[u8; N], len: usize) {
        self.bytes[self.at..self.at + N].copy_from_slice(block);
        self.at += len;
    }

    /// Writes bytes of any number.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.block(&[byte], 1);
    }

    /// Writes an integer.
    #[inline]
    pub(super) fn integer(&mut self, n: u64) {
        self.at = long_integer(self.bytes, self.at, n);
    }

    /// Writes a number below 1,000, with zeros in front of it.
    #[inline]
    pub(super) fn three_digits(&mut self, n: u64) {
        self.block(&DIGITS[n as usize % DIGITS.len()].to_le_bytes(), 3);
    }

    /// Writes a finite number: the fewest digits that read back as the same.
    #[inline]
    pub(super) fn float(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "the core makes no other, and JSON has none");
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value).as_bytes();
        match (text.first_chunk::<16>(), text.last_chunk::<8>()) {
            (Some(first), Some(last)) => {
                self.block(first, text.len() - 8);
                self.block(last, 8);
            }
            _ => self.bytes(text),
        }
    }
}

impl fmt::Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// Writes an integer, three digits at a time: a processor that guesses branches does not learn how many digits the
/// next one has. Returns where the next byte goes.
fn long_integer(bytes: &mut [u8], at: usize, n: u64) -> usize {
    if n < 1000 {
        let (digits, count) = first_digits(n);
        bytes[at..at + 4].copy_from_slice(&digits);
        return at + count;
    }
    let at = long_integer(bytes, at, n / 1000);
    bytes[at..at + 4].copy_from_slice(&DIGITS[(n % 1000) as usize].to_le_bytes());
    at + 3
}

/// The digits of a number below 1,000, and how many they are.
#[inline]
fn first_digits(n: u64) -> ([u8; 4], usize) {
    let digits = DIGITS[n as usize % DIGITS.len()];
    let zeros = digits >> 24;
    ((digits >> (8 * zeros)).to_le_bytes(), 3 - zeros as usize)
}

/// The three digits of each number below 1,000, from the lowest byte on, and above them how many are zeros in front.
static DIGITS: [u32; 1000] = {
    let mut table = [0; 1000];
    let mut n = 0;
    while n < 1000 {
        let zeros = match n {
            0..10 => 2,
            10..100 => 1,
            _ => 0,
        };
        let digits = [n / 100, n / 10 % 10, n % 10];
        table[n as usize] =
            (digits[0] + 48) | (digits[1] + 48) << 8 | (digits[2] + 48) << 16 | zeros << 24;
        n += 1;
    }
    table
};

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is written into a room.
    pub(in crate::line) fn written(write: impl FnOnce(&mut Room<'_>)) -> String {
        let mut bytes = [b'?'; 200];
        let mut room = Room::new(&mut bytes);
        write(&mut room);
        let len = room.at();
        str::from_utf8(&bytes[..len]).expect("text").to_owned()
    }

    #[test]
    fn integers_up_to_five_digits() {
        for n in 0..100_000 {
            assert_eq!(written(|room| room.integer(n)), n.to_string());
            let piece = Piece::new(b"\"n\":");
            assert_eq!(written(|room| room.piece_and_integer(&piece, n)), format!("\"n\":{n}"));
        }
    }

    proptest! {
        #[test]
        fn integers_are_as_the_standard_library_writes_them(n: u64, bits in 0..64) {
            let n = n >> bits;
            prop_assert_eq!(written(|room| room.integer(n)), n.to_string());
        }

        #[test]
        fn floats_are_as_json_has_them(value in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let text = written(|room| room.float(value));
            prop_assert!(text.len() <= LONGEST_NUMBER);
            prop_assert_eq!(text, serde_json::to_string(&value).expect("a number"));
        }
    }
}
