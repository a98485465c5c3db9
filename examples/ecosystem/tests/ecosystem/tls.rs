//! TLS by futures-rustls: over memory and over TCP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::zip;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use futures_rustls::rustls::crypto::ring;
use futures_rustls::rustls::version::TLS13;
use futures_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
};
use futures_rustls::{TlsAcceptor, TlsConnector, client, server};
use tulipa::{ReadWrite, Streams, duplex, open_connection, spawn, start_server};

use crate::support::{assert_no_tokio, in_real_time, in_virtual_time};

/// How much is sent there and back: more than any buffer on the way holds.
const PAYLOAD: usize = 1 << 20;

/// A server's side, with a certificate for `localhost` that it has signed itself.
fn acceptor() -> (TlsAcceptor, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate)
}

/// A client's side that trusts these.
fn connector(trusted: impl IntoIterator<Item = CertificateDer<'static>>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

type Client = client::TlsStream<ReadWrite>;
type Server = server::TlsStream<ReadWrite>;

async fn connect(connector: &TlsConnector, streams: Streams) -> io::Result<Client> {
    connector.connect(localhost(), ReadWrite::from(streams)).await
}

/// Sends everything back until the client says that it is done, and says so too.
async fn echo(acceptor: TlsAcceptor, streams: Streams) -> io::Result<u64> {
    assert_no_tokio();
    let stream = acceptor.accept(ReadWrite::from(streams)).await?;
    let (reader, mut writer) = futures_lite::io::split(stream);
    let copied = futures_lite::io::copy(reader, &mut writer).await?;
    writer.close().await?;
    Ok(copied)
}

/// Sends a lot while it reads it back.
async fn talk(stream: Client) {
    let (mut reader, mut writer) = futures_lite::io::split(stream);
    let sent: Vec<u8> = (0..PAYLOAD).map(|index| (index % 251) as u8).collect();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.close().await.unwrap();
    };
    let read = async {
        let mut received = Vec::new();
        // An end without the alert `close_notify` would be an error.
        reader.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = zip(write, read).await;
    assert!(received == sent, "{} bytes came back", received.len());
}

#[test]
fn tls_echoes_over_tcp() {
    in_real_time(async || {
        let (acceptor, certificate) = acceptor();
        let server = start_server("127.0.0.1:0", async move |reader, writer| {
            let copied = echo(acceptor.clone(), (reader, writer)).await;
            copied.map(|count| assert_eq!(count, PAYLOAD as u64))
        });
        let server = server.await.unwrap();
        let address = server.local_addrs()[0].inet().unwrap();
        let streams = open_connection(address).await.unwrap();
        talk(connect(&connector([certificate]), streams).await.unwrap()).await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn tls_echoes_in_memory() {
    in_virtual_time(async || {
        let (acceptor, certificate) = acceptor();
        let (near, far) = duplex().await.unwrap();
        let server = spawn(echo(acceptor, far));
        talk(connect(&connector([certificate]), near).await.unwrap()).await;
        assert_eq!(server.await.unwrap().unwrap(), PAYLOAD as u64);
    });
}

/// Both ends of a session, in memory.
async fn session() -> (Client, Server) {
    let (acceptor, certificate) = acceptor();
    let connector = connector([certificate]);
    let (near, far) = duplex().await.unwrap();
    let accept = acceptor.accept(ReadWrite::from(far));
    let (client, server) = zip(connect(&connector, near), accept).await;
    (client.unwrap(), server.unwrap())
}

#[test]
fn close_notify_is_the_end() {
    in_virtual_time(async || {
        let (mut client, mut server) = session().await;
        client.write_all(b"last words").await.unwrap();
        client.close().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        // The other way is open still.
        server.write_all(b"answer").await.unwrap();
        server.close().await.unwrap();
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
    });
}

#[test]
fn an_end_without_close_notify_is_an_error() {
    in_virtual_time(async || {
        let (mut client, mut server) = session().await;
        client.write_all(b"last words").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        let error = server.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!((error.kind(), &*heard), (io::ErrorKind::UnexpectedEof, &b"last words"[..]));
    });
}

/// What rustls says inside of an error.
fn reason(error: &io::Error) -> &Error {
    error.get_ref().and_then(|error| error.downcast_ref()).expect("it is from rustls")
}

/// A client that trusts nobody, over these.
async fn distrust(near: Streams, far: Streams) {
    let (acceptor, _unknown) = acceptor();
    let server = spawn(echo(acceptor, far));
    let refused = connect(&connector([]), near).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(reason(&refused), &unknown);
    let told = server.await.unwrap().unwrap_err();
    assert!(matches!(reason(&told), Error::AlertReceived(AlertDescription::UnknownCA)), "{told:?}");
}

#[test]
fn who_does_not_trust_the_certificate_fails_and_the_server_hears_why() {
    in_virtual_time(async || {
        let (near, far) = duplex().await.unwrap();
        distrust(near, far).await;
    });
    in_real_time(async || {
        let (near, far) = crate::support::tcp_pair().await;
        distrust(near, far).await;
    });
}
