//! When to try again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The delays of the talk "Asyncio in production": 1, 2, 4, 8, 30, 60 seconds.
const USUAL: [u64; 6] = [1, 2, 4, 8, 30, 60];

/// How long to wait before trying again, for whatever may fail: a list of delays, or delays that grow.
///
/// The delays begin anew when what was tried has worked for long enough: for more than twice the last delay, unless
/// it is [said otherwise](Self::reset_after).
///
/// ```
/// use std::time::Duration;
/// use tulipa_protocols::RetryPolicy;
///
/// let mut retries = RetryPolicy::fixed([1, 5].map(Duration::from_secs)).retries();
/// assert_eq!(retries.next_delay(), Some(Duration::from_secs(1)));
/// assert_eq!(retries.next_delay(), Some(Duration::from_secs(5)));
/// assert_eq!(retries.next_delay(), Some(Duration::from_secs(5)));
/// retries.worked_for(Duration::from_secs(11));
/// assert_eq!(retries.next_delay(), Some(Duration::from_secs(1)));
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    delays: Delays,
    jitter: f64,
    seed: Option<u64>,
    reset_after: Option<Duration>,
    most: Option<u32>,
}

#[derive(Clone, Debug)]
enum Delays {
    Fixed(Vec<Duration>),
    Exponential { first: Duration, most: Duration, factor: f64 },
}

impl RetryPolicy {
    fn with(delays: Delays) -> RetryPolicy {
        RetryPolicy { delays, jitter: 0.0, seed: None, reset_after: None, most: None }
    }

    /// These delays, one after the other, the last of them again and again.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn fixed(delays: impl IntoIterator<Item = Duration>) -> RetryPolicy {
        let delays = Vec::from_iter(delays);
        assert!(!delays.is_empty(), "there must be a delay");
        RetryPolicy::with(Delays::Fixed(delays))
    }

    /// Delays that double, from the first to the longest.
    pub fn exponential(first: Duration, longest: Duration) -> RetryPolicy {
        RetryPolicy::with(Delays::Exponential { first, most: longest, factor: 2.0 })
    }

    /// Delays grow by this factor instead. It changes nothing of a list.
    ///
    /// # Panics
    /// If it is below 1, or no number.
    #[track_caller]
    #[must_use = "it gives the policy back"]
    pub fn factor(mut self, growth: f64) -> RetryPolicy {
        assert!(growth >= 1.0 && growth.is_finite(), "delays do not shrink");
        if let Delays::Exponential { factor, .. } = &mut self.delays {
            *factor = growth;
        }
        self
    }

    /// Each delay is longer or shorter by up to this part of it, at random: 0.1 is up to a tenth. So clients that
    /// have lost a server together do not all come back together.
    ///
    /// # Panics
    /// If it is not between 0 and 1.
    #[track_caller]
    #[must_use = "it gives the policy back"]
    pub fn jitter(mut self, part: f64) -> RetryPolicy {
        assert!((0.0..=1.0).contains(&part), "a part is between 0 and 1");
        self.jitter = part;
        self
    }

    /// The jitter comes from this seed: the same delays each time, for tests.
    #[must_use = "it gives the policy back"]
    pub fn seed(mut self, seed: u64) -> RetryPolicy {
        self.seed = Some(seed);
        self
    }

    /// The delays begin anew after this has worked for longer than so.
    #[must_use = "it gives the policy back"]
    pub fn reset_after(mut self, duration: Duration) -> RetryPolicy {
        self.reset_after = Some(duration);
        self
    }

    /// It is tried again so often at most in a row; without it, for ever.
    #[must_use = "it gives the policy back"]
    pub fn max_retries(mut self, most: u32) -> RetryPolicy {
        self.most = Some(most);
        self
    }

    /// The delays, from the first one.
    pub fn retries(&self) -> Retries {
        let seed = self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Retries { policy: self.clone(), count: 0, last: Duration::ZERO, state: seed }
    }
}

/// Those of the talk: 1, 2, 4, 8, 30, 60 seconds.
impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy::fixed(USUAL.map(Duration::from_secs))
    }
}

/// The delays of a [`RetryPolicy`], as they are used up.
#[derive(Clone, Debug)]
pub struct Retries {
    policy: RetryPolicy,
    /// How many were used.
    count: u32,
    last: Duration,
    /// Of the random numbers.
    state: u64,
}

