//! The grammar of `routes.yaml` as data: every key with its shape, meaning and default. The parser's checks and the JSON
//! Schema for editors are both made of it, so that what one accepts the other accepts.

use super::{
    file::{DECLARE, Method, PAYLOAD, QUEUE_KIND, UNROUTABLE},
    json::MAX_DEPTH_LIMIT,
};

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Text that is not empty.
    Text,
    /// Text, empty too.
    AnyText,
    /// `true` or `false`.
    Flag,
    /// The version of the grammar.
    Version,
    /// A whole number within bounds, both included.
    Integer(u64, u64),
    /// The same, or this word.
    IntegerOr(u64, u64, &'static str),
    /// One of a few HTTP statuses.
    Status(&'static [u16]),
    /// One of a few words.
    Word(&'static [&'static str]),
    /// As [`crate::units::duration`] reads it.
    Duration,
    /// As [`crate::units::size`] reads it.
    Size,
    /// Text, a number or a boolean.
    Scalar,
    /// A mapping with known keys.
    Object(&'static Object),
    /// A list; each item, as a sentence calls it.
    List(&'static str, &'static Shape),
    /// One value or a list of them.
    OneOrMore(&'static str, &'static Shape),
    /// A mapping from names of the user's choice; each value, as a sentence calls it.
    Names(&'static str, &'static Shape),
    /// The name of a file in `schemas/`, or a JSON Schema.
    Schema,
    /// A JSON Schema with [`PARAMETER`]'s keys among its own.
    Parameter,
}

/// A mapping with known keys.
#[derive(Debug)]
pub struct Object {
    /// Its name among the schema's definitions.
    pub name: &'static str,
    /// What it is, for people who write one.
    pub description: &'static str,
    /// Its keys.
    pub keys: &'static [Field],
    /// What must be there beyond the required keys.
    pub rule: Rule,
}

/// One key of an [`Object`].
#[derive(Debug)]
pub struct Field {
    /// As written.
    pub name: &'static str,
    /// What its value must be.
    pub shape: Shape,
    /// Whether it must be there.
    pub need: Need,
    /// What it means.
    pub description: &'static str,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// It must; what to do about it when it is not.
    Required(&'static str),
    /// It need not.
    Optional,
    /// It need not, and this is what counts then; JSON.
    Default(&'static str),
}

/// What a mapping must have beyond its required keys.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Nothing.
    Free,
    /// At least one of these keys.
    Some(&'static [&'static str], Missing),
    /// Exactly one of these groups, whole, and no key of another one.
    One(&'static [&'static [&'static str]], Missing),
}

/// What is told when a [`Rule`] is broken.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    /// What is wrong, after the mapping's name.
    pub what: &'static str,
    /// What to do about it.
    pub hint: &'static str,
}

/// The largest integer that every reader of JSON holds exactly.
pub const MOST: u64 = 9_007_199_254_740_991;

const fn field(name: &'static str, shape: Shape, need: Need, description: &'static str) -> Field {
    Field { name, shape, need, description }
}

/// The words of a table of words and their values.
const fn words<T: Copy, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = table[at].0;
        at += 1;
    }
    words
}

static METHODS: [&str; 5] = words(&Method::ALL);
static UNROUTABLES: [&str; 2] = words(&UNROUTABLE);
static PAYLOADS: [&str; 2] = words(&PAYLOAD);
static QUEUE_KINDS: [&str; 4] = words(&QUEUE_KIND);
static DECLARES: [&str; 2] = words(&DECLARE);

/// `delivery_limit: policy`
pub static BY_POLICY: &str = "policy";

/// What a publish can answer.
pub static STATUSES: [u16; 4] = [200, 201, 202, 204];

/// Types that the text of a parameter is turned into.
pub static PARAMETER_TYPES: [&str; 5] = ["string", "integer", "number", "boolean", "array"];

