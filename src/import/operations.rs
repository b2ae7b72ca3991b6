//! Operations of a document as routes.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{
    document::{Document, join},
    params::Params,
    schemas::Schemas,
};

/// Methods that a route can have, as OpenAPI writes them.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Methods that OpenAPI has besides.
const OTHERS: [&str; 3] = ["head", "options", "trace"];

/// A route in the making.
#[derive(Debug)]
pub struct Draft {
    /// Where the operation stands.
    pub pointer: String,
    /// Unique.
    pub id: String,
    /// In capitals.
    pub method: String,
    /// With the names of parameters as a table can have them.
    pub path: String,
    /// `summary`, `description`, `tags`, `deprecated`, where they are given.
    pub told: Map<String, Json>,
    /// Parameters.
    pub params: Params,
    /// What body it takes.
    pub body: Option<Body>,
    /// The word that its queue or key has: the path's first literal segment.
    pub group: String,
    /// File of the schema of a call's reply.
    pub reply: Option<String>,
    /// Of a publish, where it is not 202.
    pub status: Option<u16>,
    /// Sentences on what is not as in the document.
    pub notes: Vec<String>,
}

/// A body in the making.
#[derive(Debug)]
pub struct Body {
    /// File of its schema.
    pub schema: Option<String>,
    /// Where it is not `application/json`.
    pub content_type: Option<String>,
    /// Whether it must be there.
    pub required: bool,
}

/// Everything that the document's `paths` hold.
pub struct Operations {
    /// Routes in the document's order.
    pub drafts: Vec<Draft>,
    /// What could not become a route: `METHOD path: why`.
    pub left_out: Vec<String>,
}

/// Reads all operations.
pub fn read(doc: &Document, schemas: &mut Schemas<'_>) -> Operations {
    let mut all = Operations { drafts: Vec::new(), left_out: Vec::new() };
    let mut ids = BTreeSet::new();
    let paths: Vec<String> = doc.json["paths"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    for path in paths.iter().filter(|path| !path.starts_with("x-")) {
        let Some(item) = doc.follow(&join("/paths", path)) else { continue };
        for method in OTHERS.into_iter().filter(|method| doc.at(&item).get(*method).is_some()) {
            let why = if method == "head" { "GET answers HEAD too" } else { "no route has this method" };
            all.leave_out(doc, &join(&item, method), method, path, why);
        }
        for method in METHODS {
            let pointer = join(&item, method);
            if doc.at(&pointer).is_object() {
                match draft(doc, schemas, method, path, &item, &pointer, &mut ids) {
                    Ok(draft) => all.drafts.push(draft),
                    Err(why) => all.leave_out(doc, &pointer, method, path, &why),
                }
            }
        }
    }
    all
}

impl Operations {
    fn leave_out(&mut self, doc: &Document, pointer: &str, method: &str, path: &str, why: &str) {
        let what = format!("{} {path}", method.to_uppercase());
        doc.warn(pointer, "left-out", format!("{what} is left out: {why}"));
        self.left_out.push(format!("{what}: {why}"));
    }
}

fn draft(
    doc: &Document,
    schemas: &mut Schemas<'_>,
    method: &str,
    path: &str,
    item: &str,
    pointer: &str,
    ids: &mut BTreeSet<String>,
) -> Result<Draft, String> {
    let operation = doc.at(pointer);
    let mut params = Params::read(doc, schemas, item, pointer);
    let mut notes = Vec::new();
    let (path, segments) = segments(doc, path, pointer, &mut params, &mut notes)?;
    let id = unique(&id(operation, method, &path), ids);
    let told = ["summary", "description", "tags", "deprecated"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), told(key, operation.get(key)?)?)))
        .collect();
    let body = body(doc, schemas, &join(pointer, "requestBody"), &id, &mut notes);
    let mut draft = Draft {
        pointer: pointer.to_owned(),
        method: method.to_uppercase(),
        path,
        told,
        params,
        body,
        group: segments.into_iter().next().map_or_else(|| "root".to_owned(), |segment| word(&segment)),
        reply: None,
        status: None,
        notes,
        id,
    };
    answer(doc, schemas, &mut draft);
    Ok(draft)
}