impl Retries {
    /// The next delay; `None` if it is not to be tried again.
    pub fn next_delay(&mut self) -> Option<Duration> {
        if self.policy.most.is_some_and(|most| self.count >= most) {
            return None;
        }
        let plain = match &self.policy.delays {
            Delays::Fixed(delays) => delays[(self.count as usize).min(delays.len() - 1)],
            Delays::Exponential { first, most, factor } => {
                let grown = first.as_secs_f64() * factor.powf(f64::from(self.count));
                Duration::try_from_secs_f64(grown).unwrap_or(*most).min(*most)
            }
        };
        self.count = self.count.saturating_add(1);
        // Without the jitter, so that the rule for beginning anew does not depend on luck.
        self.last = plain;
        Some(self.shaken(plain))
    }

    fn shaken(&mut self, delay: Duration) -> Duration {
        if self.policy.jitter == 0.0 {
            return delay;
        }
        // 53 bits are what a float holds.
        let random = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        let factor = 1.0 + self.policy.jitter * (2.0 * random - 1.0);
        Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(delay)
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// What was tried has worked for so long: the delays begin anew if that was long enough.
    pub fn worked_for(&mut self, duration: Duration) {
        let enough = self.policy.reset_after.unwrap_or_else(|| self.last.saturating_mul(2));
        if duration > enough {
            self.reset();
        }
    }

    /// The delays begin anew.
    pub fn reset(&mut self) {
        (self.count, self.last) = (0, Duration::ZERO);
    }

    /// How often it was tried again in a row.
    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(retries: &mut Retries, count: usize) -> Vec<u64> {
        (0..count).map_while(|_| retries.next_delay()).map(|delay| delay.as_secs()).collect()
    }

    #[test]
    fn the_usual_delays_are_those_of_the_talk() {
        let mut retries = RetryPolicy::default().retries();
        assert_eq!(seconds(&mut retries, 8), [1, 2, 4, 8, 30, 60, 60, 60]);
        retries.worked_for(Duration::from_secs(120));
        assert_eq!(seconds(&mut retries, 1), [60], "it was not more than twice as long");
        retries.worked_for(Duration::from_secs(121));
        assert_eq!(seconds(&mut retries, 2), [1, 2]);
    }

    #[test]
    fn exponential_delays_grow_to_the_longest_and_never_overflow() {
        let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(seconds(&mut policy.retries(), 5), [1, 2, 4, 8, 16]);
        let mut retries = policy.factor(10.0).retries();
        assert_eq!(seconds(&mut retries, 6), [1, 10, 100, 1000, 3600, 3600]);
        retries.count = u32::MAX;
        assert_eq!(seconds(&mut retries, 1), [3600]);
        assert_eq!(retries.count(), u32::MAX);
    }

    #[test]
    fn jitter_stays_within_its_part_and_comes_from_its_seed() {
        let policy = RetryPolicy::fixed([Duration::from_secs(10)]).jitter(0.1);
        let draw = |seed| -> Vec<Duration> {
            let mut retries = policy.clone().seed(seed).retries();
            (0..1000).filter_map(|_| retries.next_delay()).collect()
        };
        let delays = draw(1);
        assert_eq!(delays, draw(1));
        assert_ne!(delays, draw(2));
        let range = Duration::from_secs(9)..=Duration::from_secs(11);
        assert!(delays.iter().all(|delay| range.contains(delay)));
        let short = delays.iter().filter(|delay| delay.as_secs() < 10).count();
        assert!((400..600).contains(&short), "{short} of 1000 are shorter");
    }

    #[test]
    fn a_limited_number_of_retries_is_that_of_a_row() {
        let mut retries = RetryPolicy::default().max_retries(2).retries();
        assert_eq!(seconds(&mut retries, 5), [1, 2]);
        retries.worked_for(Duration::from_secs(5));
        assert_eq!(seconds(&mut retries, 5), [1, 2]);
        let mut never = RetryPolicy::default().max_retries(0).retries();
        assert_eq!(never.next_delay(), None);
        let mut sooner = RetryPolicy::default().reset_after(Duration::ZERO).retries();
        assert_eq!(seconds(&mut sooner, 3), [1, 2, 4]);
        sooner.worked_for(Duration::from_nanos(1));
        assert_eq!(seconds(&mut sooner, 1), [1]);
    }
}