/// The whole file.
pub static TABLE: Object = Object {
    name: "table",
    description: "A table: each route is an endpoint, and says what a request becomes on the bus.",
    rule: Rule::Some(
        &["routes", "include"],
        Missing { what: "has no `routes`", hint: "add `routes:` with at least one route, or `include:`" },
    ),
    keys: &[
        field("version", Shape::Version, Need::Required("begin with `version: 1`"), "The version of this grammar: 1."),
        field("base_path", Shape::Text, Need::Default("\"/\""), "Prefix of every route, such as `/api/v1`."),
        field("defaults", Shape::Object(&DEFAULTS), Need::Optional, "For routes that don't say."),
        field(
            "include",
            Shape::OneOrMore("a glob", &Shape::Text),
            Need::Optional,
            "More files with `routes:`. A glob, or several, relative to this file's folder, such as `routes/*.yaml`.",
        ),
        field("routes", Shape::List("a route", &Shape::Object(&ROUTE)), Need::Optional, "The endpoints."),
        field(
            "queues",
            Shape::Names("queue", &Shape::Object(&QUEUE)),
            Need::Optional,
            "Queues by name: declared before a route uses them.",
        ),
        field(
            "exchanges",
            Shape::Names("exchange", &Shape::Object(&EXCHANGE)),
            Need::Optional,
            "Exchanges by name. The broker's own `amq.*` need no entry.",
        ),
        field(
            "workers",
            Shape::Names("worker", &Shape::Object(&WORKER)),
            Need::Optional,
            "Workers of fpesa's own by name. Others just consume their queue.",
        ),
        field("feed", Shape::Object(&FEED), Need::Optional, "What browsers may subscribe to."),
    ],
};

/// A file that `include` names.
pub static INCLUDED: Object = Object {
    name: "included",
    description: "A file that a table includes: routes, and nothing else.",
    rule: Rule::Free,
    keys: &[
        field("version", Shape::Version, Need::Optional, "The version of this grammar: 1."),
        field(
            "routes",
            Shape::List("a route", &Shape::Object(&ROUTE)),
            Need::Required("add `routes:`, or name another file in `include`"),
            "More endpoints of the table.",
        ),
    ],
};

static DEFAULTS: Object = Object {
    name: "defaults",
    description: "What counts for routes that don't say.",
    rule: Rule::Free,
    keys: &[
        field("timeout", Shape::Duration, Need::Default("\"5s\""), "Deadline of a call."),
        field("confirm_timeout", Shape::Duration, Need::Default("\"5s\""), "How long a publish waits for its confirm."),
        field("max_size", Shape::Size, Need::Default("\"256KiB\""), "Largest body."),
        field(
            "unroutable",
            Shape::Word(&UNROUTABLES),
            Need::Default("\"reject\""),
            "What happens to a publish that no queue takes.",
        ),
        field("payload", Shape::Word(&PAYLOADS), Need::Default("\"event\""), "What is published."),
    ],
};

static ROUTE: Object = Object {
    name: "route",
    description: "One endpoint: a method, a path, and exactly one of `publish` and `call`.",
    rule: Rule::One(
        &[&["publish"], &["call"]],
        Missing { what: "must either publish or call", hint: "give it exactly one of `publish:` and `call:`" },
    ),
    keys: &[
        field(
            "id",
            Shape::Text,
            Need::Required("add a unique `id:`, such as `post-message`"),
            "Unique. The operation's id, the label of its metrics, and part of its events' source.",
        ),
        field("method", Shape::Word(&METHODS), Need::Required("add `method:`, such as `POST`"), "HTTP method."),
        field(
            "path",
            Shape::Text,
            Need::Required("add `path:`, such as `/messages/{id}`"),
            "Path after `base_path`. A segment is literal, a `{name}`, or a last `{*name}` that takes all that is left. \
             Literal beats `{name}` beats `{*name}`.",
        ),
        field("summary", Shape::AnyText, Need::Optional, "For the API description: a few words."),
        field("description", Shape::AnyText, Need::Optional, "For the API description: Markdown."),
        field("tags", Shape::List("a tag", &Shape::Text), Need::Optional, "For the API description: groups of routes."),
        field("deprecated", Shape::Flag, Need::Default("false"), "For the API description."),
        field("params", Shape::Object(&PARAMS), Need::Optional, "Parameters of path, query and headers."),
        field(
            "body",
            Shape::Object(&BODY),
            Need::Optional,
            "What body a request has. A route without `body` allows none.",
        ),
        field("publish", Shape::Object(&PUBLISH), Need::Optional, "A confirmed publish: its 202 is a promise."),
        field("call", Shape::Object(&CALL), Need::Optional, "A request to a worker, whose reply is the answer."),
    ],
};

static PARAMS: Object = Object {
    name: "params",
    description: "Parameters by name, each a JSON Schema. Their text is turned into the schema's `type`.",
    rule: Rule::Free,
    keys: &[
        field(
            "path",
            Shape::Names("parameter", &Shape::Parameter),
            Need::Optional,
            "One for each `{name}` of the path; always required.",
        ),
        field(
            "query",
            Shape::Names("parameter", &Shape::Parameter),
            Need::Optional,
            "Any other query parameter is refused.",
        ),
        field(
            "header",
            Shape::Names("parameter", &Shape::Parameter),
            Need::Optional,
            "Headers, upper or lower case alike; others are passed over.",
        ),
    ],
};

