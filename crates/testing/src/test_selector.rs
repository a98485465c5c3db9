//! Real descriptors and pretended ones in one loop.
//!
//! Every registration is in a table here. That of a descriptor holds the registration that the real selector has
//! of it, whose data is the number of the entry; so an event of the real selector says which entry it is for.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Instant;

use tulipa_selector::{
    Event, Events, Interest, Key, Notifier, Readiness, Registration, Registry, Selector, Slots,
    Source, Timeout, Token, VirtualId,
};

/// A selector that passes descriptors on to a real one, and has sources of its own that are ready when the
/// test says so. Stands for asynctest's `TestSelector`.
///
/// For tests of programs that need real time or real sockets. Where everything can be simulated,
/// [`VirtualLoop`](crate::VirtualLoop) is simpler.
///
/// ```
/// use tulipa_selector::{DefaultSelector, Events, Interest, Selector, Timeout};
/// use tulipa_testing::TestSelector;
///
/// let selector = TestSelector::wrap(DefaultSelector::new()?);
/// let mocks = selector.mocks();
/// let source = mocks.new_source();
/// let _registration = selector.register(source.into(), Interest::READABLE, 7)?;
/// mocks.set_read_ready(source);
/// let mut events = Events::new();
/// selector.select(&mut events, Timeout::Never)?;
/// assert_eq!(events.iter().next().unwrap().data(), 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TestSelector {
    real: Box<dyn Selector>,
    table: Rc<Table>,
    /// What the real selector reports into.
    events: RefCell<Events>,
}

/// What makes the pretended sources of a [`TestSelector`] ready. Clones are the same.
#[derive(Clone, Debug)]
pub struct Mocks {
    table: Rc<Table>,
}

#[derive(Default)]
struct Table {
    entries: RefCell<Slots<Entry>>,
    /// What is to be reported next, once.
    ready: RefCell<Vec<(VirtualId, Readiness)>>,
    created: RefCell<u64>,
}

struct Entry {
    source: Source,
    interest: Interest,
    data: u64,
    /// `None` for what is pretended.
    real: Option<Rc<Registration>>,
}

impl TestSelector {
    /// A selector around a real one.
    pub fn wrap(real: impl Selector + 'static) -> TestSelector {
        TestSelector { real: Box::new(real), table: Rc::default(), events: RefCell::default() }
    }

    /// What makes its pretended sources ready.
    pub fn mocks(&self) -> Mocks {
        Mocks { table: self.table.clone() }
    }

    fn report(&self, events: &mut Events, real: &Events) {
        events.begin(&self.table);
        for event in real.iter() {
            events.push(Token::from_bits(event.data()), readiness(&event));
        }
        if real.is_notified() {
            events.set_notified();
        }
        for (token, readiness) in self.table.take_ready() {
            events.push(token, readiness);
        }
    }
}

fn readiness(event: &Event) -> Readiness {
    let mut all = Readiness::from(event.ready());
    if event.is_hangup() {
        all |= Readiness::HANGUP;
    }
    if event.is_error() {
        all |= Readiness::ERROR;
    }
    all
}

impl Mocks {
    /// A new source, which is ready for nothing. Stands for asynctest's `FileMock`.
    #[doc(alias = "FileMock")]
    pub fn new_source(&self) -> VirtualId {
        let created = *self.table.created.borrow() + 1;
        self.table.created.replace(created);
        VirtualId(created)
    }

    /// A source is readable, once: at the next iteration of the loop in which somebody waits for that.
    pub fn set_read_ready(&self, source: VirtualId) {
        self.table.ready.borrow_mut().push((source, Readiness::READABLE));
    }

    /// A source is writable, once: at the next iteration of the loop in which somebody waits for that.
    pub fn set_write_ready(&self, source: VirtualId) {
        self.table.ready.borrow_mut().push((source, Readiness::WRITABLE));
    }
}

