//! Heads, bodies and the rest of a connection, cut whole and in pieces.

use super::*;
use proptest::prelude::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &[0, 0, 0, 1], payload].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 127);
        field.push(length);
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// A head in frames of this size, with END_STREAM.
fn head(block: &[u8], piece: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let pieces: Vec<_> = block.chunks(piece).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let end = if n + 1 == pieces.len() {
            END_HEADERS
        } else {
            0
        };
        let (kind, flags) = if n == 0 {
            (HEADERS, END_STREAM | end)
        } else {
            (CONTINUATION, end)
        };
        frames.extend(frame(kind, flags, piece));
    }
    frames
}

/// What the parser gets of bytes that come in pieces of this size, and the most that is held.
fn cut(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), Forbidden> {
    let mut frames = Frames::default();
    let (mut given, mut most) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        if frames.ready().is_empty() && frames.is_usual(piece) {
            given.extend_from_slice(piece);
            continue;
        }
        frames.take(piece)?;
        given.extend_from_slice(frames.ready());
        frames.give(frames.ready().len());
        if let Some(block) = &frames.block {
            most = most.max(block.kept.capacity() + block.field.bytes().len());
        }
    }
    Ok((given, most))
}

fn both_ways(bytes: &[u8]) -> Vec<u8> {
    let whole = cut(bytes, bytes.len()).unwrap().0;
    for piece in [1, 7, 10, 2_048] {
        let (given, held) = cut(bytes, piece).unwrap();
        assert_eq!(given, whole, "in pieces of {piece}");
        assert!(held <= 3 * KEPT_HEAD_BYTES, "{held} bytes held");
    }
    whole
}

#[test]
fn what_fits_is_passed_on_as_it_is() {
    let block = [&b"\x88"[..], &field("x", "y"), &field("content-type", "a")].concat();
    let frames = [
        frame(4, 0, &[]),
        frame(6, 0, &[7; 8]),
        frame(HEADERS, END_HEADERS, &block),
        frame(0, 0, &[b'z'; 2_000]),
        frame(0, END_STREAM, &[]),
        frame(200, 0xff, b"unknown"),
        frame(HEADERS, END_HEADERS | END_STREAM, &field("trailer", "x")),
    ];
    assert_eq!(both_ways(&frames.concat()), frames.concat());
    // Broken off in a field, broken into, and nothing to break into.
    for strange in [
        frame(HEADERS, END_HEADERS, b"\x88\x00\x05na"),
        [frame(HEADERS, 0, b"\x88"), frame(0, 0, b"data")].concat(),
        frame(CONTINUATION, END_HEADERS, b"\x88"),
    ] {
        assert_eq!(both_ways(&strange), strange);
    }
}

#[test]
fn g10_no_frame_is_longer_than_the_parser_has_room_for() {
    let whole = [
        frame(4, 0, &[7; 16_380]),
        frame(0, END_STREAM, &[b'z'; 16_384]),
        frame(7, 0, &[b'z'; 16_384]),
    ];
    let mut expected = frame(4, 0, &[7; OTHER_BYTES]);
    expected.extend(frame(0, 0, &[b'z'; PIECE_BYTES]).repeat(7));
    expected.extend(frame(0, END_STREAM, &[b'z'; PIECE_BYTES]));
    expected.extend(frame(7, 0, &[b'z'; OTHER_BYTES]));
    assert_eq!(both_ways(&whole.concat()), expected);
    // The parser refuses it by its length.
    let longer = frame(0, 0, &vec![b'z'; 16_385]);
    assert_eq!(both_ways(&longer), longer);
}

#[test]
fn a_head_in_parts_and_with_padding_becomes_one_frame() {
    let block = [&b"\x88"[..], &field("x", "y"), &field("a", "b")].concat();
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, &block);
    for piece in [1, 2, 3, 7] {
        assert_eq!(both_ways(&head(&block, piece)), whole, "{piece}");
    }
    let padded = [&[3_u8][..], &[0, 0, 0, 9, 1], &block, &[0, 0, 0]].concat();
    let flags = END_HEADERS | END_STREAM | PADDED | PRIORITY;
    assert_eq!(both_ways(&frame(HEADERS, flags, &padded)), whole);
}

