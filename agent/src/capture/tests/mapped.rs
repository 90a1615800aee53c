//! Files as they lie in the page cache.

use std::fs::File;

use rustix::param::page_size;

use super::{super::window::Window, write::Memory};

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
    drop(cut);
    assert_eq!(open(&files[1]).missing(), None, "a place is given back as it was");
}
