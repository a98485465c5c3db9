//! What can go wrong in a simulated network, how often it does, and how often it did.

use std::fmt;

use crate::Random;

/// Something that goes wrong, or that programs do not expect although they have to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A read gives less than there is.
    ShortRead,
    /// A write takes less than there is room for, or nothing.
    ShortWrite,
    /// A source is said to be ready and is not.
    SpuriousReadiness,
    /// A source is said to be ready only a while after it is.
    DelayedReadiness,
    /// Sources that are ready together are reported in any order.
    ShuffledEvents,
    /// A connection is reset after some bytes, for both sides.
    Reset,
    /// A connection ends after some bytes as if the sender had closed it; who writes on is reset.
    Fin,
    /// One direction of a connection ends after some bytes; the other goes on.
    HalfClose,
    /// A direction of a connection stands still for a while.
    Stall,
    /// A connection is refused although somebody listens.
    ConnectRefused,
    /// An attempt to connect is never answered.
    ConnectTimeout,
    /// An attempt to connect succeeds late, perhaps when nobody waits for it any more.
    LateConnect,
    /// The system has no descriptor for a connection that could be accepted.
    AcceptExhausted,
    /// A connection is gone before it is accepted.
    AcceptAborted,
    /// A callback of a protocol panics: see [`Sabotage`](crate::Sabotage).
    CallbackPanic,
    /// Somebody is woken from outside of the loop, late and in any order: see
    /// [`Sim::elsewhere`](crate::Sim::elsewhere).
    ForeignWake,
    /// A wait of the loop is over because of a signal, with nothing; an accept fails for the same reason.
    /// Reads and writes are not concerned: a [`Link`](tulipa_protocols::Link) goes on by itself.
    Interrupted,
    /// The system has no memory to watch a source, or to watch it for something else.
    RegistrationRefused,
    /// A new connection has the source of one that was just closed, as descriptors are used again.
    DescriptorReused,
    /// The system has no buffers for a connection that could be accepted.
    AcceptNoBuffers,
    /// An attempt to connect succeeds when nobody waits for it any more; if somebody waits on, it is only
    /// very late.
    ForgottenConnect,
    /// The clock jumps forward by up to five minutes: the machine was suspended. [`Simulation`](crate::Simulation)
    /// does that, and the faults below.
    ClockJump,
    /// A wait ends, and the clock has not moved.
    ClockStall,
    /// A signal comes, for a loop that listens to some.
    Signal,
    /// A task is cancelled at a poll of a future that was [endangered](crate::Sim::endanger).
    TaskCancelled,
    /// A callback of a protocol also closes, aborts, pauses, resumes or writes: see
    /// [`Sabotage`](crate::Sabotage).
    ReentrantCall,
    /// A job of the executor has ended when the [endangered](crate::Sim::endanger) task that waits for it is
    /// cancelled.
    JobBeforeCancel,
    /// The task is cancelled first; then the job ends, or is not begun any more.
    JobAfterCancel,
    /// A datagram does not arrive.
    DatagramLost,
    /// A datagram arrives twice.
    DatagramDuplicated,
    /// A datagram arrives late, when later ones have.
    DatagramReordered,
    /// An empty datagram arrives in front of one.
    DatagramEmpty,
    /// Of a datagram arrives the beginning only, and it says so.
    DatagramTruncated,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 33] = [
        Fault::ShortRead,
        Fault::ShortWrite,
        Fault::SpuriousReadiness,
        Fault::DelayedReadiness,
        Fault::ShuffledEvents,
        Fault::Reset,
        Fault::Fin,
        Fault::HalfClose,
        Fault::Stall,
        Fault::ConnectRefused,
        Fault::ConnectTimeout,
        Fault::LateConnect,
        Fault::AcceptExhausted,
        Fault::AcceptAborted,
        Fault::CallbackPanic,
        Fault::ForeignWake,
        Fault::Interrupted,
        Fault::RegistrationRefused,
        Fault::DescriptorReused,
        Fault::AcceptNoBuffers,
        Fault::ForgottenConnect,
        Fault::ClockJump,
        Fault::ClockStall,
        Fault::Signal,
        Fault::TaskCancelled,
        Fault::ReentrantCall,
        Fault::JobBeforeCancel,
        Fault::JobAfterCancel,
        Fault::DatagramLost,
        Fault::DatagramDuplicated,
        Fault::DatagramReordered,
        Fault::DatagramEmpty,
        Fault::DatagramTruncated,
    ];

    /// Those of datagrams only.
    pub const DATAGRAM: [Fault; 5] = [
        Fault::DatagramLost,
        Fault::DatagramDuplicated,
        Fault::DatagramReordered,
        Fault::DatagramEmpty,
        Fault::DatagramTruncated,
    ];

    /// Those that break nothing: a program must give the same results with them as without.
    pub const HARMLESS: [Fault; 12] = [
        Fault::ShortRead,
        Fault::ShortWrite,
        Fault::SpuriousReadiness,
        Fault::DelayedReadiness,
        Fault::ShuffledEvents,
        Fault::Stall,
        Fault::LateConnect,
        Fault::ForeignWake,
        Fault::Interrupted,
        Fault::DescriptorReused,
        Fault::ClockStall,
        Fault::Signal,
    ];

    /// How often it happens among many: what comes with each operation often, what ends a connection
    /// seldom.
    fn usual(self) -> u16 {
        match self {
            Fault::ShuffledEvents | Fault::DescriptorReused => 500,
            Fault::ShortRead | Fault::ShortWrite | Fault::ForeignWake | Fault::Interrupted => 200,
            Fault::JobBeforeCancel | Fault::JobAfterCancel => 200,
            Fault::ClockStall | Fault::ForgottenConnect => 100,
            Fault::Reset | Fault::Fin | Fault::HalfClose => 160,
            Fault::SpuriousReadiness | Fault::DelayedReadiness | Fault::LateConnect => 50,
            Fault::Signal | Fault::TaskCancelled => 50,
            Fault::ConnectRefused | Fault::AcceptAborted | Fault::ConnectTimeout => 60,
            Fault::AcceptExhausted | Fault::AcceptNoBuffers => 40,
            Fault::ReentrantCall => 30,
            Fault::Stall | Fault::CallbackPanic | Fault::RegistrationRefused => 10,
            Fault::ClockJump => 5,
            Fault::DatagramLost | Fault::DatagramReordered => 150,
            Fault::DatagramDuplicated | Fault::DatagramEmpty | Fault::DatagramTruncated => 100,
        }
    }
}

