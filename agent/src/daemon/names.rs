//! Names of interfaces, also of those that have gone: their flows speak longer than they last.

/// Index and name of every interface that was watched.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(u32, String)>);

impl Names {
    /// An interface is watched from now on.
    pub(super) fn insert(&mut self, index: u32, name: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == index) {
            Some((_, known)) => name.clone_into(known),
            None => self.0.push((index, name.to_owned())),
        }
    }

    /// The name of an interface; of one that was never watched, its index.
    pub(super) fn of(&mut self, index: u32) -> &str {
        let place = self.0.iter().position(|(known, _)| *known == index);
        let place = place.unwrap_or_else(|| {
            self.0.push((index, format!("if{index}")));
            self.0.len() - 1
        });
        &self.0[place].1
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
