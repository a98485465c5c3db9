//! `AsyncFd`: waiting for a descriptor of one's own in a future.
#![cfg(all(target_os = "linux", not(miri)))]

mod os;

use std::cell::RefCell;
use std::fs::File;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use os::{Wakes, alone, drain, open_descriptors, pair, reporting, send, turn, watched};
use tulipa_loop::{AsyncFd, EventLoop, LoopHandle, Ready};

fn async_pair(event_loop: &EventLoop) -> (AsyncFd<Rc<UnixStream>>, UnixStream) {
    let (ours, theirs) = pair();
    (AsyncFd::new(event_loop, ours).unwrap(), theirs)
}

fn fill(mut stream: &UnixStream) {
    while stream.write(&[0; 65_536]).is_ok() {}
}

fn poll(future: Pin<&mut Ready<'_>>, waker: &Waker) -> Poll<std::io::Result<()>> {
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn readable_is_done_when_something_has_come() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    event_loop.call_later(Duration::from_millis(1), move |_| {
        send(&theirs);
        std::mem::forget(theirs);
    });
    event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
    assert_eq!(drain(&fd), 1);
}

#[test]
fn writable_is_done_when_there_is_room() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    event_loop.run_until_complete(fd.writable()).unwrap().unwrap();
    fill(&fd);
    let (wakes, waker) = Wakes::new();
    let mut writable = pin!(fd.writable());
    assert!(poll(writable.as_mut(), &waker).is_pending());
    turn(&event_loop);
    assert_eq!(wakes.count(), 0);
    drain(&theirs);
    turn(&event_loop);
    assert_eq!(wakes.count(), 1);
    assert!(poll(writable, &waker).is_ready());
}

#[test]
fn the_two_sides_do_not_disturb_each_other() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let ((reads, reader), (writes, writer)) = (Wakes::new(), Wakes::new());
    let (mut readable, mut writable) = (pin!(fd.readable()), pin!(fd.writable()));
    assert!(poll(readable.as_mut(), &reader).is_pending());
    assert!(poll(writable.as_mut(), &writer).is_pending());
    turn(&event_loop);
    assert_eq!((reads.count(), writes.count()), (0, 1));
    assert!(poll(writable.as_mut(), &writer).is_ready());
    send(&theirs);
    turn(&event_loop);
    assert_eq!((reads.count(), writes.count()), (1, 1));
    assert!(poll(readable.as_mut(), &reader).is_ready());
}

#[test]
fn b19_all_who_wait_for_one_side_are_woken_by_one_event() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let mut waiting: Vec<_> = (0..100).map(|_| (Box::pin(fd.readable()), Wakes::new())).collect();
    for (future, (_, waker)) in &mut waiting {
        assert!(poll(future.as_mut(), waker).is_pending());
    }
    send(&theirs);
    turn(&event_loop);
    for (future, (wakes, waker)) in &mut waiting {
        assert_eq!(wakes.count(), 1);
        assert!(matches!(poll(future.as_mut(), waker), Poll::Ready(Ok(()))));
    }
    turn(&event_loop);
    assert!(waiting.iter().all(|(_, (wakes, _))| wakes.count() == 1));
    assert_eq!(watched(&event_loop, &[&*fd]), 0);
}

#[test]
fn b19_a_wait_that_moved_to_another_task_wakes_that_one() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let ((old, first), (new, second)) = (Wakes::new(), Wakes::new());
    let mut readable = pin!(fd.readable());
    assert!(poll(readable.as_mut(), &first).is_pending());
    assert!(poll(readable.as_mut(), &second).is_pending());
    send(&theirs);
    turn(&event_loop);
    assert_eq!((old.count(), new.count()), (0, 1));
    assert!(poll(readable, &second).is_ready());
}

#[test]
fn b18_data_that_comes_after_a_cancelled_wait_wakes_nobody() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let (wakes, waker) = Wakes::new();
    {
        let mut readable = pin!(fd.readable());
        assert!(poll(readable.as_mut(), &waker).is_pending());
        turn(&event_loop);
        assert_eq!(watched(&event_loop, &[&*fd]), 1);
    }
    assert_eq!(watched(&event_loop, &[&*fd]), 0, "taken back at once");
    send(&theirs);
    let before = event_loop.statistics();
    event_loop.call_later(Duration::from_millis(20), LoopHandle::stop);
    event_loop.run_forever().unwrap();
    let after = event_loop.statistics();
    assert_eq!((after.events - before.events, wakes.count()), (0, 0));
    assert!(after.turns - before.turns <= 2, "{after:?}");
    event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
}

