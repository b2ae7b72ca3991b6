//! What an event is in a collection: its id, its place in the order as one value that sorts as `(time, id)` does, its
//! topic, its text, and where it can be exact the text's mirror.

use bytes::Bytes;
use mongodb::bson::{Binary, DateTime, RawBson, RawDocument, RawDocumentBuf, raw::cstr, spec::BinarySubtype};
use uuid::Uuid;

use super::mirror;
use crate::{
    event::Event,
    store::{Cursor, StoreError},
};

/// Largest document that a server takes.
const MOST: usize = 16 * 1024 * 1024;

/// The document of an event, with its mirror where it has one and `mirrored` asks for it. `None` when it is larger than
/// a server takes.
pub(super) fn of(event: &Event, mirrored: bool) -> Option<RawDocumentBuf> {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), id(&event.id));
    document.append(cstr!("place"), place(&event.place()));
    // For people: the place holds the microseconds.
    document.append(cstr!("time"), DateTime::from_millis(event.time.div_euclid(1000)));
    if let Some(topic) = &event.subject {
        document.append(cstr!("topic"), topic.as_str());
    }
    document.append(cstr!("text"), Binary { subtype: BinarySubtype::Generic, bytes: event.text.to_vec() });
    let room = MOST.checked_sub(document.as_bytes().len() + 16)?;
    let mirror = if mirrored { mirror::exact_in_bson(&event.text) } else { None };
    match mirror.filter(|mirror| mirror.as_bytes().len() <= room) {
        Some(mirror) => document.append(cstr!("doc"), mirror),
        None => document.append(cstr!("doc"), RawBson::Null),
    }
    Some(document)
}

/// An id as MongoDB's UUID.
pub(super) fn id(id: &Uuid) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() }
}

/// A place as bytes of one length, which MongoDB compares one by one: the time with its sign turned, then the id.
pub(super) fn place(place: &Cursor) -> Binary {
    let time = place.time.cast_unsigned() ^ (1 << 63);
    let bytes = [&time.to_be_bytes()[..], place.id.as_bytes()].concat();
    Binary { subtype: BinarySubtype::Generic, bytes }
}

/// The place and the text of a document.
pub(super) fn read(document: &RawDocument) -> Result<(Cursor, Bytes), StoreError> {
    let text = document.get_binary("text").map_err(|_| not_ours())?.bytes;
    Ok((place_of(document)?, Bytes::copy_from_slice(text)))
}

/// The place of a document.
pub(super) fn place_of(document: &RawDocument) -> Result<Cursor, StoreError> {
    let read = || {
        let (time, id) = document.get_binary("place").ok()?.bytes.split_first_chunk::<8>()?;
        let time = (u64::from_be_bytes(*time) ^ (1 << 63)).cast_signed();
        Some(Cursor { time, id: Uuid::from_slice(id).ok()? })
    };
    read().ok_or_else(not_ours)
}

fn not_ours() -> StoreError {
    StoreError::Away("MongoDB: a document of fpesa_event is none of ours".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_sort_as_time_and_id_do(
            (time, other) in any::<(i64, i64)>(), (id, another) in any::<(u128, u128)>(), same in any::<bool>()
        ) {
            let a = Cursor { time, id: Uuid::from_u128(id) };
            let b = Cursor { time: if same { time } else { other }, id: Uuid::from_u128(another) };
            prop_assert_eq!(a.cmp(&b), place(&a).bytes.cmp(&place(&b).bytes));
        }
    }

    #[test]
    fn what_is_too_large_has_no_document_and_what_only_its_mirror_makes_too_large_no_mirror() {
        let event = |data: &str| {
            let text = format!(
                r#"{{"specversion":"1.0","id":"0193f1c2-7d3a-7c3e-9d4e-0123456789ab","source":"/r","type":"t","time":"1969-11-23T18:27:58.123456Z","data":"{data}"}}"#
            );
            Event::parse(text.into()).unwrap()
        };
        let small = event("x");
        let document = of(&small, true).unwrap();
        assert_eq!(read(&document).unwrap(), (Cursor { time: small.time, id: small.id }, small.text.clone()));
        assert!(document.get_document("doc").unwrap().get_str("data").is_ok());
        assert!(of(&small, false).unwrap().get_document("doc").is_err());
        let alone = event(&"x".repeat(9 << 20));
        let document = of(&alone, true).unwrap();
        assert!(document.get_document("doc").is_err() && document.as_bytes().len() < MOST);
        assert!(of(&event(&"x".repeat(MOST)), true).is_none());
    }
}
