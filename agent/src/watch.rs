//! The links that are watched: which come, which go.

use std::{
    collections::{BTreeMap, VecDeque},
    io::ErrorKind,
    os::fd::AsFd as _,
};

use anyhow::{Context as _, Result, bail};
use tracing::warn;

use crate::{
    interface::Interface,
    netlink::{LinkSocket, Message, RawLink},
    readable::Readable,
};

/// What happened to a watched link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface of a wanted name is there.
    Appeared(Interface),
    /// An interface is there no more, or not under its name.
    Gone {
        /// The name it had.
        name: String,
        /// The index it had.
        index: u32,
    },
}

/// A subscription to the changes of the wanted links.
#[derive(Debug)]
pub struct Watch {
    socket: LinkSocket,
    readable: Readable,
    tracker: Tracker,
    events: VecDeque<LinkEvent>,
}

impl Watch {
    /// Begins to watch, and tells the interfaces of these names, all of which must be there now.
    pub fn start(names: &[String]) -> Result<(Self, Vec<Interface>)> {
        // First the subscription, then the list: nothing happens unseen in between.
        let socket = LinkSocket::subscribed()?;
        let readable = Readable::new(socket.as_fd()).context("cannot wait for link changes")?;
        let interfaces =
            names.iter().map(|name| Interface::find(name)).collect::<Result<Vec<_>>>()?;
        let tracker = Tracker {
            present: interfaces.iter().map(|found| (found.index, found.name.clone())).collect(),
            wanted: names.to_vec(),
        };
        Ok((Self { socket, readable, tracker, events: VecDeque::new() }, interfaces))
    }

    /// Watches other names from now on. Of one that is not there, the next event will be that it is.
    pub fn retarget(&mut self, names: &[String]) -> Result<()> {
        let links = LinkSocket::new()?.list()?;
        self.events.extend(self.tracker.retarget(names, &links));
        Ok(())
    }

    /// The next event. Dropping the future loses none.
    pub async fn next(&mut self) -> Result<LinkEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.socket.receive() {
                Ok(messages) => {
                    self.events.extend(messages.into_iter().flat_map(|m| self.tracker.message(m)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable.ready().await.context("cannot wait for link changes")?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // ENOBUFS: the kernel had more to say than the socket could hold.
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                    let links = LinkSocket::new()?.list()?;
                    self.events.extend(self.tracker.relist(&links));
                }
                Err(error) => bail!("cannot follow the network interfaces: {error}"),
            }
        }
    }
}

const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

/// Which wanted links are there.
#[derive(Debug)]
struct Tracker {
    wanted: Vec<String>,
    /// Index and name.
    present: BTreeMap<u32, String>,
}

impl Tracker {
    fn message(&mut self, message: Message) -> Vec<LinkEvent> {
        match message {
            Message::Link(link) => self.link(&link),
            Message::Gone { index } => self.gone(index).into_iter().collect(),
            Message::Done { .. } | Message::Error(_) => Vec::new(),
        }
    }

    /// Brings the state up to a list of all links.
    fn relist(&mut self, links: &[RawLink]) -> Vec<LinkEvent> {
        let left: Vec<u32> = self
            .present
            .keys()
            .copied()
            .filter(|index| links.iter().all(|link| link.index != *index))
            .collect();
        let mut events: Vec<_> = left.into_iter().filter_map(|index| self.gone(index)).collect();
        events.extend(links.iter().flat_map(|link| self.link(link)));
        events
    }

    /// Other names, and a list of all links.
    fn retarget(&mut self, names: &[String], links: &[RawLink]) -> Vec<LinkEvent> {
        self.wanted = names.to_vec();
        let unwanted: Vec<u32> = self
            .present
            .iter()
            .filter(|(_, name)| !names.contains(name))
            .map(|(index, _)| *index)
            .collect();
        let mut events: Vec<_> =
            unwanted.into_iter().filter_map(|index| self.gone(index)).collect();
        events.extend(self.relist(links));
        events
    }