#[test]
fn b18_data_that_nobody_reads_wakes_the_loop_once() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    send(&theirs);
    event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
    let before = event_loop.statistics();
    event_loop.call_later(Duration::from_millis(20), LoopHandle::stop);
    event_loop.run_forever().unwrap();
    assert_eq!(event_loop.statistics().events, before.events);
}

#[test]
fn cancelling_one_of_two_waits_leaves_the_other() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let ((left, stays), (gone, goes)) = (Wakes::new(), Wakes::new());
    let mut first = pin!(fd.readable());
    assert!(poll(first.as_mut(), &stays).is_pending());
    let mut second = Box::pin(fd.readable());
    assert!(poll(second.as_mut(), &goes).is_pending());
    drop(second);
    send(&theirs);
    turn(&event_loop);
    assert_eq!((left.count(), gone.count()), (1, 0));
}

#[test]
fn read_with_and_write_with_carry_a_megabyte_through_a_small_socket() {
    const LEN: usize = 1 << 20;
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = pair();
    let writer = AsyncFd::new(&event_loop, ours).unwrap();
    let reader = AsyncFd::new(&event_loop, theirs).unwrap();
    let data: Vec<u8> = (0..LEN).map(|index| (index % 251) as u8).collect();
    let write = async {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let count = writer.write_with(|io| (&**io).write(rest)).await?;
            rest = &rest[count..];
        }
        writer.shutdown(std::net::Shutdown::Write)
    };
    let read = async {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match reader.read_with(|mut io| io.read(&mut buffer)).await? {
                0 => return std::io::Result::Ok(all),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    };
    let both = futures_lite::future::zip(write, read);
    let (wrote, read) = event_loop.run_until_complete(both).unwrap();
    wrote.unwrap();
    assert!(read.unwrap() == data);
}

#[test]
fn read_with_passes_other_errors_on() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, _theirs) = async_pair(&event_loop);
    let failed = fd.read_with(|_| Err::<(), _>(std::io::Error::other("mine")));
    assert_eq!(event_loop.run_until_complete(failed).unwrap().unwrap_err().to_string(), "mine");
    let failed = fd.write_with(|_| Err::<(), _>(std::io::Error::other("mine")));
    assert_eq!(event_loop.run_until_complete(failed).unwrap().unwrap_err().to_string(), "mine");
}

#[test]
fn a_closing_loop_wakes_all_who_wait_with_an_error() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, _theirs) = async_pair(&event_loop);
    fill(&fd);
    let (wakes, waker) = Wakes::new();
    let (mut readable, mut writable) = (pin!(fd.readable()), pin!(fd.writable()));
    assert!(poll(readable.as_mut(), &waker).is_pending());
    assert!(poll(writable.as_mut(), &waker).is_pending());
    event_loop.close().unwrap();
    assert_eq!(wakes.count(), 2);
    for future in [readable, writable] {
        let Poll::Ready(Err(error)) = poll(future, &waker) else { panic!("an error") };
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    }
    let Poll::Ready(Err(error)) = poll(pin!(fd.readable()), &waker) else { panic!("an error") };
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let error = AsyncFd::new(&event_loop, pair().1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    drop(event_loop);
    assert!(fd.peer_addr().is_ok(), "what it holds is still open");
}

#[test]
fn a_descriptor_that_nobody_waits_for_is_not_in_the_set_of_the_operating_system() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    assert_eq!(watched(&event_loop, &[&*fd]), 0);
    // A peer that is gone cannot be masked, so this would spin otherwise.
    drop(theirs);
    let before = event_loop.statistics().events;
    turn(&event_loop);
    assert_eq!(event_loop.statistics().events, before);
    event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
    assert_eq!(watched(&event_loop, &[&*fd]), 0);
}

#[test]
fn one_descriptor_is_in_one_async_fd_at_a_time() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, _theirs) = pair();
    let first = AsyncFd::new(&event_loop, ours.clone()).unwrap();
    let error = AsyncFd::new(&event_loop, ours.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(event_loop.statistics().sources, 1);
    drop(first);
    assert_eq!((event_loop.statistics().sources, Rc::strong_count(&ours)), (0, 1));
    AsyncFd::new(&event_loop, ours).unwrap();
}

