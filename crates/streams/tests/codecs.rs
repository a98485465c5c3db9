//! Codecs: the same frames however the bytes are cut, for streams and for protocols.

mod common;

use std::fmt::Debug;
use std::io::{self, ErrorKind};

use common::{cases, each_way, in_memory};
use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tulipa_protocols::{Detached, Protocol, Transport};
use tulipa_streams::codec::{
    AnyDelimiter, Decoder, Encoder, Framed, Frames, LengthDelimited, LengthWidth, LinesCodec,
    write_frame,
};
use tulipa_streams::{LimitOverrun, ReadError};

fn encoded<T>(encoder: &mut impl Encoder<T>, frames: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut output = Vec::new();
    for frame in frames {
        encoder.encode(frame, &mut output).unwrap();
    }
    output
}

/// All frames of what comes in these pieces, and what follows them.
fn decoded<D: Decoder>(decoder: D, pieces: &[&[u8]]) -> (Vec<D::Frame>, Option<ReadError>) {
    let mut frames = Frames::new(decoder);
    let mut all = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        frames.feed(piece);
        if place + 1 == pieces.len() {
            frames.feed_eof();
        }
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => all.push(frame),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
    }
    assert_eq!(frames.unused(), b"");
    (all, None)
}

/// Cut at every place, and into single bytes, the frames are these.
#[track_caller]
fn check<D: Decoder<Frame: PartialEq + Debug>>(
    decoder: impl Fn() -> D,
    data: &[u8],
    frames: &[D::Frame],
) {
    for place in 0..=data.len() {
        let (first, second) = data.split_at(place);
        let (all, error) = decoded(decoder(), &[first, second]);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(all, frames, "cut at {place}");
    }
    let bytes = Vec::from_iter(data.chunks(1));
    assert_eq!(decoded(decoder(), &bytes).0, frames);
}