/// The keys of a parameter that are checked here; any further keyword of JSON Schema may stand beside them.
pub static PARAMETER: Object = Object {
    name: "parameter",
    description: "A parameter: a JSON Schema of its value, and whether it must be given.",
    rule: Rule::Free,
    keys: &[
        field(
            "type",
            Shape::Word(&PARAMETER_TYPES),
            Need::Default("\"string\""),
            "What the text is turned into. An array is a repeated or comma-separated parameter.",
        ),
        field("required", Shape::Flag, Need::Default("false"), "Whether it must be given."),
    ],
};

static BODY: Object = Object {
    name: "body",
    description: "What body a request has.",
    rule: Rule::Free,
    keys: &[
        field(
            "schema",
            Shape::Schema,
            Need::Optional,
            "What the JSON must be: a file's name in `schemas/`, or a schema. Without it any JSON is taken.",
        ),
        field("max_size", Shape::Size, Need::Default("\"256KiB\""), "Largest body, such as `64KiB` or `1MiB`."),
        field(
            "max_depth",
            Shape::Integer(1, MAX_DEPTH_LIMIT as u64),
            Need::Default("64"),
            "Most levels of nesting in JSON.",
        ),
        field(
            "content_type",
            Shape::Text,
            Need::Default("\"application/json\""),
            "Media type. `application/json` takes `+json` too; any other type is passed through untouched.",
        ),
        field("required", Shape::Flag, Need::Default("true"), "Whether there must be a body."),
    ],
};

static PUBLISH: Object = Object {
    name: "publish",
    description: "A publish that the broker confirms before the request is answered.",
    rule: Rule::Free,
    keys: &[
        field(
            "exchange",
            Shape::AnyText,
            Need::Required("add `exchange:`, such as `amq.topic`"),
            "Where it is published; `\"\"` is the default exchange, whose keys are queues' names.",
        ),
        field(
            "key",
            Shape::AnyText,
            Need::Required("add `key:`, such as `messages.{body.topic:-general}`"),
            "Routing key, a template of `{path.x}`, `{query.x}`, `{header.x}`, `{body.a.b}`, `{id}`, `{route}`; \
             `{body.topic:-general}` has a default, `{path.rest|raw}` allows dots, `{{` is a brace.",
        ),
        field(
            "payload",
            Shape::Word(&PAYLOADS),
            Need::Default("\"event\""),
            "`event`: a CloudEvents envelope around the body; `body`: the request's bytes, untouched.",
        ),
        field(
            "headers",
            Shape::Names("header", &Shape::AnyText),
            Need::Optional,
            "Headers of the message: name to template.",
        ),
        field("type", Shape::Text, Need::Optional, "The event's type; else the route's id."),
        field("expires", Shape::Duration, Need::Optional, "Time to live of each message."),
        field("priority", Shape::Integer(0, 9), Need::Optional, "Priority of each message."),
        field(
            "confirm_timeout",
            Shape::Duration,
            Need::Default("\"5s\""),
            "How long to wait for the broker's confirm.",
        ),
        field(
            "unroutable",
            Shape::Word(&UNROUTABLES),
            Need::Default("\"reject\""),
            "`reject`: 503 when no queue takes it; `accept`: a live-only route, for which nobody listening is normal.",
        ),
        field("status", Shape::Status(&STATUSES), Need::Default("202"), "Status of a success."),
    ],
};

static CALL: Object = Object {
    name: "call",
    description: "A request to a worker, whose reply is the answer. It goes to a `queue`, or to an `exchange` with a `key`.",
    rule: Rule::One(
        &[&["queue"], &["exchange", "key"]],
        Missing {
            what: "does not say where the request goes",
            hint: "give it either `queue`, or `exchange` and `key`",
        },
    ),
    keys: &[
        field("queue", Shape::Text, Need::Optional, "The worker's queue."),
        field("exchange", Shape::AnyText, Need::Optional, "Where the request is published, together with `key`."),
        field("key", Shape::AnyText, Need::Optional, "Routing key, a template like that of `publish`."),
        field(
            "timeout",
            Shape::Duration,
            Need::Default("\"5s\""),
            "Deadline. It travels with the message; the client gets 504 when it passes.",
        ),
        field(
            "headers",
            Shape::Names("header", &Shape::AnyText),
            Need::Optional,
            "Headers of the message: name to template.",
        ),
        field("reply", Shape::Object(&REPLY), Need::Optional, "What the reply must be."),
    ],
};

