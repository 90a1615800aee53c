//! What one look at the host found.

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is there, and works.
    Ok,
    /// It is not there, or does not work.
    Missing,
    /// It could not be seen.
    Unknown,
}

impl Status {
    /// Its name, in text and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: fixed, since programs read it.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// Whether the main job cannot run without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What does not work without it; empty unless it is missing.
    pub disables: String,
    /// How to get it, or how to see it; empty if all is well.
    pub remedy: String,
}

impl Check {
    /// It is there.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        let (disables, remedy) = (String::new(), String::new());
        Self { name, status: Status::Ok, required: false, found: found.into(), disables, remedy }
    }

    /// It is not there.
    pub(super) fn missing(name: &'static str, found: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::ok(name, found) }
    }

    /// It could not be seen.
    pub(super) fn unknown(name: &'static str, found: impl Into<String>) -> Self {
        Self { status: Status::Unknown, ..Self::ok(name, found) }
    }

    /// The main job cannot run without it.
    #[must_use]
    pub(super) fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// If it is missing: what does not work without it, and how to get it.
    #[must_use]
    pub(super) fn or_else(self, disables: impl Into<String>, remedy: impl Into<String>) -> Self {
        if self.status != Status::Missing {
            return self;
        }
        Self { disables: disables.into(), remedy: remedy.into(), ..self }
    }

    /// If it could not be seen: how to see it.
    #[must_use]
    pub(super) fn seen_by(self, remedy: impl Into<String>) -> Self {
        if self.status != Status::Unknown {
            return self;
        }
        Self { remedy: remedy.into(), ..self }
    }
}
