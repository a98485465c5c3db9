//! The blocks of `docs/testing.md`, each as it stands there, run.

#![cfg(all(unix, feature = "testing"))]

use std::io;

use tulipa::{Protocol, Transport};

use a_protocol_without_a_socket::Upper;

/// A client that ignores what it is answered.
#[derive(Default)]
struct Client;

impl Protocol for Client {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

mod a_test {
    use std::time::Duration;
    use tulipa::testing::elapsed;
    use tulipa::{sleep, timeout};

    #[tulipa::test(clock = "autojump", strict)]
    async fn a_slow_answer_is_given_up_after_half_a_minute() {
        let answer = timeout(Duration::from_secs(30), sleep(Duration::from_secs(60))).await;
        assert!(answer.is_err());
        assert_eq!(elapsed(), Duration::from_secs(30)); // it took microseconds
    }
}

mod which_clock {
    use std::time::Duration;
    use tulipa::testing::advance;
    use tulipa::{sleep, spawn};

    #[tulipa::test(clock = "virtual")]
    async fn it_ends_after_a_minute_and_not_before() {
        let task = spawn(sleep(Duration::from_secs(60)));
        advance(Duration::from_secs(59)).await;
        assert!(!task.is_done());
        advance(Duration::from_secs(1)).await;
        assert!(task.is_done());
    }
}

mod without_the_attribute {
    mod my_crate {
        pub(super) async fn double(number: u32) -> u32 {
            2 * number
        }
    }

    use tulipa::testing::{Clock, TestRunner};

    #[test]
    fn all_numbers_are_doubled() {
        for number in 0..100 {
            TestRunner::new().clock(Clock::Autojump).strict(true).run(async move {
                assert_eq!(my_crate::double(number).await, 2 * number);
            });
        }
    }
}

mod a_protocol_without_a_socket {
    use std::io;
    use tulipa::{Detached, Protocol, Transport};

    pub(super) struct Upper;
    impl Protocol for Upper {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
            transport.write(&data.to_ascii_uppercase());
            Ok(())
        }
    }

    #[test]
    fn letters_become_capitals_one_byte_at_a_time() {
        let mut connection = Detached::new(Upper);
        for byte in b"tulipa" {
            connection.feed(&[*byte]);
        }
        assert_eq!(connection.written(), b"TULIPA");
    }
}

mod on_a_network_in_memory {
    use super::{Client, Upper};

    use std::time::Duration;
    use tulipa::testing::{Chunking, MemoryNetwork, Path, elapsed, world};
    use tulipa::{LoopHandle, create_connection, create_server};

    #[tulipa::test(clock = "autojump", strict)]
    async fn an_answer_takes_a_round_trip() {
        let network = MemoryNetwork::new(&world(), 7); // the seed
        network.install(&LoopHandle::current());
        let second = Duration::from_secs(1);
        network.set_default_path(Path::new().latency(second..=second).chunking(Chunking::OneByte));

        let server = network.on("server", create_server(":7", || Upper)).await.unwrap();
        let client =
            network.on("client", create_connection("server:7", Client::default)).await.unwrap();
        client.write(b"tulipa");
        client.write_eof();
        client.wait_closed().await;
        assert_eq!(elapsed(), 4 * second); // two for connecting, two for the answer
        server.shutdown(second).await;
    }
}

mod with_faults {
    use super::{Client, Upper};

    use std::time::Duration;
    use tulipa::testing::{Fault, Simulation};
    use tulipa::{create_connection, create_server};

    #[test]
    fn everything_that_was_promised_holds() {
        let summary = Simulation::new().seeds(200).run(|sim| async move {
            let own = sim.clone();
            let server = create_server("localhost:7", move || own.sabotage(Upper)).await.unwrap();
            // What has to hold after every turn of the loop:
            let network = sim.network().clone();
            sim.invariant(move || match network.connections() {
                0 | 1 => Ok(()),
                many => Err(format!("{many} connections of one client")),
            });
            // A client, whose connection may fail, and who may be cancelled meanwhile:
            let connecting = sim.endanger(create_connection("localhost:7", Client::default)).await;
            if let Ok(Ok(client)) = connecting {
                client.write(b"tulipa");
                client.write_eof();
                client.wait_closed().await;
            }
            server.shutdown(Duration::from_secs(60)).await;
        });
        assert!(summary.faults.of(Fault::TaskCancelled) > 0);
    }
}

/// Without line breaks and indentation, which are others here, and the visibility of names.
fn plain(text: &str) -> String {
    text.replace("pub(super) ", "").split_whitespace().collect()
}

#[test]
fn the_blocks_of_the_document_are_the_tests_of_this_file() {
    let (document, own) =
        (include_str!("../../../docs/testing.md"), include_str!("testing_document.rs"));
    let (mut blocks, own) = (0, plain(own));
    for block in document.split("```rust\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        assert!(own.contains(&plain(block)), "this is not tested here:\n{block}");
        blocks += 1;
    }
    assert!(blocks >= 6, "{blocks} blocks");
}