#[test]
fn informational_answers_are_left_out() {
    let link = field("link", "</a>");
    let early = frame(HEADERS, END_HEADERS, &[b"\x08\x03103", &link[..]].concat());
    let answer = frame(HEADERS, END_HEADERS | END_STREAM, b"\x89");
    let given = both_ways(&[early.repeat(3), answer.clone()].concat());
    assert_eq!(given, answer);
}

#[test]
fn g10_fields_beyond_the_bounds_are_left_out_and_those_that_are_needed_are_not() {
    let long = [&b"\x00\x06x-long\x7f\xa1\x9b\x01"[..], &vec![b'z'; 20_000]].concat();
    let many = field("x", "y").repeat(500);
    let after = b"\x0f\x26\x017".to_vec();
    let block = [b"\x88".to_vec(), long.clone(), many, long, after.clone()].concat();
    let note = field(NOTE.as_str(), CUT);
    let kept = field("x", "y").repeat(RESPONSE_HEADERS);
    let kept = [b"\x88".to_vec(), kept, after, note].concat();
    let expected = frame(HEADERS, END_HEADERS | END_STREAM, &kept);
    assert_eq!(both_ways(&head(&block, 16_384)), expected);
}

#[test]
fn g10_a_head_without_end_is_said_to_be_too_large_at_once() {
    let endless = [
        &b"\x88\x00\x01x\x7f\xff\xff\xff\x01"[..],
        &vec![b'z'; 100_000],
    ]
    .concat();
    let mut bytes = head(&endless, 16_384);
    let note = [b"\x88", &field(NOTE.as_str(), TOO_LARGE)[..]].concat();
    let expected = frame(HEADERS, END_HEADERS | END_STREAM, &note);
    assert_eq!(both_ways(&bytes[..80_000]), expected);
    // The connection goes on, without the rest of it.
    let next = frame(0, 0, b"data");
    bytes.extend_from_slice(&next);
    assert_eq!(both_ways(&bytes), [expected, next].concat());
}

#[test]
fn g10_what_was_told_to_be_off_is_cut_off() {
    assert_eq!(
        cut(&frame(PUSH_PROMISE, END_HEADERS, b"x"), 3),
        Err(Forbidden)
    );
    // Referring to the table is one thing, and to what was left out of it another.
    let inserted = b"\x40\x01x\x01y".to_vec();
    let referred = frame(HEADERS, END_HEADERS, b"\x88\xbe");
    let few = frame(HEADERS, END_HEADERS, &[b"\x88", &inserted[..]].concat());
    let whole = [few, referred.clone()].concat();
    assert_eq!(both_ways(&whole), whole);
    let many = frame(
        HEADERS,
        END_HEADERS,
        &[b"\x88", &inserted.repeat(70)[..]].concat(),
    );
    assert_eq!(cut(&[many, referred].concat(), 100), Err(Forbidden));
}

proptest! {
    /// G10: whatever comes and in whatever pieces, it makes no difference, and what is held is bounded.
    #[test]
    fn g10_pieces_make_no_difference(
        block in proptest::collection::vec(any::<u8>(), 0..9_000),
        kinds in proptest::collection::vec((0_u8..10, any::<u8>(), 0_usize..4_000), 0..8),
        piece in 1_usize..3_000,
    ) {
        let mut bytes = Vec::new();
        for (kind, flags, length) in kinds {
            bytes.extend(frame(kind, flags, &block[..length.min(block.len())]));
        }
        match (cut(&bytes, bytes.len().max(1)), cut(&bytes, piece)) {
            (Ok((whole, _)), Ok((given, held))) => {
                prop_assert_eq!(whole, given);
                prop_assert!(held <= 3 * KEPT_HEAD_BYTES);
            }
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }
}
