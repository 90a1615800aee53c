//! Several files as one stream.

use std::{cmp::Ordering, collections::HashSet};

use proptest::prelude::*;

use super::{
    write::{Description, NANOSECONDS, Order, enhanced, pcap_header, pcap_record, section},
    *,
};

/// A file with packets of these times, each of which holds its file's number and its own.
fn file(number: u8, times: &[u32]) -> Vec<u8> {
    let order = Order::Little;
    let mut content = pcap_header(order, NANOSECONDS, 1);
    for (index, time) in times.iter().enumerate() {
        content.extend(pcap_record(order, (0, *time), &[number, index as u8], 2));
    }
    content
}

/// The same by the rule's words: again and again, of the files' next packets the earliest.
fn expected(files: &[Vec<u32>]) -> Vec<Owned> {
    let mut next = vec![0; files.len()];
    let mut packets = Vec::new();
    loop {
        let turns = files
            .iter()
            .enumerate()
            .filter_map(|(file, times)| times.get(next[file]).map(|time| (*time, file)));
        let earliest =
            turns.reduce(|one, two| if two.0.cmp(&one.0) == Ordering::Less { two } else { one });
        let Some((time, file)) = earliest else { return packets };
        packets.push(packet(u64::from(time), &[file as u8, next[file] as u8]));
        next[file] += 1;
    }
}

proptest! {
    #[test]
    fn the_earliest_goes_first(files in prop::collection::vec(prop::collection::vec(0..20_u32, 0..12), 0..6)) {
        let contents: Vec<_> =
            files.iter().enumerate().map(|(number, times)| file(number as u8, times)).collect();
        let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let outcome = read_all(&contents).expect("captures");
        prop_assert_eq!(outcome.errors, []);
        prop_assert_eq!(outcome.packets, expected(&files));
    }
}

#[test]
fn a_broken_file_does_not_stop_the_others() {
    let mut cut = file(0, &[10, 30, 50]);
    cut.pop();
    let whole = file(1, &[20, 40, 60]);
    // Not even its first packet.
    let nothing = &file(2, &[0])[..30];
    let outcome = read_all(&[&cut, &whole, nothing]).expect("captures");
    let order: Vec<_> = outcome.packets.iter().map(|packet| packet.time_ns).collect();
    assert_eq!(order, [10, 20, 30, 40, 60]);
    let places: Vec<_> = outcome.errors.iter().map(|(at, _)| *at).collect();
    assert_eq!(places, [0, 3]);
    let errors: HashSet<_> = outcome.errors.iter().map(|(_, error)| error).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn of_many_files_few_are_open() {
    let times: Vec<Vec<u32>> =
        (0..MANY_FILES as u32 + 9).map(|file| vec![file, file + 3]).collect();
    let files =
        times.iter().enumerate().map(|(number, times)| Memory::new(&file(number as u8, times)));
    let files: Vec<Memory> = files.collect();
    let mut paths: Vec<PathBuf> = files.iter().map(Memory::path).collect();
    let mut captures = Captures::open(&paths, NAMELESS).expect("captures");
    let mut packets = Vec::new();
    while let Some(next) = captures.next_packet() {
        let Packet { time_ns, data, .. } = next.expect("readable");
        packets.push(packet(time_ns, data));
        let open = captures.files.iter().filter(|slot| matches!(slot, Slot::Open(_))).count();
        assert!(open <= 5, "{open} files are open");
    }
    assert_eq!(packets, expected(&times));
    assert_eq!(Some(captures.position()), captures.total());

    let mut captures = Captures::open(&paths, NAMELESS).expect("captures");
    files[7].truncate(10);
    let outcome = drain(&mut captures, 100);
    assert_eq!(outcome.packets.len(), 2 * times.len() - 2);
    let [(_, error)] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
    assert!(error.contains("it has changed since it was opened first: "), "{error}");
    paths.truncate(MANY_FILES);
    paths.remove(7);
    let captures = Captures::open(&paths, NAMELESS).expect("captures");
    assert!(captures.files.iter().all(|slot| matches!(slot, Slot::Open(_))), "not so many");
}

#[test]
fn one_made_shorter_while_it_is_read_does_not_stop_the_others() {
    const COUNT: u32 = 10_000;
    for limit in [1, 5, 64] {
        let times = [0, 1].map(|first| (0..COUNT).map(|step| first + 2 * step).collect::<Vec<_>>());
        let files =
            [0, 1].map(|number: u8| Memory::new(&file(number, &times[usize::from(number)])));
        let paths = files.each_ref().map(Memory::path);
        let mut captures = Captures::open(&paths, NAMELESS).expect("captures");
        let first = captures.next_batch(limit).expect("packets").expect("whole");
        let mut numbers: Vec<u8> = first.map(|packet| packet.data[0]).collect();
        files[0].truncate(24 + 18 * 100);
        let Outcome { packets, errors } = drain(&mut captures, limit);
        numbers.extend(packets.iter().filter_map(|packet| packet.data.first()));
        let of = |number| numbers.iter().filter(|&&of| usize::from(of) == number).count();
        assert_eq!(of(1), COUNT as usize);
        assert_eq!(of(0), 100);
        let [(_, error)] = &errors[..] else { panic!("{limit}: {errors:?}") };
        assert!(error.contains("it was made shorter while it was read"), "{error}");
    }
}

#[test]
fn interfaces_of_one_name_are_one() {
    let order = Order::Big;
    let of = |name| {
        let description = Description { resolution: Some(9), ..Description::ethernet(name) };
        [section(order), description.block(order), enhanced(order, 0, 7, b"", 0)].concat()
    };
    let files = [of("eth0"), of("eth1"), of("eth0"), file(0, &[7]), file(1, &[7])];
    let files: Vec<Memory> = files.iter().map(|content| Memory::new(content)).collect();
    let paths: Vec<PathBuf> = files.iter().map(Memory::path).collect();
    let mut captures = Captures::open(&paths, "eth1").expect("captures");
    let mut next = || captures.next_packet().expect("a packet").expect("readable").interface;
    assert_eq!([next(), next(), next(), next(), next()], [1, 2, 1, 2, 2]);
    assert_eq!((captures.interface_name(1), captures.interface_name(2)), ("eth0", "eth1"));
}
