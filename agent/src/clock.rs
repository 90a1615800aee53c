//! From the kernel program's clock to the calendar's.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The offset that lines are finished with.
#[derive(Debug)]
pub struct Clock {
    offset_us: i64,
}

/// The offset follows the wall clock when it is off by more. Below that, following would only add the noise
/// of the measurement to the times of a flow.
const TOLERANCE_US: i64 = 20;
/// A measurement that took longer was interrupted, and is repeated, so often.
const PROMPT_NS: i128 = 2_000;
const ATTEMPTS: usize = 8;

impl Clock {
    /// Measures the offset.
    pub fn new() -> Self {
        Self { offset_us: measure() }
    }

    /// Unix time minus the kernel program's clock, in µs.
    pub fn offset_us(&self) -> i64 {
        self.offset_us
    }

    /// Follows a wall clock that was set, or that ran at another speed; returns by how much, in µs.
    pub fn refresh(&mut self) -> i64 {
        self.follow(measure())
    }

    fn follow(&mut self, measured_us: i64) -> i64 {
        let change = measured_us - self.offset_us;
        if change.abs() <= TOLERANCE_US {
            return 0;
        }
        self.offset_us = measured_us;
        change
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The best of a few measurements.
fn measure() -> i64 {
    let mut best = (i128::MAX, 0);
    for _ in 0..ATTEMPTS {
        let before = nanos(clock_gettime(ClockId::Boottime));
        let unix = nanos(clock_gettime(ClockId::Realtime));
        let after = nanos(clock_gettime(ClockId::Boottime));
        let took = after - before;
        if took < best.0 {
            best = (took, unix - (before + took / 2));
        }
        if took <= PROMPT_NS {
            break;
        }
    }
    best.1.div_euclid(1000) as i64
}

fn nanos(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_offset_leads_to_the_wall_clock() {
        let clock = Clock::new();
        let boot_us = (nanos(clock_gettime(ClockId::Boottime)) / 1000) as i64;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let error = boot_us + clock.offset_us() - unix.as_micros() as i64;
        assert!(error.abs() < 100_000, "{error} µs");
    }

    #[test]
    fn noise_is_not_followed_and_steps_are() {
        let mut clock = Clock { offset_us: 1_000_000 };
        assert_eq!(clock.follow(1_000_000 + TOLERANCE_US), 0);
        assert_eq!(clock.offset_us(), 1_000_000);
        assert_eq!(clock.follow(-500), -1_000_500);
        assert_eq!(clock.offset_us(), -500);
    }
}
