//! Changes to inputs, the same ones from the same seed: what libFuzzer does first, for where it is not.

use crate::random::Random;

/// Longest mutant, in bytes.
const LONGEST: usize = 1 << 16;

/// Values that are next to a limit somewhere.
const LIMITS: [u32; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// Makes mutants.
#[derive(Debug, Clone)]
pub struct Mutator(Random);

impl Mutator {
    /// One that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// One of these inputs, changed in one to four ways.
    pub fn mutant(&mut self, of: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one(of).to_vec();
        for _ in 0..self.0.between(1, 4) {
            self.change(&mut bytes, of);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn one<'a>(&mut self, of: &'a [Vec<u8>]) -> &'a [u8] {
        of.get(self.0.below(of.len() as u64) as usize).map_or(&[], Vec::as_slice)
    }

    fn place(&mut self, bytes: &[u8]) -> usize {
        self.0.below(bytes.len() as u64 + 1) as usize
    }

    /// A piece of at most 64 bytes.
    fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        let start = self.place(bytes);
        let len = (self.0.between(1, 64) as usize).min(bytes.len() - start);
        bytes[start..start + len].to_vec()
    }

    fn change(&mut self, bytes: &mut Vec<u8>, of: &[Vec<u8>]) {
        let place = self.place(bytes);
        match self.0.below(7) {
            0 => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.0.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = self.0.bits() as u8;
                }
            }
            2 => self.overwrite(&mut bytes[place..]),
            3 => bytes.truncate(place),
            4 => {
                let len = self.piece(&bytes[place..]).len();
                bytes.drain(place..place + len);
            }
            5 => {
                let piece = self.piece(bytes);
                bytes.splice(place..place, piece);
            }
            _ => {
                let other = self.one(of);
                let from = self.place(other);
                bytes.truncate(place);
                bytes.extend(&other[from..]);
            }
        }
    }

    /// By a number at a limit, in 1, 2 or 4 bytes of either order.
    fn overwrite(&mut self, bytes: &mut [u8]) {
        let limit = LIMITS[self.0.below(LIMITS.len() as u64) as usize];
        let len = [1, 2, 4][self.0.below(3) as usize].min(bytes.len());
        let mut number = limit.to_le_bytes();
        if self.0.chance(1, 2) {
            number[..len].reverse();
        }
        bytes[..len].copy_from_slice(&number[..len]);
    }
}
