//! `AsyncMock` and `ScriptedSocket`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tulipa_loop::spawn;
use tulipa_testing::{AsyncMock, Clock, TestRunner};

fn run(test: impl Future<Output = ()> + 'static) {
    TestRunner::new().clock(Clock::Autojump).strict(true).run(test);
}

#[test]
fn a_mock_answers_once_then_by_its_effect_then_always() {
    run(async {
        let mock = AsyncMock::<u32, u32>::new();
        mock.returns(7);
        assert_eq!(mock.call(1).await, 7);
        mock.side_effect(|args| args * 10);
        mock.returns_once(100);
        mock.returns_once(200);
        assert_eq!((mock.call(2).await, mock.call(3).await), (100, 200));
        assert_eq!(mock.call(4).await, 40);
        assert_eq!(mock.await_args(), [1, 2, 3, 4].map(Rc::new));
    });
}

#[test]
fn a_call_that_nobody_awaits_counts_as_a_call_only() {
    run(async {
        let mock = AsyncMock::<(), ()>::new();
        mock.returns(());
        drop(mock.call(()));
        mock.assert_not_awaited();
        mock.call(()).await;
        mock.assert_awaited();
        assert_eq!((mock.call_count(), mock.await_count()), (2, 1));
        mock.reset();
        assert_eq!((mock.call_count(), mock.await_count()), (0, 0));
    });
}

#[test]
fn a_mock_is_waited_for_until_it_was_awaited_often_enough() {
    run(async {
        let mock = AsyncMock::<u32, ()>::new();
        mock.returns(());
        let own = mock.clone();
        let caller = spawn(async move {
            for number in 0..3 {
                tulipa_loop::sleep(std::time::Duration::from_secs(1)).await;
                own.call(number).await;
            }
        });
        mock.wait_awaited(3).await;
        assert_eq!(mock.await_count(), 3);
        caller.await.unwrap();
    });
}

#[test]
fn assertions_say_what_a_mock_was_awaited_with() {
    let failure = |check: fn(&AsyncMock<u32, ()>)| {
        let mock = AsyncMock::<u32, ()>::new();
        mock.returns(());
        let own = mock.clone();
        run(async move {
            own.call(1).await;
            own.call(2).await;
        });
        let checked = catch_unwind(AssertUnwindSafe(|| check(&mock)));
        checked.err().map(|payload| *payload.downcast::<String>().expect("it has a message"))
    };
    assert_eq!(failure(|mock| mock.assert_awaited_with(&2)), None);
    assert_eq!(failure(|mock| mock.assert_any_await(&1)), None);
    let once = failure(|mock| mock.assert_awaited_once_with(&1)).unwrap();
    assert!(once.contains("the mock was awaited with [1, 2]"), "{once}");
    let last = failure(|mock| mock.assert_awaited_with(&1)).unwrap();
    assert!(last.contains("what the mock was last awaited with"), "{last}");
    let any = failure(|mock| mock.assert_any_await(&3)).unwrap();
    assert!(any.contains("not with 3"), "{any}");
}

#[test]
fn an_effect_may_change_the_mock() {
    run(async {
        let mock = AsyncMock::<(), u32>::new();
        let own = mock.clone();
        mock.side_effect(move |()| {
            own.side_effect(|()| 2);
            1
        });
        assert_eq!((mock.call(()).await, mock.call(()).await), (1, 2));
    });
}

#[cfg(unix)]
mod sockets {
    use std::cell::RefCell;
    use std::io::{self, ErrorKind};
    use std::rc::Rc;

    use tulipa_protocols::{Protocol, Transport, attach};
    use tulipa_testing::{ScriptedSocket, VirtualLoop};

    #[derive(Default)]
    struct Seen {
        received: Vec<u8>,
        eof: bool,
        lost: Option<Option<ErrorKind>>,
    }

    struct Watching(Rc<RefCell<Seen>>);

    impl Protocol for Watching {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            self.0.borrow_mut().received.extend_from_slice(data);
            transport.write(data);
            Ok(())
        }

        fn eof_received(&mut self, _: &Transport) -> io::Result<tulipa_protocols::AfterEof> {
            self.0.borrow_mut().eof = true;
            Ok(tulipa_protocols::AfterEof::Close)
        }

        fn connection_lost(&mut self, _: &Transport, error: Option<io::Error>) {
            self.0.borrow_mut().lost = Some(error.map(|error| error.kind()));
        }
    }

    fn play(script: impl FnOnce(&ScriptedSocket)) -> (ScriptedSocket, Rc<RefCell<Seen>>) {
        let virtual_loop = VirtualLoop::new();
        let socket = ScriptedSocket::new(virtual_loop.world());
        script(&socket);
        let seen = Rc::<RefCell<Seen>>::default();
        attach(&virtual_loop, socket.link(), Watching(seen.clone())).unwrap();
        virtual_loop.run_until_idle();
        (socket, seen)
    }

    #[test]
    fn a_scripted_socket_reads_blocks_and_ends() {
        let (socket, seen) = play(|socket| {
            socket.read_blocks().read(b"one").read_blocks().read(b" two").read_end();
        });
        let seen = seen.borrow();
        assert_eq!((&seen.received[..], seen.eof, seen.lost), (&b"one two"[..], true, Some(None)));
        assert_eq!((socket.written(), socket.steps_left()), (b"one two".to_vec(), 0));
        assert!(socket.is_closed() && !socket.is_reset());
    }

    #[test]
    fn a_scripted_socket_takes_a_part_and_blocks() {
        let (socket, seen) = play(|socket| {
            socket.read(b"hello").write_blocks().write(1).write_blocks().write(2);
        });
        assert_eq!(socket.written(), b"hello");
        assert_eq!((socket.steps_left(), &seen.borrow().received[..]), (0, &b"hello"[..]));
    }

    #[test]
    fn a_scripted_socket_fails_to_read_or_to_write() {
        let (_, seen) = play(|socket| {
            socket.read(b"x").read_error(ErrorKind::ConnectionReset);
        });
        assert_eq!(seen.borrow().lost, Some(Some(ErrorKind::ConnectionReset)));
        let (_, seen) = play(|socket| {
            socket.read(b"x").write_error(ErrorKind::BrokenPipe);
        });
        assert_eq!(seen.borrow().lost, Some(Some(ErrorKind::BrokenPipe)));
    }
}
