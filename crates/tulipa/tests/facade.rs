//! The layers fit together under one name.

use std::cell::Cell;
use std::rc::Rc;

use tulipa::sync::Queue;
use tulipa::{spawn, task_group};

#[test]
fn tasks_talk_through_queues() {
    let sum = tulipa::run(async {
        let queue = Rc::new(Queue::bounded(2));
        let producer = queue.clone();
        let produced = spawn(async move {
            for number in 1..=10 {
                producer.put(number).await.expect("nobody shuts it down before");
            }
            producer.shutdown(false);
        });
        let mut sum = 0;
        while let Ok(number) = queue.get().await {
            sum += number;
        }
        produced.await.expect("it has ended well");
        sum
    });
    assert_eq!(sum.expect("it runs"), 55);
}

#[test]
fn locks_hold_between_the_tasks_of_a_group() {
    let count = Rc::new(Cell::new(0));
    let inside = count.clone();
    let result = tulipa::run(async move {
        let lock = Rc::new(tulipa::sync::Lock::new(()));
        task_group(async |group| {
            for _ in 0..5 {
                let (lock, count) = (lock.clone(), inside.clone());
                let spawned = group.spawn(async move {
                    let _guard = lock.lock().await;
                    let before = count.get();
                    tulipa::yield_now().await;
                    count.set(before + 1);
                    Ok::<_, std::convert::Infallible>(())
                });
                drop(spawned.expect("the group is open"));
            }
            Ok(())
        })
        .await
    });
    assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    assert_eq!(count.get(), 5);
}

#[cfg(feature = "testing")]
#[test]
fn a_day_passes_at_once_in_virtual_time() {
    use std::time::Duration;
    let virtual_loop = tulipa::testing::VirtualLoop::new();
    let day = Duration::from_secs(24 * 3600);
    virtual_loop.run_until_complete(async { tulipa::sleep(day).await }).unwrap();
    assert_eq!(virtual_loop.elapsed(), day);
}

#[cfg(unix)]
#[test]
fn a_protocol_serves_and_another_one_connects() {
    use std::io;
    use tulipa::{Protocol, Transport, create_connection, create_server};

    struct Upper;
    impl Protocol for Upper {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            transport.write(&data.to_ascii_uppercase());
            Ok(())
        }
    }
    struct Ask(Rc<Cell<Option<Vec<u8>>>>);
    impl Protocol for Ask {
        fn connection_made(&mut self, transport: &Transport) -> io::Result<()> {
            transport.write(b"hello");
            Ok(())
        }

        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            self.0.set(Some(data.to_vec()));
            transport.close();
            Ok(())
        }
    }
    let answer = Rc::new(Cell::new(None));
    let heard = answer.clone();
    let result = tulipa::run(async move {
        let server = create_server("127.0.0.1:0", || Upper).await?;
        let address = server.local_addrs()[0].inet().expect("an internet address");
        let connection = create_connection(address, || Ask(heard)).await?;
        connection.wait_closed().await;
        server.shutdown(std::time::Duration::from_secs(1)).await;
        io::Result::Ok(())
    });
    result.expect("it runs").expect("it connects");
    assert_eq!(answer.take().as_deref(), Some(&b"HELLO"[..]));
}

#[cfg(unix)]
#[test]
fn a_coroutine_serves_and_another_one_connects() {
    use tulipa::{ReadError, open_connection, start_server};

    let result = tulipa::run(async {
        let server = start_server("127.0.0.1:0", async |mut reader, writer| {
            let line = reader.read_line().await?.to_ascii_uppercase();
            writer.write(&line);
            Ok::<(), ReadError>(())
        });
        let server = server.await?;
        let address = server.local_addrs()[0].inet().expect("an internet address");
        let (mut reader, writer) = open_connection(address).await?;
        writer.write(b"hello\n");
        assert_eq!(reader.read_line().await?, b"HELLO\n");
        Ok::<(), ReadError>(())
    });
    result.expect("it runs").expect("it connects");
}