/// A path as a table can have it, with its literal segments.
fn segments(
    doc: &Document,
    path: &str,
    pointer: &str,
    params: &mut Params,
    notes: &mut Vec<String>,
) -> Result<(String, Vec<String>), String> {
    if !path.starts_with('/') {
        return Err("a path begins with `/`".into());
    }
    let (mut out, mut literals, mut names) = (String::new(), Vec::new(), Vec::new());
    for segment in path.split('/').skip(1) {
        if segment.is_empty() {
            // A trailing slash is the same path.
            continue;
        }
        let inner = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
        let Some(name) = inner.filter(|name| !name.contains(['{', '}'])) else {
            if segment.contains(['{', '}']) {
                return Err("a segment is either text or one whole `{name}`".into());
            }
            if !segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c)) {
                return Err(format!("`{segment}` can't be a segment"));
            }
            out.push('/');
            out.push_str(segment);
            literals.push(segment.to_owned());
            continue;
        };
        let fitting: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect();
        if fitting.is_empty() || names.contains(&fitting) {
            return Err(format!("its parameter `{name}` has no name of its own"));
        }
        if fitting != name {
            doc.warn(pointer, "changed", format!("the parameter `{name}` is called `{fitting}` here"));
            notes.push(format!("`{{{name}}}` of the document is `{{{fitting}}}` here"));
        }
        match params.all.iter_mut().find(|param| param.part == "path" && param.name == name) {
            Some(param) => param.name.clone_from(&fitting),
            None => {
                if !params.left_out.iter().any(|why| why.contains(&format!("`{name}`"))) {
                    doc.warn(
                        pointer,
                        "changed",
                        format!("`{{{name}}}` of the path is not declared: it is taken as text"),
                    );
                }
                params.all.push(super::params::Param {
                    part: "path",
                    name: fitting.clone(),
                    required: false,
                    schema: serde_json::json!({ "type": "string" }),
                });
            }
        }
        out.extend(["/{", &fitting, "}"]);
        names.push(fitting);
    }
    params.all.retain(|param| {
        let fits = param.part != "path" || names.contains(&param.name);
        if !fits {
            doc.warn(pointer, "left-out", format!("the path has no `{{{}}}`: the parameter is left out", param.name));
        }
        fits
    });
    if out.is_empty() {
        out.push('/');
    }
    Ok((out, literals))
}

fn told(key: &str, value: &Json) -> Option<Json> {
    match (key, value) {
        ("summary" | "description", Json::String(text)) => (!text.trim().is_empty()).then(|| text.trim().into()),
        ("deprecated", Json::Bool(true)) => Some(true.into()),
        ("tags", Json::Array(tags)) => {
            let tags: Vec<Json> =
                tags.iter().filter(|tag| tag.as_str().is_some_and(|tag| !tag.is_empty())).cloned().collect();
            (!tags.is_empty()).then(|| tags.into())
        }
        _ => None,
    }
}

/// The operation's id, or one made of method and path.
fn id(operation: &Json, method: &str, path: &str) -> String {
    let fit = |text: &str| -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let words: Vec<&str> = text.split(|c| !fits(c)).filter(|word| !word.is_empty()).collect();
        words.join("-").chars().take(100).collect()
    };
    let given = fit(operation["operationId"].as_str().unwrap_or_default());
    if !given.is_empty() && given != "none" {
        return given;
    }
    let words: Vec<String> =
        path.split('/').filter(|s| !s.is_empty()).map(|segment| fit(segment.trim_matches(['{', '}']))).collect();
    fit(&[&[method.to_owned()], words.as_slice()].concat().join("-"))
}