impl Table {
    /// Who is to hear of what is ready now.
    fn wanted(&self) -> Vec<(usize, Token, Readiness)> {
        let (entries, ready) = (self.entries.borrow(), self.ready.borrow());
        let find = |(place, (id, readiness)): (usize, &(VirtualId, Readiness))| {
            let mut all = entries.iter();
            let found = all.find(|(_, entry)| entry.source.virtual_id() == Some(*id));
            let (token, entry) = found?;
            (!readiness.wakes(entry.interest).is_none()).then_some((place, token, *readiness))
        };
        ready.iter().enumerate().filter_map(find).collect()
    }

    fn take_ready(&self) -> Vec<(Token, Readiness)> {
        let wanted = self.wanted();
        for (place, _, _) in wanted.iter().rev() {
            self.ready.borrow_mut().remove(*place);
        }
        wanted.into_iter().map(|(_, token, readiness)| (token, readiness)).collect()
    }

    fn real(&self, token: Token) -> io::Result<Option<Rc<Registration>>> {
        let entries = self.entries.borrow();
        Ok(entries.get(token).ok_or_else(unknown)?.real.clone())
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the source is not registered")
}

impl Selector for TestSelector {
    fn register(&self, source: Source, interest: Interest, data: u64) -> io::Result<Registration> {
        let is_mock = source.virtual_id().is_some();
        let entry = Entry { source: source.clone(), interest, data, real: None };
        let inserted = self.table.entries.borrow_mut().insert(entry);
        let token = inserted.map_err(|_| io::Error::other("a selector has no room for more"))?;
        let registration = Registration::new(self.table.clone(), token);
        if !is_mock {
            // On failure the entry goes with its registration.
            let real = Rc::new(self.real.register(source, interest, token.to_bits())?);
            if let Some(entry) = self.table.entries.borrow_mut().get_mut(token) {
                entry.real = Some(real);
            }
        }
        Ok(registration)
    }

    fn select(&self, events: &mut Events, timeout: Timeout) -> io::Result<()> {
        let timeout = if self.table.wanted().is_empty() { timeout } else { Timeout::Immediate };
        // Out while the real selector works.
        let mut real = self.events.take();
        let result = self.real.select(&mut real, timeout);
        self.report(events, &real);
        self.events.replace(real);
        result
    }

    fn now(&self) -> Instant {
        self.real.now()
    }

    fn notifier(&self) -> Notifier {
        self.real.notifier()
    }

    fn get_key(&self, token: Token) -> Option<Key> {
        self.table.key(token)
    }

    fn keys(&self) -> Vec<Key> {
        let entries = self.table.entries.borrow();
        entries.iter().map(|(token, entry)| entry.key(token)).collect()
    }

    fn is_always_ready(&self) -> bool {
        self.real.is_always_ready()
    }

    fn close(&self) {
        let entries = mem::take(&mut *self.table.entries.borrow_mut());
        drop(entries);
        self.real.close();
    }

    fn is_closed(&self) -> bool {
        self.real.is_closed()
    }

    fn name(&self) -> &'static str {
        "test"
    }
}

impl Entry {
    fn key(&self, token: Token) -> Key {
        Key::new(token, self.source.clone(), self.interest, self.data)
    }
}

impl Registry for Table {
    fn lookup(&self, token: Token) -> Option<(Interest, u64)> {
        self.entries.borrow().get(token).map(|entry| (entry.interest, entry.data))
    }

    fn key(&self, token: Token) -> Option<Key> {
        self.entries.borrow().get(token).map(|entry| entry.key(token))
    }

    fn set_interest(&self, token: Token, interest: Interest) -> io::Result<()> {
        if let Some(real) = self.real(token)? {
            real.set_interest(interest)?;
        }
        self.entries.borrow_mut().get_mut(token).ok_or_else(unknown)?.interest = interest;
        Ok(())
    }

    fn set_data(&self, token: Token, data: u64) -> io::Result<()> {
        self.entries.borrow_mut().get_mut(token).ok_or_else(unknown)?.data = data;
        Ok(())
    }

    fn deregister(&self, token: Token) -> io::Result<Source> {
        let removed = self.entries.borrow_mut().remove(token);
        let Entry { source, real, .. } = removed.ok_or_else(unknown)?;
        drop(real);
        Ok(source)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.entries.borrow().len();
        f.debug_struct("Table").field("sources", &sources).finish_non_exhaustive()
    }
}
