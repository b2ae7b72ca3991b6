//! The event: one CloudEvents 1.0 document, kept byte for byte, with what it is found by.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};
use uuid::Uuid;

use crate::{Job, store::Cursor, topic::topic_of_key};

/// Content type of an event in structured JSON mode.
pub const CLOUDEVENT: &str = "application/cloudevents+json";

/// Header of a published message: the event's time, as [`time_text`] writes it.
pub const TIME_HEADER: &str = "fpesa-time";

/// One event. `text` is the truth; the rest is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id.
    pub id: Uuid,
    /// The event's time, in microseconds since 1970.
    pub time: i64,
    /// The MQTT topic; `None` where the key was empty.
    pub subject: Option<String>,
    /// The whole document.
    pub text: Bytes,
}

/// Why a message is no event; the sentence says what is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnEvent(pub String);

/// The members of a document that matter here; what else it holds is left alone.
#[derive(Deserialize)]
struct Envelope<'a> {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    time: Option<String>,
    subject: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

impl Event {
    /// Reads the event of a delivered message: the body itself when it is a structured `CloudEvent`, else one that is
    /// built from the message's properties around its body.
    pub fn from_job(job: &Job) -> Result<Self, NotAnEvent> {
        let essence = job.content_type.as_deref().unwrap_or("").split(';').next().unwrap_or("").trim();
        if essence.eq_ignore_ascii_case(CLOUDEVENT) { Self::parse(job.body.clone()) } else { Self::around(job) }
    }

    /// Reads a document.
    pub fn parse(text: Bytes) -> Result<Self, NotAnEvent> {
        let not = |why: String| NotAnEvent(why);
        let envelope: Envelope<'_> = serde_json::from_slice(&text)
            .map_err(|error| not(format!("the body is no CloudEvent in JSON: {error}")))?;
        if envelope.specversion != "1.0" {
            return Err(not("the event's specversion is not 1.0".into()));
        }
        if envelope.source.is_empty() || envelope.r#type.is_empty() {
            return Err(not("the event has an empty source or type".into()));
        }
        let id = uuid(&envelope.id).ok_or_else(|| not("the event's id is no UUID".into()))?;
        let time = envelope.time.as_deref().ok_or_else(|| not("the event has no time".into()))?;
        let time = micros(time).ok_or_else(|| not("the event's time is not RFC 3339".into()))?;
        let subject = envelope.subject.filter(|subject| !subject.is_empty());
        Ok(Self { id, time, subject, text })
    }

    /// Builds the event that a message with `payload: body` stands for.
    fn around(job: &Job) -> Result<Self, NotAnEvent> {
        let not = |why: &str| NotAnEvent(why.to_owned());
        let id =
            job.message_id.as_deref().and_then(uuid).ok_or_else(|| not("the message has no UUID as message_id"))?;
        // Not the property `timestamp`: whole seconds would put it out of its place.
        let time = job.headers.get(TIME_HEADER).and_then(|text| micros(text)).unwrap_or(job.arrived);
        let route = job.headers.get("fpesa-route").map_or("", String::as_str);
        let subject = (!job.key.is_empty()).then(|| topic_of_key(&job.key));
        let kind = job.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("message");
        let mut members = vec![
            ("specversion", "1.0".to_owned()),
            ("id", id.hyphenated().to_string()),
            ("source", format!("/{route}")),
            ("type", kind.to_owned()),
        ];
        members.extend(subject.clone().map(|subject| ("subject", subject)));
        members.push(("time", time_text(time)));
        members.extend(job.headers.get("traceparent").map(|parent| ("traceparent", parent.clone())));
        let content_type = job.content_type.as_deref().unwrap_or("");
        let json = is_json(content_type) && serde_json::from_slice::<&RawValue>(&job.body).is_ok();
        if !job.body.is_empty() {
            if !content_type.is_empty() {
                members.push(("datacontenttype", content_type.to_owned()));
            }
            if !json {
                members.push(("data_base64", BASE64.encode(&job.body)));
            }
        }
        let mut text = Vec::with_capacity(job.body.len() + 300);
        for (name, value) in members {
            text.extend_from_slice(if text.is_empty() { b"{\"" } else { b",\"" });
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\":");
            text.extend(serde_json::to_vec(&value).map_err(|error| NotAnEvent(error.to_string()))?);
        }
        if json && !job.body.is_empty() {
            text.extend_from_slice(b",\"data\":");
            text.extend_from_slice(&job.body);
        }
        text.push(b'}');
        Ok(Self { id, time, subject, text: text.into() })
    }

    /// Where it stands in the order of history.
    pub fn place(&self) -> Cursor {
        Cursor { time: self.time, id: self.id }
    }

    /// Whether this is the same event as another with its id: same type, subject and data.
    pub fn is_same_as(&self, other: &[u8]) -> bool {
        let read = |text| serde_json::from_slice::<Envelope<'_>>(text).ok();
        let (Some(mine), Some(theirs)) = (read(&self.text), read(other)) else { return false };
        mine.r#type == theirs.r#type
            && mine.subject == theirs.subject
            && mine.data.map(RawValue::get) == theirs.data.map(RawValue::get)
            && mine.data_base64 == theirs.data_base64
    }
}

