//! The separator methods against a naive model, however the bytes are cut into pieces.

mod common;

use std::time::Duration;

use common::{cases, in_virtual_time, over};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tulipa_loop::{sleep, spawn};
use tulipa_streams::{DEFAULT_LIMIT, ReadError};

/// What one call gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Found(Vec<u8>),
    Incomplete(Vec<u8>),
    Overrun,
}

/// What the calls one after the other must give, until the end or a line that is too long.
fn model(data: &[u8], separators: &[Vec<u8>], limit: usize) -> Vec<Outcome> {
    let (mut outcomes, mut rest) = (Vec::new(), data);
    loop {
        let ends = (1..=rest.len()).find_map(|end| {
            let ending = separators.iter().filter(|separator| rest[..end].ends_with(separator));
            // Where the longest of those that end here begins.
            ending.map(|separator| end - separator.len()).min().map(|start| (start, end))
        });
        let longest = separators.iter().map(Vec::len).max().expect("there is one");
        match ends {
            Some((start, _)) if start > limit => break outcomes.push(Outcome::Overrun),
            Some((_, end)) => {
                outcomes.push(Outcome::Found(rest[..end].to_vec()));
                rest = &rest[end..];
            }
            None if rest.len().saturating_sub(longest - 1) > limit => {
                break outcomes.push(Outcome::Overrun);
            }
            None => break outcomes.push(Outcome::Incomplete(rest.to_vec())),
        }
    }
    outcomes
}

/// What they do give when the pieces come one by one, a second apart.
fn observed(pieces: &[&[u8]], separators: &[Vec<u8>], limit: usize) -> Vec<Outcome> {
    let pieces = Vec::from_iter(pieces.iter().map(|piece| piece.to_vec()));
    in_virtual_time(async |rig| {
        let (near, far) = rig.memory(1000);
        let ((mut reader, _writer), far) = over(near, far, limit).await;
        let feeding = spawn(async move {
            for piece in pieces {
                far.1.write(&piece);
                sleep(Duration::from_secs(1)).await;
            }
            far.1.write_eof();
            far
        });
        let separators = Vec::from_iter(separators.iter().map(Vec::as_slice));
        let mut outcomes = Vec::new();
        loop {
            let outcome = match reader.read_until_any(&separators).await {
                Ok(found) => Outcome::Found(found.to_vec()),
                Err(ReadError::Incomplete(error)) => Outcome::Incomplete(error.partial),
                Err(ReadError::LimitOverrun(_)) => Outcome::Overrun,
                Err(error) => panic!("{error}"),
            };
            let goes_on = matches!(outcome, Outcome::Found(_));
            outcomes.push(outcome);
            if !goes_on {
                feeding.await.expect("it feeds");
                return outcomes;
            }
        }
    })
}

/// Cut at each place, and into single bytes.
fn check_every_split(data: &[u8], separators: &[Vec<u8>], limit: usize) {
    let expected = model(data, separators, limit);
    for place in 0..=data.len() {
        let (first, second) = data.split_at(place);
        let outcomes = observed(&[first, second], separators, limit);
        assert_eq!(outcomes, expected, "{data:?} cut at {place}, {separators:?}, limit {limit}");
    }
    let bytes = Vec::from_iter(data.chunks(1));
    let outcomes = observed(&bytes, separators, limit);
    assert_eq!(outcomes, expected, "{data:?} in single bytes, {separators:?}, limit {limit}");
}

#[test]
fn b94_a_separator_across_a_border_is_found() {
    let separators = |separators: &[&str]| {
        Vec::from_iter(separators.iter().map(|separator| separator.as_bytes().to_vec()))
    };
    check_every_split(b"xaaab.aabaab", &separators(&["aab"]), DEFAULT_LIMIT);
    check_every_split(b"aaaaaaa", &separators(&["aa"]), DEFAULT_LIMIT);
    check_every_split(b"ababacababab", &separators(&["abab", "bac"]), DEFAULT_LIMIT);
    check_every_split(
        b"one\r\ntwo\rthree\n\r\n",
        &separators(&["\r\n", "\n", "\r"]),
        DEFAULT_LIMIT,
    );
    check_every_split(b"a longer one;", &separators(&[";;;;;;;;", ";"]), 12);
    check_every_split(b"a longer one;", &separators(&[";;;;;;;;", ";"]), 11);
}

#[test]
fn b94_any_separators_at_every_split_are_as_in_the_model() {
    let letters = || prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')];
    let separators = vec(vec(letters(), 1..4), 1..4);
    let limit = prop_oneof![Just(DEFAULT_LIMIT), 1..8_usize];
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let inputs = (vec(letters(), 0..16), separators, limit);
    let result = TestRunner::new(config).run(&inputs, |(data, separators, limit)| {
        check_every_split(&data, &separators, limit);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn lines_at_every_split_are_as_in_the_model() {
    let letters = prop_oneof![Just(b'a'), Just(b'\n')];
    let config = Config { cases: cases() / 4, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(letters, 0..12), |data| {
        for place in 0..=data.len() {
            let (first, second) = data.split_at(place);
            let (first, second) = (first.to_vec(), second.to_vec());
            let mut expected = Vec::from_iter(data.split_inclusive(|byte| *byte == b'\n'));
            expected.push(b"");
            in_virtual_time(async |rig| {
                let (near, far) = rig.memory(1000);
                let ((mut reader, _writer), (_r, writer)) = over(near, far, DEFAULT_LIMIT).await;
                let feeding = spawn(async move {
                    writer.write(&first);
                    sleep(Duration::from_secs(1)).await;
                    writer.write(&second);
                    writer.write_eof();
                });
                for line in &expected {
                    assert_eq!(reader.read_line().await.unwrap(), *line);
                }
                feeding.await.unwrap();
            });
        }
        Ok(())
    });
    result.unwrap();
}