fn unique(id: &str, ids: &mut BTreeSet<String>) -> String {
    let mut own = id.to_owned();
    let mut number = 2;
    while !ids.insert(own.clone()) {
        own = format!("{id}-{number}");
        number += 1;
    }
    own
}

/// A word of a routing key or of a queue's name.
pub fn word(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let word: String = words.join("-").chars().take(60).collect();
    if word.is_empty() { "root".into() } else { word }
}

/// The JSON one of some media types, or else the first, with what it is called without its parameters.
fn media(content: &Json) -> Option<(String, String)> {
    let types = content.as_object()?;
    let essence = |name: &str| name.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = |name: &&String| essence(name) == "application/json";
    let like_json = |name: &&String| essence(name).ends_with("+json") && !name.contains('*');
    let chosen = types.keys().find(json).or_else(|| types.keys().find(like_json)).or_else(|| types.keys().next())?;
    Some((chosen.clone(), essence(chosen)))
}

fn is_json(essence: &str) -> bool {
    essence == "application/json" || essence.ends_with("+json")
}

fn body(doc: &Document, schemas: &mut Schemas<'_>, at: &str, id: &str, notes: &mut Vec<String>) -> Option<Body> {
    if doc.at(at).is_null() {
        return None;
    }
    let pointer = doc.follow(at)?;
    let required = doc.at(&pointer)["required"] == true;
    let content = join(&pointer, "content");
    let Some((name, mut essence)) = media(doc.at(&content)) else {
        return Some(Body { schema: None, content_type: None, required });
    };
    let mut changed = |message: String| {
        doc.warn(&content, "changed", message.clone());
        notes.push(message);
    };
    let others: Vec<&str> = doc
        .at(&content)
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .filter(|other| **other != name)
        .map(String::as_str)
        .collect();
    if !others.is_empty() {
        changed(format!("the body is taken as {essence} alone, and not as {}", others.join(", ")));
    }
    if essence.contains('*') {
        changed(format!("the body's type is {essence} in the document"));
        essence = "application/octet-stream".into();
    }
    if !is_json(&essence) {
        changed(format!("a body of type {essence} goes through as it is: it is not checked"));
        return Some(Body { schema: None, content_type: Some(essence), required });
    }
    let schema = join(&join(&content, &name), "schema");
    let empty = doc.at(&schema).as_object().is_none_or(Map::is_empty);
    Some(Body {
        schema: if empty { None } else { schemas.file(&schema, &format!("{id}.body")) },
        content_type: (essence != "application/json").then_some(essence),
        required,
    })
}

/// What the document says of the answer: the schema of a call's reply, the status of a publish.
fn answer(doc: &Document, schemas: &mut Schemas<'_>, draft: &mut Draft) {
    let responses = join(&draft.pointer, "responses");
    let mut good: Vec<&String> =
        doc.at(&responses).as_object().into_iter().flat_map(Map::keys).filter(|code| code.starts_with('2')).collect();
    good.sort();
    let Some(code) = good.first() else { return };
    let Some(response) = doc.follow(&join(&responses, code)) else { return };
    let content = join(&response, "content");
    let json = media(doc.at(&content)).filter(|(_, essence)| is_json(essence));
    let schema = json.as_ref().map(|(name, _)| join(&join(&content, name), "schema"));
    let schema = schema.filter(|schema| doc.at(schema).as_object().is_some_and(|schema| !schema.is_empty()));
    if draft.method == "GET" {
        draft.reply = schema.and_then(|schema| schemas.file(&schema, &format!("{}.reply", draft.id)));
        return;
    }
    let first = [202, 204, 201].into_iter().find(|status| good.iter().any(|code| **code == status.to_string()));
    draft.status = first.filter(|status| *status != 202);
    if schema.is_some() && draft.status != Some(204) {
        let note =
            "a publish answers with the message's id; make this a `call` where clients need the document's answer";
        doc.warn(&response, "changed", format!("{}: {note}", draft.id));
        draft.notes.push(note.to_owned());
    }
}