/// A UUID in its usual form of 36 characters.
pub fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::parse_str(text).ok()).flatten()
}

/// Microseconds since 1970 of an RFC 3339 time.
pub fn micros(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(unix_micros)
}

/// RFC 3339 in UTC with six digits of a second, so that texts sort as times do.
pub fn time_text(micros: i64) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    // The years that `time` knows are those that RFC 3339 can write; what is beyond is of no message.
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(FORMAT).unwrap_or_default()
}

/// Microseconds since 1970.
pub fn unix_micros(at: OffsetDateTime) -> i64 {
    // The years that `time` knows fit: 9999 is 2.5e17 microseconds.
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0193f1c2-7d3a-7c3e-9d4e-0123456789ab";

    fn structured(data: &str) -> Result<Event, NotAnEvent> {
        let text = format!(
            r#"{{"specversion":"1.0","id":"{ID}","source":"/r","type":"t","subject":"a/b","time":"2026-11-23T18:27:58.123456Z","data":{data}}}"#
        );
        Event::parse(text.into())
    }

    #[test]
    fn data_that_the_gateway_would_refuse_is_kept_as_it_is() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for data in [r#""\ud800""#, "1e400", &deep, r#"{"a":1,"a":2}"#, " { \"x\" :\n1 } ", r#""\u0000""#] {
            let event = structured(data).unwrap();
            assert_eq!(event.time, 1_795_458_478_123_456);
            assert!(event.text.windows(data.len()).any(|part| part == data.as_bytes()));
            assert!(event.is_same_as(&event.text));
            assert!(!event.is_same_as(&structured("7").unwrap().text));
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for text in
            ["", "{}", "[]", r#"{"specversion":"1.0","id":"x","source":"/","type":"t","time":"2026-11-23T18:27:58Z"}"#]
        {
            assert!(Event::parse(Bytes::copy_from_slice(text.as_bytes())).is_err(), "{text}");
        }
        assert!(structured("nope").is_err());
    }

    #[test]
    fn a_plain_body_becomes_an_event() {
        let mut job = Job {
            key: "files.new".into(),
            message_id: Some(ID.into()),
            content_type: Some("application/json".into()),
            kind: Some("upload".into()),
            arrived: 1_795_458_478_123_456,
            headers: [("fpesa-route".to_owned(), "put-file".to_owned())].into(),
            body: Bytes::from_static(b"{\"n\": 12345678901234567890}"),
            ..Job::default()
        };
        let event = Event::from_job(&job).unwrap();
        let text = std::str::from_utf8(&event.text).unwrap();
        assert!(
            text.ends_with(r#","datacontenttype":"application/json","data":{"n": 12345678901234567890}}"#),
            "{text}"
        );
        assert!(text.contains(r#""source":"/put-file","type":"upload","subject":"files/new""#), "{text}");
        // Without a time of its own it takes that of its arrival.
        assert_eq!(event.time, job.arrived);
        assert!(text.contains(r#""time":"2026-11-23T18:27:58.123456Z""#), "{text}");
        for (time, expected) in [
            ("2026-11-23T18:27:58.000001Z", 1_795_458_478_000_001),
            ("2026-11-23T19:27:58.5+01:00", 1_795_458_478_500_000),
            ("yesterday", job.arrived),
        ] {
            job.headers.insert(TIME_HEADER.into(), time.into());
            let event = Event::from_job(&job).unwrap();
            assert_eq!((event.time, Event::parse(event.text.clone()).unwrap().time), (expected, expected), "{time}");
        }
        job.content_type = Some("image/png".into());
        let event = Event::from_job(&job).unwrap();
        assert!(std::str::from_utf8(&event.text).unwrap().contains("data_base64"));
        job.message_id = Some("no uuid".into());
        assert!(Event::from_job(&job).is_err());
    }
}
