//! gzip (RFC 1952): any number of members, one after the other.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::{corrupt, cut_off};

/// log2 of deflate's greatest window.
const WINDOW_BITS: u8 = 15;
/// The first byte of a member.
const MEMBER: u8 = 0x1f;

/// Decompresses. Unlike flate2's own reader it gives out all that was decompressed before a fault, and takes zeros
/// behind the last member for padding, as gzip does.
#[derive(Debug)]
pub(in super::super) struct Gzip<R> {
    source: R,
    /// `None` between members.
    member: Option<Decompress>,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, member: Some(Decompress::new_gzip(WINDOW_BITS)) }
    }

    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Begins the next member; false if there is none.
    fn next_member(&mut self) -> io::Result<bool> {
        loop {
            let input = self.source.fill_buf()?;
            let zeros = input.iter().take_while(|&&byte| byte == 0).count();
            match input.get(zeros) {
                Some(&MEMBER) => {
                    self.source.consume(zeros);
                    self.member = Some(Decompress::new_gzip(WINDOW_BITS));
                    return Ok(true);
                }
                Some(_) => return Err(corrupt("gzip", "something else follows it")),
                None if zeros == 0 => return Ok(false),
                None => self.source.consume(zeros),
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else {
                if self.next_member()? {
                    continue;
                }
                return Ok(0);
            };
            let input = self.source.fill_buf()?;
            let at_end = input.is_empty();
            let (taken, given) = (member.total_in(), member.total_out());
            let result = member.decompress(input, target, FlushDecompress::None);
            let taken = (member.total_in() - taken) as usize;
            let given = (member.total_out() - given) as usize;
            if matches!(result, Ok(Status::StreamEnd)) {
                self.member = None;
            }
            self.source.consume(taken);
            match result {
                // After a fault the next call finds it again, and gives nothing.
                _ if given > 0 => return Ok(given),
                Ok(Status::StreamEnd) => {}
                Ok(_) if at_end => return Err(cut_off("gzip")),
                Ok(_) if taken > 0 => {}
                Ok(_) => return Err(corrupt("gzip", "it does not go on")),
                Err(error) => {
                    return Err(corrupt("gzip", error.message().unwrap_or("no deflate data")));
                }
            }
        }
    }
}