static REPLY: Object = Object {
    name: "reply",
    description: "What the reply must be.",
    rule: Rule::Free,
    keys: &[field(
        "schema",
        Shape::Schema,
        Need::Optional,
        "Checked before the reply is sent to the client: a file's name in `schemas/`, or a schema.",
    )],
};

static QUEUE: Object = Object {
    name: "queue",
    description: "A queue.",
    rule: Rule::Free,
    keys: &[
        field("bind", Shape::List("a binding", &Shape::Object(&BINDING)), Need::Optional, "What is routed to it."),
        field(
            "type",
            Shape::Word(&QUEUE_KINDS),
            Need::Default("\"quorum\""),
            "`quorum`: replicated and durable; `classic`: durable on one node; `stream`: a log that is published to only; `rpc`: lives while its worker consumes it.",
        ),
        field(
            "max_length",
            Shape::Integer(1, MOST),
            Need::Optional,
            "Most messages that it holds; a further one is refused.",
        ),
        field("overflow", Shape::Word(&["reject"]), Need::Default("\"reject\""), "What happens when it is full."),
        field(
            "delivery_limit",
            Shape::IntegerOr(1, u32::MAX as u64, BY_POLICY),
            Need::Optional,
            "Deliveries before a message is dead-lettered; 20 where there is a `dead_letter`. `policy`: the broker's own policies say.",
        ),
        field("dead_letter", Shape::Text, Need::Optional, "Queue that takes what was rejected or delivered too often."),
        field(
            "arguments",
            Shape::Names("argument", &Shape::Scalar),
            Need::Optional,
            "Further `x-` arguments of its declaration.",
        ),
        field(
            "declare",
            Shape::Word(&DECLARES),
            Need::Default("\"active\""),
            "`active`: fpesa makes it; `passive`: others do, and it is only checked that it is there.",
        ),
    ],
};

static BINDING: Object = Object {
    name: "binding",
    description: "What an exchange routes to the queue.",
    rule: Rule::Free,
    keys: &[
        field(
            "exchange",
            Shape::Text,
            Need::Required("add `exchange:`, such as `amq.topic`"),
            "The exchange: one of `exchanges`, or the broker's own.",
        ),
        field(
            "key",
            Shape::AnyText,
            Need::Optional,
            "Routing key; on a topic exchange `*` is one word and `#` any number of words.",
        ),
        field(
            "arguments",
            Shape::Names("argument", &Shape::Scalar),
            Need::Optional,
            "For a headers exchange: the headers to match, and `x-match` (`all` or `any`).",
        ),
    ],
};

static EXCHANGE: Object = Object {
    name: "exchange",
    description: "An exchange.",
    rule: Rule::Free,
    keys: &[
        field(
            "type",
            Shape::Text,
            Need::Optional,
            "`topic`, `direct`, `fanout`, `headers`, or a plugin's type. A passive one need not name it.",
        ),
        field("arguments", Shape::Names("argument", &Shape::Scalar), Need::Optional, "Arguments of its declaration."),
        field(
            "declare",
            Shape::Word(&DECLARES),
            Need::Default("\"active\""),
            "`active`: fpesa makes it; `passive`: others do, and it is only checked that it is there.",
        ),
    ],
};

static WORKER: Object = Object {
    name: "worker",
    description: "A worker of fpesa's own.",
    rule: Rule::Free,
    keys: &[
        field("queue", Shape::Text, Need::Required("add `queue:` with one of `queues`"), "The queue that it serves."),
        field("kind", Shape::Text, Need::Optional, "`persist` or `history`; else the worker's name."),
        field("batch", Shape::Integer(1, 10_000), Need::Default("500"), "Most messages at a time."),
        field(
            "prefetch",
            Shape::Integer(1, 65_535),
            Need::Optional,
            "Most unsettled deliveries; twice the batch, and 32 for `history`.",
        ),
        field("concurrency", Shape::Integer(1, 256), Need::Default("1"), "How many batches at a time."),
    ],
};

static FEED: Object = Object {
    name: "feed",
    description: "The live feed.",
    rule: Rule::Free,
    keys: &[field(
        "topics",
        Shape::List("a topic", &Shape::Text),
        Need::Required("add `topics:`, such as `[\"messages/#\"]`"),
        "MQTT topic filters that browsers may read.",
    )],
};

/// Every object, for the schema's definitions.
pub static OBJECTS: [&Object; 15] = [
    &TABLE, &INCLUDED, &DEFAULTS, &ROUTE, &PARAMS, &PARAMETER, &BODY, &PUBLISH, &CALL, &REPLY, &QUEUE, &BINDING,
    &EXCHANGE, &WORKER, &FEED,
];
