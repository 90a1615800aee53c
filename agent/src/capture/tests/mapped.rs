//! Files as they lie in the page cache.

use std::fs::File;

use rustix::param::page_size;

use super::{
    super::{
        buffer::Buffer,
        compression::{Input, Stream},
        window::Window,
    },
    write::Memory,
};

#[test]
fn a_missing_page_is_of_zeros_and_told_by_its_window_alone() {
    let page = page_size();
    let files = [(); 2].map(|()| Memory::new(&vec![7; 4 * page]));
    let open = |file: &Memory| {
        let file = File::open(file.path()).expect("opened");
        Window::open(&file, page as u64, 3 * page - 9).expect("mapped")
    };
    let [cut, whole] = [open(&files[0]), open(&files[1])];
    assert_eq!((cut[2 * page], cut.missing()), (7, None));
    files[0].truncate(2 * page as u64);
    assert_eq!((cut[page - 1], cut.missing()), (7, None), "what is there is there");
    assert_eq!((cut[2 * page + 5], cut.missing()), (0, Some(2 * page)));
    assert_eq!((cut[page], cut.missing()), (0, Some(page)), "the first that is missing");
    assert_eq!((whole[2 * page], whole.missing()), (7, None));
}

const FIRST: usize = 64 << 10;

/// A buffer over a file, the first bytes of which are mapped.
fn buffer(file: &Memory) -> Buffer {
    let file = File::open(file.path()).expect("opened");
    let mut buffer = Buffer::new(Stream::new(Input::File(file)).expect("readable"));
    assert!(buffer.is_mapped() && buffer.fill(FIRST).expect("there"));
    assert!(buffer.loss().is_none(), "nothing is wrong");
    buffer
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_and_no_end() {
    let file = Memory::new(&vec![7; 2 * FIRST]);
    let mut buffer = buffer(&file);
    // A file that is as long as ever, one page of which did not come when it was asked for.
    file.truncate(0);
    assert_eq!(buffer.data()[FIRST / 2], 0);
    file.truncate(2 * FIRST as u64);
    let (place, error) = buffer.loss().expect("a loss");
    assert_eq!((place, error.raw_os_error()), (FIRST / 2, Some(5)), "EIO");
    buffer.consume(FIRST);
    assert_eq!(buffer.fill(1).expect_err("no more of it").raw_os_error(), Some(5));
}

#[test]
fn a_file_cut_behind_what_is_mapped_does_not_just_end() {
    let file = Memory::new(&vec![7; 2 * FIRST]);
    let mut buffer = buffer(&file);
    file.truncate(FIRST as u64);
    let (place, error) = buffer.loss().expect("a loss");
    assert_eq!((place, error.to_string()), (FIRST, "it was made shorter while it was read".into()));
    buffer.consume(FIRST);
    assert!(buffer.fill(1).is_err());
}

#[test]
fn a_file_that_grows_is_read_to_its_end() {
    let file = Memory::new(&vec![7; FIRST]);
    let mut buffer = buffer(&file);
    buffer.consume(FIRST);
    assert!(!buffer.fill(1).expect("an end"));
    file.truncate(FIRST as u64 + 9);
    assert!(buffer.fill(9).expect("more"));
    assert_eq!((buffer.data(), buffer.offset()), (&[0; 9][..], FIRST as u64));
}
