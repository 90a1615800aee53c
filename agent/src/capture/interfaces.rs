//! The interfaces of all files, numbered by their names.

use std::collections::HashMap;

/// Names by index. One name is one interface, in whichever files and sections it comes up.
#[derive(Debug)]
pub(super) struct Interfaces {
    names: Vec<String>,
    indices: HashMap<String, u32>,
    nameless: String,
}

impl Interfaces {
    /// `nameless` is what interfaces without a name are called.
    pub(super) fn new(nameless: &str) -> Self {
        Self { names: Vec::new(), indices: HashMap::new(), nameless: nameless.to_owned() }
    }

    /// The index of the interface of this name, from 1 on.
    pub(super) fn named(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.indices.get(name) {
            return index;
        }
        self.names.push(name.to_owned());
        let index = self.names.len() as u32;
        self.indices.insert(name.to_owned(), index);
        index
    }

    /// The index of the interface that has no name and is its section's `id`-th, from 0 on.
    pub(super) fn nameless(&mut self, id: usize) -> u32 {
        let name = match id {
            0 => self.nameless.clone(),
            id => format!("{}{id}", self.nameless),
        };
        self.named(&name)
    }

    /// The name behind an index; empty if there is none.
    pub(super) fn name(&self, index: u32) -> &str {
        let place = (index as usize).wrapping_sub(1);
        self.names.get(place).map_or("", String::as_str)
    }
}
