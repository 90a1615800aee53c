//! Names of interfaces, also of those that have gone: their flows speak longer than they last.

use std::collections::BTreeMap;

/// Every interface that was ever watched, by index.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<u32, String>);

impl Names {
    /// An interface is watched from now on.
    pub(super) fn insert(&mut self, index: u32, name: &str) {
        self.0.insert(index, name.to_owned());
    }

    /// The name of an interface; of one that was never watched, its index.
    pub(super) fn of(&mut self, index: u32) -> &str {
        self.0.entry(index).or_insert_with(|| format!("if{index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlasts_its_interface_until_the_index_has_another() {
        let mut names = Names::default();
        names.insert(3, "eth0");
        names.insert(4, "eth1");
        assert_eq!((names.of(3).to_owned(), names.of(4)), ("eth0".to_owned(), "eth1"));
        names.insert(3, "lan0");
        assert_eq!(names.of(3), "lan0");
        assert_eq!(names.of(9), "if9");
        assert_eq!(names.of(9), "if9");
    }
}