    /// A link that is there: known, renamed, or new.
    fn link(&mut self, link: &RawLink) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        let known = self.present.get(&link.index);
        if known == Some(&link.name) {
            return events;
        }
        if known.is_some() {
            events.extend(self.gone(link.index));
        }
        if !self.wanted.contains(&link.name) {
            return events;
        }
        // A name has one link at a time: whoever had it has it no more.
        let holder = self.present.iter().find(|(_, name)| **name == link.name);
        if let Some((&index, _)) = holder {
            events.extend(self.gone(index));
        }
        match Interface::from_raw(link) {
            Ok(interface) => {
                self.present.insert(interface.index, interface.name.clone());
                events.push(LinkEvent::Appeared(interface));
            }
            Err(error) => warn!("{error:#}"),
        }
        events
    }

    fn gone(&mut self, index: u32) -> Option<LinkEvent> {
        self.present.remove(&index).map(|name| LinkEvent::Gone { name, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(index: u32, name: &str) -> RawLink {
        RawLink { index, name: name.into(), hardware: 1, mtu: 1500 }
    }

    fn gone(index: u32, name: &str) -> LinkEvent {
        LinkEvent::Gone { index, name: name.into() }
    }

    fn appeared(index: u32, name: &str) -> LinkEvent {
        let interface = Interface::from_raw(&raw(index, name)).expect("supported");
        LinkEvent::Appeared(interface)
    }

    fn tracker() -> Tracker {
        Tracker {
            wanted: ["a", "b"].map(String::from).to_vec(),
            present: [(1, "a".to_owned())].into(),
        }
    }

    #[test]
    fn news_of_a_known_link_are_none() {
        let mut tracker = tracker();
        assert_eq!(tracker.message(Message::Link(raw(1, "a"))), []);
        assert_eq!(tracker.message(Message::Link(raw(9, "other"))), []);
        assert_eq!(tracker.message(Message::Gone { index: 9 }), []);
    }

    #[test]
    fn a_deleted_link_comes_back_under_another_index() {
        let mut tracker = tracker();
        assert_eq!(tracker.message(Message::Gone { index: 1 }), [gone(1, "a")]);
        assert_eq!(tracker.message(Message::Link(raw(5, "a"))), [appeared(5, "a")]);
        // Had the deletion not been seen, the name alone tells it.
        assert_eq!(tracker.message(Message::Link(raw(6, "a"))), [gone(5, "a"), appeared(6, "a")]);
    }

    #[test]
    fn a_renamed_link_is_another() {
        let mut tracker = tracker();
        assert_eq!(tracker.message(Message::Link(raw(1, "x"))), [gone(1, "a")]);
        assert_eq!(tracker.message(Message::Link(raw(1, "b"))), [appeared(1, "b")]);
        assert_eq!(tracker.message(Message::Link(raw(1, "a"))), [gone(1, "b"), appeared(1, "a")]);
    }

    #[test]
    fn a_list_makes_up_for_lost_messages() {
        let mut tracker = tracker();
        assert_eq!(
            tracker.relist(&[raw(7, "b"), raw(8, "c"), raw(9, "a")]),
            [gone(1, "a"), appeared(7, "b"), appeared(9, "a")]
        );
        assert_eq!(
            tracker.relist(&[raw(7, "a"), raw(9, "z")]),
            [gone(7, "b"), gone(9, "a"), appeared(7, "a")]
        );
    }

    #[test]
    fn other_names_are_told_as_links_that_come_and_go() {
        let mut tracker = tracker();
        let names = ["b", "c"].map(String::from);
        assert_eq!(
            tracker.retarget(&names, &[raw(1, "a"), raw(2, "b")]),
            [gone(1, "a"), appeared(2, "b")]
        );
        assert_eq!(tracker.retarget(&names, &[raw(1, "a"), raw(2, "b")]), []);
        assert_eq!(tracker.message(Message::Link(raw(3, "c"))), [appeared(3, "c")]);
        assert_eq!(tracker.message(Message::Link(raw(1, "a"))), []);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error_at_start() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("a runtime").block_on(async {
            let (_, interfaces) = Watch::start(&["lo".into()]).expect("lo is everywhere");
            assert_eq!(interfaces.len(), 1);
            let error = Watch::start(&["lo".into(), "eht0".into()]).expect_err("no such interface");
            assert!(error.to_string().contains("no interface `eht0`"), "{error}");
        });
    }
}
