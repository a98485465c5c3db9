//! calloop: a source with a callback for each connection.

use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, LoopHandle, Mode as Trigger, PostAction};

use super::pending::Pending;
use super::{BUFFER, Mode, announce};

pub(super) fn serve(_: Mode) {
    let listener = super::listen();
    announce(listener.local_addr().expect("it is bound"));
    let mut event_loop: EventLoop<'_, ()> = EventLoop::try_new().expect("a loop");
    let (handle, buffer) = (event_loop.handle(), Rc::new(RefCell::new(vec![0; BUFFER])));
    let source = Generic::new(listener, Interest::READ, Trigger::Level);
    let accepting = handle.clone();
    let inserted = handle.insert_source(source, move |_, listener, ()| {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("a socket");
            stream.set_nodelay(true).expect("a socket");
            talk(&accepting, stream, buffer.clone());
        }
        Ok(PostAction::Continue)
    });
    inserted.expect("room");
    event_loop.run(None, &mut (), |()| ()).expect("a run");
}

fn talk(handle: &LoopHandle<'_, ()>, stream: TcpStream, buffer: Rc<RefCell<Vec<u8>>>) {
    let mut pending = Pending::default();
    // A callback cannot change what its source waits for: it waits for both, and is told of changes.
    let source = Generic::new(stream, Interest::BOTH, Trigger::Edge);
    let inserted = handle.insert_source(source, move |_, stream, ()| {
        let goes_on = pending.echo_all(&**stream, &mut buffer.borrow_mut());
        Ok(if goes_on { PostAction::Continue } else { PostAction::Remove })
    });
    inserted.expect("room");
}