#[test]
fn a_regular_file_is_always_readable() {
    let event_loop = EventLoop::new().unwrap();
    for path in [std::env::current_exe().unwrap(), "/dev/null".into()] {
        let fd = AsyncFd::new(&event_loop, File::open(path).unwrap()).unwrap();
        for _ in 0..3 {
            event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
        }
    }
}

/// One echo over a descriptor, with an await for each side.
async fn echo(fd: &AsyncFd<Rc<UnixStream>>) -> std::io::Result<()> {
    fd.writable().await?;
    fd.write_with(|io| (&**io).write(b"x")).await?;
    fd.readable().await?;
    let mut byte = [0];
    fd.read_with(|io| (&**io).read(&mut byte)).await?;
    Ok(())
}

#[test]
fn b03_a_future_dropped_after_any_number_of_polls_takes_everything_back() {
    let event_loop = EventLoop::new().unwrap();
    let mut complete = 0;
    for polls in 0..8 {
        let (fd, theirs) = async_pair(&event_loop);
        let (_, waker) = Wakes::new();
        let mut future = Box::pin(echo(&fd));
        for _ in 0..polls {
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                complete += 1;
                break;
            }
            if drain(&theirs) > 0 {
                send(&theirs);
            }
            turn(&event_loop);
        }
        drop(future);
        assert_eq!(watched(&event_loop, &[&*fd]), 0, "after {polls} polls");
        assert!(format!("{fd:?}").contains("readers: 0, writers: 0"), "{fd:?}");
        drain(&theirs);
        send(&theirs);
        event_loop.run_until_complete(echo(&fd)).unwrap().unwrap();
    }
    assert!(complete >= 4, "the last ones went to the end: {complete}");
    assert_eq!(event_loop.statistics().sources, 0);
}

#[test]
fn b03_cancel_close_and_open_again_a_thousand_times_in_one_turn() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    event_loop
        .run_until_complete(async {
            for _ in 0..1_000 {
                let (ours, theirs) = pair();
                let fd = AsyncFd::new(&handle, ours).expect("not registered already");
                assert!(futures_lite::future::poll_once(fd.readable()).await.is_none());
                drop((fd, theirs));
            }
            let (ours, theirs) = pair();
            let fd = AsyncFd::new(&handle, ours).unwrap();
            send(&theirs);
            fd.readable().await.unwrap();
        })
        .unwrap();
    assert_eq!(event_loop.statistics().events, 1);
}

#[test]
fn b28_a_descriptor_that_blocks_does_not_stop_the_timers_while_it_is_waited_for() {
    let event_loop = EventLoop::new().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fd = AsyncFd::new(&event_loop, ours).unwrap();
    event_loop.call_later(Duration::from_millis(1), move |_| {
        send(&theirs);
        std::mem::forget(theirs);
    });
    event_loop.run_until_complete(fd.readable()).unwrap().unwrap();
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("in a waker");
    }
}

#[test]
fn a_waker_that_panics_is_reported_and_the_others_are_woken() {
    let (event_loop, reports) = reporting();
    let (fd, theirs) = async_pair(&event_loop);
    let (wakes, waker) = Wakes::new();
    let panicking = Waker::from(Arc::new(PanickingWaker));
    let mut futures = [fd.readable(), fd.readable(), fd.readable()].map(Box::pin);
    assert!(poll(futures[0].as_mut(), &waker).is_pending());
    assert!(poll(futures[1].as_mut(), &panicking).is_pending());
    assert!(poll(futures[2].as_mut(), &waker).is_pending());
    send(&theirs);
    turn(&event_loop);
    assert_eq!((wakes.count(), reports.take().len()), (2, 1));
    for future in &mut futures {
        assert!(poll(future.as_mut(), &waker).is_ready());
    }
}

thread_local! {
    /// What the waker below drops.
    static VICTIM: RefCell<Option<Pin<Box<Ready<'static>>>>> = const { RefCell::new(None) };
}

/// Drops another wait when it is woken, and when it is dropped.
struct DroppingWaker;

impl Wake for DroppingWaker {
    fn wake(self: Arc<Self>) {
        drop(VICTIM.take());
    }
}

impl Drop for DroppingWaker {
    fn drop(&mut self) {
        drop(VICTIM.take());
    }
}

