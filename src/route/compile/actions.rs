//! What a route does: its publish or call, and their templates.

use super::{
    Bus, CONFIRM_TIMEOUT, Compiler, TIMEOUT,
    bus::{Kinds, declare_exchange},
    known::Known,
};
use crate::{
    route::{
        decode::At,
        file::{CallFile, PublishFile},
        problem::{Problem, Source, did_you_mean, meant},
        table::{Action, Call, Publish},
        template::{Piece, Template},
        yaml::Key,
    },
    topology::Declare,
};

impl Compiler<'_> {
    pub(super) fn publish(
        &mut self,
        written: &PublishFile,
        id: Option<&str>,
        known: &Known<'_>,
        bus: &Bus<'_>,
    ) -> Option<Action> {
        let source = &known.written.source;
        let exchange = written.exchange.as_ref();
        if let Some(exchange) = exchange {
            self.exchange_known(source, exchange, bus.kinds);
        }
        let key = written.key.as_ref().and_then(|key| self.key(source, key, known));
        let headers = self.templates(source, &written.headers, known);
        let (exchange, key) = (exchange?, key?);
        let reaches = bus.reach.queues(&exchange.value, &key);
        let mandatory = self.mandatory(written.unroutable);
        // An exchange that others declare may have bindings that the table does not know.
        let passive =
            bus.topology.exchanges.get(&exchange.value).is_some_and(|exchange| exchange.declare == Declare::Passive);
        if reaches.is_empty() && mandatory && !passive && bus.kinds.contains_key(&exchange.value) {
            let at = written.key.as_ref().map_or(written.at, |key| key.at);
            let mut problem =
                Problem::at(source, at, "unreceived-publish", "no queue of this table receives what is published here")
                    .warning();
            problem.hint = Some("bind a queue to it, or say `unroutable: accept` for a live-only route".into());
            self.problems.push(problem);
        }
        Some(Action::Publish(Publish {
            exchange: exchange.value.clone(),
            key,
            payload: self.payload(written.payload),
            headers,
            kind: written.kind.as_ref().map_or_else(|| id.unwrap_or_default().to_owned(), |at| at.value.clone()),
            expires: written.expires,
            priority: written.priority,
            confirm_timeout: written.confirm_timeout.or(self.file.defaults.confirm_timeout).unwrap_or(CONFIRM_TIMEOUT),
            mandatory,
            status: written.status.unwrap_or(202),
            reaches,
            location: false,
        }))
    }

    pub(super) fn call(&mut self, written: &CallFile, known: &Known<'_>, bus: &Bus<'_>) -> Option<Action> {
        let source = &known.written.source;
        if let Some(queue) = &written.queue
            && !bus.topology.queues.contains_key(&queue.value)
        {
            let hint = did_you_mean(&queue.value, bus.topology.queues.keys().map(String::as_str));
            let declare = "declare it under `queues:`, with `declare: passive` when others make it".to_owned();
            let hint = Some(hint.map_or(declare, meant));
            self.tell(source, queue.at, "unknown-queue", format!("there is no queue `{}`", queue.value), hint);
        }
        if let Some(queue) = written.queue.as_ref().filter(|queue| bus.topology.is_stream(&queue.value)) {
            let message =
                format!("`{}` is a stream, which is published to only: nobody answers calls from it", queue.value);
            self.tell(
                source,
                queue.at,
                "bad-argument",
                message,
                Some("name the queue of a worker, `type: rpc`".into()),
            );
        }
        if let Some(exchange) = &written.exchange {
            self.exchange_known(source, exchange, bus.kinds);
        }
        let headers = self.templates(source, &written.headers, known);
        let reply = written.reply_schema.as_ref().and_then(|node| self.schemas.resolve(source, node, self.problems));
        let (exchange, key) = match (&written.queue, &written.exchange, &written.key) {
            // A queue's name is no template: braces in it are braces.
            (Some(queue), ..) => {
                let pieces = vec![Piece::Literal(queue.value.clone())];
                (String::new(), Template { text: queue.value.clone(), pieces })
            }
            (None, Some(exchange), Some(key)) => (exchange.value.clone(), self.key(source, key, known)?),
            _ => return None,
        };
        Some(Action::Call(Call {
            exchange,
            key,
            timeout: written.timeout.or(self.file.defaults.timeout).unwrap_or(TIMEOUT),
            headers,
            reply,
        }))
    }

    fn exchange_known(&mut self, source: &Source, exchange: &At<String>, kinds: &Kinds) {
        if !kinds.contains_key(&exchange.value) {
            let hint = Some(declare_exchange(&exchange.value, kinds));
            self.tell(
                source,
                exchange.at,
                "unknown-exchange",
                format!("there is no exchange `{}`", exchange.value),
                hint,
            );
        }
    }

    fn templates(
        &mut self,
        source: &Source,
        written: &[(Key, At<String>)],
        known: &Known<'_>,
    ) -> Vec<(String, Template)> {
        let mut headers = Vec::new();
        for (key, text) in written {
            let taken = key.name.starts_with("fpesa-")
                || key.name.starts_with("x-")
                || matches!(key.name.as_str(), "traceparent" | "tracestate");
            if taken || key.name.is_empty() || key.name.len() > 128 {
                let hint = Some("names with `fpesa-` and `x-`, `traceparent` and `tracestate` are taken".into());
                self.tell(source, key.at, "bad-value", format!("`{}` can't be a message header", key.name), hint);
            }
            if let Some(template) = self.template(source, text, known) {
                headers.push((key.name.clone(), template));
            }
        }
        headers
    }

    fn template(&mut self, source: &Source, text: &At<String>, known: &Known<'_>) -> Option<Template> {
        let template = match Template::parse(&text.value) {
            Ok(template) => template,
            Err(why) => {
                let (why, hint) = why;
                self.tell(
                    source,
                    text.at,
                    "template-syntax",
                    format!("this template can't be read: {why}"),
                    Some(hint),
                );
                return None;
            }
        };
        for reference in template.references() {
            if let Err((message, hint)) = known.check(&reference.from) {
                self.tell(source, text.at, "template-unknown", message, hint);
            }
        }
        Some(template)
    }

    /// A template that becomes a routing key.
    fn key(&mut self, source: &Source, text: &At<String>, known: &Known<'_>) -> Option<Template> {
        /// Most bytes of a routing key (AMQP 0-9-1, short strings).
        const MOST: usize = 255;
        let template = self.template(source, text, known)?;
        let literals = template.pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => text.as_str(),
            Piece::Reference(_) => "",
        });
        let long: usize = literals.clone().map(str::len).sum();
        if long > MOST {
            let message = format!("this key has {long} bytes without its values, and {MOST} is the most");
            self.tell(source, text.at, "bad-value", message, Some("shorten it".into()));
            return None;
        }
        if literals.clone().any(|text| text.chars().any(char::is_control)) {
            self.tell(
                source,
                text.at,
                "bad-value",
                "a key holds no control characters".into(),
                Some("delete them".into()),
            );
        }
        for reference in template.references().filter(|reference| reference.default.as_deref() == Some("")) {
            let message = format!("the default of `{{{}}}` is empty, and a key has no empty word", reference.from);
            let hint = format!("write one, as in `{{{}:-general}}`, or none", reference.from);
            self.tell(source, text.at, "template-syntax", message, Some(hint));
        }
        Some(template)
    }
}
