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
    /// Room from this place on among these bytes; there are enough of them.
    pub(super) fn new(bytes: &'a mut [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next byte goes.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
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
        self.at = integer(self.bytes, self.at, n);
    }

    /// Writes a number below 256.
    #[inline]
    pub(super) fn octet(&mut self, n: u8) {
        let (digits, count) = few_digits(n.into());
        self.block(&digits, count);
    }

    /// Writes a number in hexadecimal digits, without zeros in front.
    #[inline]
    pub(super) fn hexadecimal(&mut self, n: u16) {
        let digits = [n >> 12, n >> 8, n >> 4, n].map(|n| HEXADECIMAL[usize::from(n & 15)]);
        let zeros = (n | 1).leading_zeros() / 4;
        let text = u32::from_le_bytes(digits) >> (8 * zeros);
        self.block(&text.to_le_bytes(), 4 - zeros as usize);
    }

    /// Writes a number below a million, with zeros in front of it.
    #[inline]
    pub(super) fn six_digits(&mut self, n: u32) {
        let text = (eight_digits(n) | ZEROS) >> 16;
        self.block(&text.to_le_bytes(), 6);
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

/// Writes a piece, and behind it an integer. Returns where the next byte goes: most of a line is written so, and a place
/// in a register is at hand sooner than one in a [`Room`].
#[inline]
pub(super) fn piece_and_integer(bytes: &mut [u8], at: usize, piece: &Piece, n: u64) -> usize {
    let space = &mut bytes[at..at + SLACK];
    space[..Piece::BLOCK].copy_from_slice(&piece.block);
    let len = piece.len % Piece::BLOCK;
    if n < 1000 {
        let (digits, count) = few_digits(n);
        space[len..len + 4].copy_from_slice(&digits);
        at + len + count
    } else {
        integer(bytes, at + len, n)
    }
}

/// Writes an integer. Returns where the next byte goes.
#[inline]
fn integer(bytes: &mut [u8], at: usize, n: u64) -> usize {
    match u32::try_from(n) {
        Ok(n @ ..EIGHT_DIGITS) => {
            let digits = eight_digits(n);
            // All but the last may be zeros in front.
            let zeros = (digits | 1 << 56).trailing_zeros() / 8;
            let text = (digits | ZEROS) >> (8 * zeros);
            bytes[at..at + 8].copy_from_slice(&text.to_le_bytes());
            at + 8 - zeros as usize
        }
        _ => long_integer(bytes, at, n),
    }
}

#[inline(never)]
fn long_integer(bytes: &mut [u8], at: usize, n: u64) -> usize {
    let digits = u64::from(EIGHT_DIGITS);
    let at = integer(bytes, at, n / digits);
    let text = eight_digits((n % digits) as u32) | ZEROS;
    bytes[at..at + 8].copy_from_slice(&text.to_le_bytes());
    at + 8
}

/// The first number with more than eight digits.
const EIGHT_DIGITS: u32 = 100_000_000;

/// What makes text of eight digits.
const ZEROS: u64 = 0x3030_3030_3030_3030;

static HEXADECIMAL: [u8; 16] = *b"0123456789abcdef";

/// The eight digits of a number below [`EIGHT_DIGITS`], the first in the lowest byte. Without a branch: a processor that
/// guesses them does not learn how many digits the next number has.
#[inline]
fn eight_digits(n: u32) -> u64 {
    let n = u64::from(n);
    // Two numbers of four digits, then four of two, then eight of one. Each time one product has all the quotients:
    // 10486 / 2²⁰ and 103 / 2¹⁰ are just above 1 / 100 and 1 / 10.
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (twos - tens * 10) << 8
}

/// The digits of a number below 1,000, and how many they are.
#[inline]
fn few_digits(n: u64) -> ([u8; 4], usize) {
    let digits = FEW_DIGITS[n as usize % FEW_DIGITS.len()].to_le_bytes();
    (digits, digits[3].into())
}

/// The digits of each number below 1,000, from the lowest byte on, and in the fourth how many they are.
static FEW_DIGITS: [u32; 1000] = {
    let mut table = [0; 1000];
    let mut n = 0;
    while n < 1000 {
        let [hundreds, tens, ones] = [n / 100 + 48, n / 10 % 10 + 48, n % 10 + 48];
        table[n as usize] = match n {
            0..10 => ones | 1 << 24,
            10..100 => tens | ones << 8 | 2 << 24,
            _ => hundreds | tens << 8 | ones << 16 | 3 << 24,
        };
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
        let mut room = Room::new(&mut bytes, 0);
        write(&mut room);
        let len = room.at();
        str::from_utf8(&bytes[..len]).expect("text").to_owned()
    }

    #[test]
    fn integers_up_to_five_digits() {
        for n in 0..100_000 {
            assert_eq!(written(|room| room.integer(n)), n.to_string());
            let (piece, mut bytes) = (Piece::new(b"\"n\":"), [b'?'; 200]);
            let end = piece_and_integer(&mut bytes, 7, &piece, n);
            assert_eq!(str::from_utf8(&bytes[7..end]), Ok(format!("\"n\":{n}").as_str()));
        }
    }

    #[test]
    fn octets_and_groups() {
        for n in 0..=u16::MAX {
            assert_eq!(written(|room| room.hexadecimal(n)), format!("{n:x}"));
        }
        for n in 0..=u8::MAX {
            assert_eq!(written(|room| room.octet(n)), n.to_string());
        }
    }

    proptest! {
        #[test]
        fn integers_are_as_the_standard_library_writes_them(n: u64, bits in 0..64) {
            let n = n >> bits;
            prop_assert_eq!(written(|room| room.integer(n)), n.to_string());
        }

        #[test]
        fn seconds_have_six_decimals(micros in 0u32..1_000_000) {
            prop_assert_eq!(written(|room| room.six_digits(micros)), format!("{micros:06}"));
        }

        #[test]
        fn floats_are_as_json_has_them(value in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let text = written(|room| room.float(value));
            prop_assert!(text.len() <= LONGEST_NUMBER);
            prop_assert_eq!(text, serde_json::to_string(&value).expect("a number"));
        }
    }
}