#[test]
fn lines_are_text_with_either_end() {
    let frames = ["one", "", "two", "three"].map(str::to_owned);
    check(LinesCodec::new, b"one\n\r\ntwo\r\nthree", &frames);
    let sent = encoded(&mut LinesCodec::new(), ["one", "", "two"]);
    assert_eq!(sent, b"one\n\ntwo\n");
    let (frames, error) = decoded(LinesCodec::new(), &[b"good\n\xff\n"]);
    assert_eq!(frames, ["good"]);
    assert_eq!(io::Error::from(error.unwrap()).kind(), ErrorKind::InvalidData);
    let error = LinesCodec::new().encode("two\nlines", &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn lines_have_a_limit() {
    let overrun = |pieces: &[&[u8]]| {
        let (frames, error) = decoded(LinesCodec::with_limit(5), pieces);
        assert!(frames.is_empty());
        assert!(matches!(error, Some(ReadError::LimitOverrun(LimitOverrun { limit: 5, .. }))));
    };
    overrun(&[b"123456\n"]);
    overrun(&[b"123456"]);
    overrun(&[b"123", b"456"]);
    check(|| LinesCodec::with_limit(5), b"12345\n12345", &["12345".to_owned(), "12345".to_owned()]);
}

#[test]
fn any_delimiter_ends_a_frame() {
    let codec = || AnyDelimiter::new(["--", ";", "\r\n"]);
    let frames = [&b"a-"[..], b"b", b"", b"c\r"].map(<[u8]>::to_vec);
    check(codec, b"a-;b--\r\nc\r", &frames);
    assert_eq!(encoded(&mut codec(), [&b"a-"[..], b"b"][1..].iter()), b"b--");
    for bad in ["a;", "a\r\nb", "a-"] {
        // The last one would end a byte early, with the separator that follows.
        let error = codec().encode(bad, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
    }
}

#[test]
fn frames_behind_their_length() {
    let frames = [&b"one"[..], b"", b"three"].map(<[u8]>::to_vec);
    for (width, count) in [
        (LengthWidth::One, 1),
        (LengthWidth::Two, 2),
        (LengthWidth::Four, 4),
        (LengthWidth::Eight, 8),
    ] {
        let data = encoded(&mut LengthDelimited::with_width(width), &frames);
        assert_eq!(data.len(), 8 + 3 * count);
        check(|| LengthDelimited::with_width(width), &data, &frames);
    }
    let (none, error) = decoded(LengthDelimited::new(), &[b"\0\0\0\x04abc"]);
    assert!(none.is_empty());
    assert!(matches!(error, Some(ReadError::Incomplete(_))), "{error:?}");
}

#[test]
fn a_length_over_the_limit_is_an_error_at_once_and_takes_no_memory() {
    for head in [&[0xff; 8], &[0, 0, 0, 0, 0, 0, 0, 11]] {
        let codec = LengthDelimited::with_width(LengthWidth::Eight).with_limit(10);
        let (_, error) = decoded(codec, &[head]);
        assert!(matches!(error, Some(ReadError::LimitOverrun(LimitOverrun { limit: 10, .. }))));
    }
    let mut small = LengthDelimited::with_width(LengthWidth::One);
    let error = small.encode([0; 256], &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_sent_is_what_is_decoded() {
    let frames = vec(vec(any::<u8>(), 0..20), 0..10);
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let inputs = (frames, vec(1..30_usize, 1..10));
    let result = TestRunner::new(config).run(&inputs, |(frames, cuts)| {
        let data = encoded(&mut LengthDelimited::new(), &frames);
        let (mut rest, mut pieces) = (&data[..], Vec::new());
        for cut in cuts.iter().cycle().take(1000) {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        let (all, error) = decoded(LengthDelimited::new(), &pieces);
        assert!(error.is_none());
        assert_eq!(all, frames);
        let mut codec = AnyDelimiter::new(["ab", "b"]);
        let mut data = Vec::new();
        let sent = frames.into_iter().filter(|frame| codec.encode(frame, &mut data).is_ok());
        let sent = Vec::from_iter(sent);
        assert_eq!(decoded(codec.clone(), &[&data]).0, sent);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_connection_in_frames() {
    each_way(async |near, far| {
        let mut near = Framed::new(near.0, near.1, LengthDelimited::new());
        let mut far = Framed::new(far.0, far.1, LengthDelimited::new());
        let much = std::vec![7_u8; 1000];
        let talk = async {
            near.send("one").await.unwrap();
            near.send(&much).await.unwrap();
            near.writer().write_eof();
            assert_eq!(near.next_frame().await.unwrap().unwrap(), b"answer");
        };
        let listen = async {
            assert_eq!(far.next_frame().await.unwrap().unwrap(), b"one");
            assert_eq!(far.next().await.unwrap().unwrap(), [7; 1000]);
            assert!(far.next().await.is_none());
            far.feed("answer").unwrap();
        };
        futures_lite::future::zip(talk, listen).await;
    });
}

#[test]
fn a_frame_that_was_given_up_is_read_later_and_the_parts_can_be_had_back() {
    in_memory(async |near, (_r, writer)| {
        let mut near = Framed::new(near.0, near.1, LinesCodec::new());
        writer.write(b"one\ntw");
        assert_eq!(near.next_frame().await.unwrap().unwrap(), "one");
        assert!(poll_once(near.next_frame()).await.is_none());
        writer.write(b"o\nrest;");
        assert_eq!(near.next_frame().await.unwrap().unwrap(), "two");
        assert!(poll_once(near.next_frame()).await.is_none());
        let (reader, near_writer, _codec) = near.into_parts();
        let mut near = Framed::new(reader, near_writer, AnyDelimiter::new([";"]));
        assert_eq!(near.next_frame().await.unwrap().unwrap(), b"rest");
    });
}

#[test]
fn an_error_is_the_last_frame() {
    in_memory(async |near, (_r, writer)| {
        let mut near = Framed::new(near.0, near.1, LinesCodec::with_limit(3));
        writer.write(b"one\nthree\ntwo\n");
        assert_eq!(near.next().await.unwrap().unwrap(), "one");
        assert!(near.next().await.unwrap().is_err());
        assert!(near.next().await.is_none());
    });
}

/// Takes nothing and is never content.
struct Never;

impl Decoder for Never {
    type Frame = ();

    fn decode(&mut self, _: &[u8]) -> Result<Option<((), usize)>, ReadError> {
        Ok(None)
    }

    fn most(&self) -> usize {
        1000
    }
}

#[test]
fn a_decoder_that_never_finds_a_frame_does_not_make_the_buffer_grow() {
    in_memory(async |near, (_r, writer)| {
        let mut near = Framed::new(near.0, near.1, Never);
        writer.write(&[0; 100_000]);
        let error = near.next_frame().await.unwrap_err();
        assert!(matches!(error, ReadError::LimitOverrun(_)), "{error}");
        assert!(near.reader().buffered().len() <= 1000 + 64 * 1024);
    });
}

struct Upper(Frames<LinesCodec>);

impl Protocol for Upper {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> io::Result<()> {
        self.0.feed(data);
        while let Some(line) = self.0.next_frame()? {
            write_frame(transport, self.0.codec(), line.to_uppercase())?;
        }
        Ok(())
    }
}

#[test]
fn the_same_codec_serves_a_protocol() {
    let mut connection = Detached::new(Upper(Frames::new(LinesCodec::with_limit(10))));
    for byte in b"one\ntwo\r\n" {
        connection.feed(&[*byte]);
    }
    assert_eq!(connection.written(), b"ONE\nTWO\n");
    connection.feed(b"more than ten bytes");
    assert!(connection.is_over());
}
