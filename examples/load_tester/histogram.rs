//! Durations by how often they occur, in a fixed amount of memory: each power of two is cut into equal parts, so that
//! what is read off is at most 1/256 away from what was recorded. Minimum, maximum and mean are exact.

use std::time::Duration;

/// Each power of two has 2 to this many parts.
const PART_BITS: u32 = 7;
const PARTS: u64 = 1 << PART_BITS;
/// Nanoseconds from here on, some twenty hours, are all the same.
const LARGEST: u64 = (1 << 46) - 1;
/// One for each part, as `LARGEST` has the last place.
const PLACES: usize = place(LARGEST) + 1;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    min: u64,
    max: u64,
}

/// A range of durations and how many are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The range begins where that of the row before ends.
    pub(crate) up_to: Duration,
    pub(crate) count: u64,
}

const fn place(nanos: u64) -> usize {
    let bits = u64::BITS - nanos.leading_zeros();
    let shift = bits.saturating_sub(PART_BITS + 1);
    (shift as u64 * PARTS + (nanos >> shift)) as usize
}

/// The middle of what is counted at a place.
fn middle(place: usize) -> u64 {
    let place = place as u64;
    if place < 2 * PARTS {
        return place;
    }
    let shift = place / PARTS - 1;
    ((place - shift * PARTS) << shift) + (1 << shift) / 2
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        let counts = vec![0; PLACES];
        Histogram { counts, count: 0, sum: Duration::ZERO, min: u64::MAX, max: 0 }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(LARGEST).min(LARGEST);
        self.counts[place(nanos)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(duration);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    pub(crate) fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.sum.div_f64(self.count as f64))
    }

    pub(crate) fn min(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.min))
    }

    pub(crate) fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.max))
    }

    /// The duration that a part of them, from 0 to 1, does not exceed; none if there are none.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = ((part * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        let place = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_nanos(middle(place).clamp(self.min, self.max)))
    }

    /// At most `most` rows from the least to the largest, each wider than the one before by the same factor.
    pub(crate) fn rows(&self, most: u32) -> Vec<Row> {
        let (Some(min), Some(max)) = (self.min(), self.max()) else { return Vec::new() };
        let (first, last) = (min.as_nanos().max(1) as f64, max.as_nanos().max(1) as f64);
        let most = if min == max { 1 } else { most };
        let bound = |number: u32| first * (last / first).powf(f64::from(number) / f64::from(most));
        let mut rows: Vec<Row> = (1..=most)
            .map(|number| Row {
                up_to: Duration::from_nanos(bound(number).round() as u64),
                count: 0,
            })
            .collect();
        let occupied = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        for (place, count) in occupied {
            let nanos = Duration::from_nanos(middle(place).clamp(self.min, self.max));
            let row = rows.iter().position(|row| nanos <= row.up_to).unwrap_or(rows.len() - 1);
            rows[row].count += count;
        }
        rows
    }
}