#[test]
fn a_waker_may_drop_another_wait_when_it_is_woken_or_dropped() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let fd: &'static _ = Box::leak(Box::new(fd));
    let (wakes, waker) = Wakes::new();
    let wait = || {
        let mut victim = Box::pin(fd.readable());
        assert!(poll(victim.as_mut(), &waker).is_pending());
        VICTIM.set(Some(victim));
    };
    let mut dropping = Box::pin(fd.readable());
    assert!(poll(dropping.as_mut(), &Waker::from(Arc::new(DroppingWaker))).is_pending());
    wait();
    send(&theirs);
    turn(&event_loop);
    assert!(VICTIM.take().is_none() && wakes.count() <= 1);

    let mut dropping = Box::pin(fd.writable());
    assert!(poll(dropping.as_mut(), &Waker::from(Arc::new(DroppingWaker))).is_pending());
    wait();
    assert!(poll(dropping.as_mut(), &waker).is_pending(), "replaces the waker");
    assert!(VICTIM.take().is_none());
    assert!(poll(dropping.as_mut(), &Waker::from(Arc::new(DroppingWaker))).is_pending());
    wait();
    drop(dropping);
    assert!(VICTIM.take().is_none());
    assert_eq!(watched(&event_loop, &[&**fd]), 0);
    event_loop.close().unwrap();
}

#[test]
fn a_wait_that_is_done_waits_anew_when_it_is_polled_again() {
    let event_loop = EventLoop::new().unwrap();
    let (fd, theirs) = async_pair(&event_loop);
    let (_, waker) = Wakes::new();
    let mut readable = pin!(fd.readable());
    assert!(poll(readable.as_mut(), &waker).is_pending());
    send(&theirs);
    turn(&event_loop);
    assert!(poll(readable.as_mut(), &waker).is_ready());
    drain(&fd);
    assert!(poll(readable.as_mut(), &waker).is_pending());
}

#[test]
fn an_async_fd_moves_and_outlives_its_loop() {
    alone("an_async_fd_moves_and_outlives_its_loop", || {
        let before = open_descriptors();
        let event_loop = EventLoop::new().unwrap();
        let (fd, theirs) = async_pair(&event_loop);
        let (idle, _other) = async_pair(&event_loop);
        let moved = Box::new(fd);
        event_loop
            .run_until_complete(poll_fn(|context| {
                let mut readable = pin!(moved.readable());
                assert!(readable.as_mut().poll(context).is_pending());
                Poll::Ready(())
            }))
            .unwrap();
        drop(event_loop);
        assert!(moved.peer_addr().is_ok());
        drop((moved, idle, theirs, _other));
        assert_eq!(open_descriptors(), before);
    });
}

/// A descriptor that may be closed while it is owned.
struct Careless(std::os::fd::RawFd);

impl std::os::fd::AsFd for Careless {
    #[expect(unsafe_code, reason = "to close it behind everybody's back is the point")]
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: nothing but system calls sees the number once it is closed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

#[test]
fn whoever_still_waits_when_the_selector_fails_is_woken_and_gets_the_error() {
    alone("whoever_still_waits_when_the_selector_fails_is_woken_and_gets_the_error", || {
        let event_loop = EventLoop::new().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        fill_blocking(&ours);
        let raw = std::os::fd::IntoRawFd::into_raw_fd(ours);
        let fd = AsyncFd::new(&event_loop, Careless(raw)).unwrap();
        let (reads, reader) = Wakes::new();
        let (writes, writer) = Wakes::new();
        let mut readable = Box::pin(fd.readable());
        let mut writable = Box::pin(fd.writable());
        assert!(poll(readable.as_mut(), &reader).is_pending());
        assert!(poll(writable.as_mut(), &writer).is_pending());
        #[expect(unsafe_code, reason = "to close it behind everybody's back is the point")]
        // SAFETY: `Careless` does not close it.
        unsafe {
            rustix::io::close(raw)
        };
        drop(readable);
        assert_eq!((reads.count(), writes.count()), (0, 1));
        assert!(matches!(poll(writable.as_mut(), &writer), Poll::Ready(Ok(()))));
        let mut again = Box::pin(fd.writable());
        assert!(matches!(poll(again.as_mut(), &writer), Poll::Ready(Err(_))));
    });
}

fn fill_blocking(stream: &UnixStream) {
    stream.set_nonblocking(true).unwrap();
    fill(stream);
}