/// How often each fault happens when it could: so many times in a thousand.
///
/// ```
/// use tulipa_testing::{Fault, Faults};
///
/// let faults = Faults::none().with(Fault::ShortRead, 500);
/// assert_eq!(faults.per_mille(Fault::ShortRead), 500);
/// assert_eq!(faults.per_mille(Fault::Reset), 0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    per_mille: [u16; Fault::ALL.len()],
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Faults {
        Faults { per_mille: [0; Fault::ALL.len()] }
    }

    /// Every fault, as often as leaves most connections something to do.
    pub fn all() -> Faults {
        Faults::of(&Fault::ALL)
    }

    /// Some faults, as often as [`all`](Self::all) has them.
    pub fn of(faults: &[Fault]) -> Faults {
        faults.iter().fold(Faults::none(), |all, fault| all.with(*fault, fault.usual()))
    }

    /// Sets how often a fault happens.
    pub fn with(mut self, fault: Fault, per_mille: u16) -> Faults {
        self.per_mille[fault as usize] = per_mille;
        self
    }

    /// How often a fault happens.
    pub fn per_mille(&self, fault: Fault) -> u16 {
        self.per_mille[fault as usize]
    }

    /// A random half of these faults, each as often as chance has it, some of them most of the time. Faults hide
    /// each other, so a run with all of them finds less than many runs with some.
    pub(crate) fn swarm(&self, random: &mut Random) -> Faults {
        let mut drawn = Faults::none();
        for fault in Fault::ALL {
            let (wanted, often) = (random.chance(500), random.within(1..=8));
            if wanted {
                let per_mille = u64::from(self.per_mille(fault)) * often / 2;
                drawn.per_mille[fault as usize] = per_mille.min(900) as u16;
            }
        }
        drawn
    }
}

/// How often each fault has happened.
#[derive(Clone, PartialEq, Eq)]
pub struct FaultCounts {
    counts: [u64; Fault::ALL.len()],
}

impl Default for FaultCounts {
    fn default() -> FaultCounts {
        FaultCounts { counts: [0; Fault::ALL.len()] }
    }
}

impl FaultCounts {
    /// How often a fault has happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }

    /// Those that never happened.
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| self.of(*fault) == 0).collect()
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        self.counts[fault as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &FaultCounts) {
        for (own, other) in self.counts.iter_mut().zip(other.counts) {
            *own += other;
        }
    }
}

impl fmt::Debug for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Fault::ALL.iter().map(|fault| (fault, self.of(*fault)))).finish()
    }
}
