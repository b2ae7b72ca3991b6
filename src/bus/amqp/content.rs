//! A message that comes in as a method, a content header and body frames (AMQP 0-9-1, 4.2.6).

use super::content_header::ContentHeader;
use crate::message::Properties;

/// The content that one channel is in the middle of; its method has come.
#[derive(Default)]
pub(super) struct Content {
    pub properties: Properties,
    pub body: Vec<u8>,
    missing: usize,
    /// Most bytes of a body that are collected; `None` for all.
    max_bytes: Option<usize>,
    /// Whether the body has more, and is passed over.
    pub is_too_large: bool,
}

impl Content {
    /// One whose body is collected up to so many bytes.
    pub fn up_to(max_bytes: usize) -> Self {
        Self { max_bytes: Some(max_bytes), ..Self::default() }
    }

    /// Its header, and whether it is whole by that: it may have no body.
    pub fn header(&mut self, header: ContentHeader) -> bool {
        self.missing = usize::try_from(header.body_size).unwrap_or(usize::MAX);
        self.is_too_large = self.max_bytes.is_some_and(|max_bytes| self.missing > max_bytes);
        self.properties = header.properties;
        self.missing == 0
    }

    /// A part of its body, and whether it is whole by that.
    pub fn part(&mut self, part: Vec<u8>) -> bool {
        self.missing = self.missing.saturating_sub(part.len());
        if self.is_too_large {
            // Nobody wants it.
        } else if self.body.is_empty() {
            self.body = part;
        } else {
            self.body.extend(part);
        }
        self.missing == 0
    }
}
