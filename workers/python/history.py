#!/usr/bin/env python3
"""The history worker in Python: answers the same calls as the built-in one, from the same PostgreSQL store.

    pip install -r workers/python/requirements.txt
    python workers/python/history.py --bus amqp://guest:guest@localhost:5672/%2f --store postgres://fpesa@localhost/fpesa

It competes on the queue with every other history worker, in any language: start one, stop another, and no request fails.
What travels on the queue, for workers in any language: docs/workers.md.
"""

import argparse
import base64
import json
import os
import random
import signal
import struct
import sys
import time
import uuid
from datetime import datetime, timezone
from urllib.parse import urlencode

import pika
import pika.exceptions
import psycopg

PROBLEMS = "https://fpesa.dev/problems/"
# The largest page, unless one message is larger: a gateway takes replies of up to `reply.max_size`.
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_ENVELOPE_BYTES = 256


# --- cursors: version, time, id and a check (FNV-1a), as base64url; the same bytes as every other history worker's ----

CURSOR = struct.Struct(">BqQQ")


def checksum(data):
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def encode_cursor(micros, message_id):
    body = CURSOR.pack(1, micros, message_id.int >> 64, message_id.int & (2**64 - 1))
    return base64.urlsafe_b64encode(body + struct.pack(">I", checksum(body))).rstrip(b"=").decode()


def decode_cursor(text):
    """(time, id), or ValueError for what is no cursor of ours."""
    data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(data) != CURSOR.size + 4 or data[0] != 1 or struct.unpack(">I", data[-4:])[0] != checksum(data[:-4]):
        raise ValueError("bent")
    _, micros, high, low = CURSOR.unpack(data[:-4])
    cursor = micros, uuid.UUID(int=high << 64 | low)
    if encode_cursor(*cursor) != text:
        raise ValueError("bent")
    return cursor


# --- MQTT topic filters (MQTT 3.1.1, 4.7) -----------------------------------------------------------------------------


def filter_error(text):
    """Why a text is no topic filter, or None."""
    if not text:
        return "a topic filter has at least one character"
    if len(text.encode()) > 65535:
        return "a topic filter has at most 65535 bytes"
    if "\0" in text:
        return "a topic filter may not hold the character U+0000"
    levels = text.split("/")
    if any("#" in level and (level != "#" or at < len(levels) - 1) for at, level in enumerate(levels)):
        return "'#' must stand alone in the last level, as in 'messages/#'"
    if any("+" in level and level != "+" for level in levels):
        return "'+' must fill its level alone, as in 'messages/+/new'"
    return None


def matches(topic_filter, topic):
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(levels) or want not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)


# --- the store ----------------------------------------------------------------------------------------------------


class Store:
    """Reads what `fpesa work persist` keeps. A connection that broke is made anew at the next use."""

    def __init__(self, url):
        self.url = url
        self.connection = None

    def connect(self):
        if self.connection is None or self.connection.closed:
            self.connection = psycopg.connect(
                self.url, autocommit=True, connect_timeout=5, application_name="fpesa history.py"
            )
        return self.connection

    def rows(self, sql, values=()):
        for last in (False, True):
            try:
                return self.connect().execute(sql, values).fetchall()
            except psycopg.OperationalError:
                # The connection may be an old one, from before the server's restart.
                self.connection = None
                if last:
                    raise

    def get(self, message_id):
        found = self.rows("SELECT text FROM fpesa_event WHERE id = %s", (message_id,))
        return bytes(found[0][0]) if found else None

    def page(self, asked):
        conditions, values = ["true"], []
        if asked["topic"] is not None:
            names = self.rows("SELECT id, name FROM fpesa_topic")
            ids = [number for number, name in names if matches(asked["topic"], bytes(name).decode())]
            conditions.append("topic = ANY(%s)")
            values.append(ids)
        for operator, at in ((">=", asked["since"]), ("<", asked["until"])):
            if at is not None:
                conditions.append(f"time {operator} %s")
                values.append(at)
        where, order = " AND ".join(conditions), "time DESC, id DESC"
        total = None
        if asked["count"]:
            total = self.rows(f"SELECT count(*) FROM fpesa_event WHERE {where}", values)[0][0]
        if asked["before"]:
            where += " AND (time, id) < (%s, %s)"
            values.extend(asked["before"])
        if asked["after"]:
            place = self.rows("SELECT time FROM fpesa_event WHERE id = %s", (asked["after"],))
            if not place:
                raise LookupError
            where, order = where + " AND (time, id) > (%s, %s)", "time, id"
            values.extend([place[0][0], asked["after"]])
        # What a page has no room for is left out by its length, which is known without reading the text.
        sql = f"""
            SELECT time, id, text, found FROM (
              SELECT time, id, text, count(*) OVER () AS found, row_number() OVER walked AS number,
                sum(octet_length(text)) OVER walked AS bytes
              FROM (SELECT time, id, text FROM fpesa_event WHERE {where} ORDER BY {order} LIMIT %s) found
              WINDOW walked AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)
            ) page WHERE number <= %s AND (number = 1 OR bytes <= %s) ORDER BY {order}"""
        room = MAX_PAGE_BYTES - MAX_ENVELOPE_BYTES - asked["limit"]
        shown = self.rows(sql, [*values, asked["limit"] + 1, asked["limit"], room])
        following = None
        if shown and shown[0][3] > len(shown):
            # Going forward a page leads on by the id of its last item, as `after` takes it.
            following = str(shown[-1][1]) if asked["after"] else encode_cursor(*shown[-1][:2])
        return [bytes(row[2]) for row in shown], following, total


# --- answers ------------------------------------------------------------------------------------------------------


def problem(status, kind, title, detail, **members):
    body = {"type": PROBLEMS + kind, "title": title, "status": status, "detail": detail, **members}
    return status, "application/problem+json", {}, json.dumps(body).encode()


def wrong(where, name, keyword, detail):
    return {"in": where, "name": name, "keyword": keyword, "detail": detail}


def micros(text):
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("no offset")
    since = at - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def read_query(query):
    """What a page is asked by, and everything that is wrong with it."""
    errors = []
    asked = {"limit": 50, "count": query.get("count") is True}

    def read(name, keyword, detail, parse):
        asked[name] = None
        if query.get(name) is not None:
            try:
                asked[name] = parse(query[name])
            except (ValueError, AttributeError, TypeError):
                errors.append(wrong("query", name, keyword, detail))

    if "limit" in query:
        limit = query["limit"]
        if isinstance(limit, int) and 1 <= limit <= 1000:
            asked["limit"] = limit
        else:
            errors.append(wrong("query", "limit", "maximum", "this must be an integer from 1 to 1000"))
    read("before", "cursor", "this is no cursor from an earlier page", decode_cursor)
    read("after", "format", "an id is a UUID", uuid.UUID)
    if query.get("before") is not None and query.get("after") is not None:
        errors.append(wrong("query", "after", "not-allowed", "give either `before` or `after`, not both"))
    for name in ("since", "until"):
        read(name, "format", "this must be a time as in 2026-11-23T18:27:58Z (RFC 3339)", micros)
    asked["topic"] = query.get("topic")
    if asked["topic"] is not None and (why := filter_error(asked["topic"])):
        errors.append(wrong("query", "topic", "filter", why))
    return asked, errors


def invalid(errors):
    detail = "; ".join(f"{error['name']}: {error['detail']}" for error in errors)
    detail = f"The request does not fit: {detail}"
    return problem(422, "validation-failed", "Validation failed", detail, errors=errors)


def answer(store, body):
    """(status, content type, headers, body) for one call."""
    try:
        params = json.loads(body)["params"]
        path, query = params.get("path") or {}, params.get("query") or {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return problem(400, "malformed-body", "Malformed call", "the call is not the JSON that a gateway sends")
    try:
        if "id" in path:
            try:
                found = store.get(uuid.UUID(path["id"]))
            except (ValueError, AttributeError):
                return invalid([wrong("path", "id", "format", "an id is a UUID")])
            if found is None:
                return problem(404, "message-not-found", "Message not found", "no message has this id")
            return 200, "application/json", {}, found
        asked, errors = read_query(query)
        if errors:
            return invalid(errors)
        try:
            items, following, total = store.page(asked)
        except LookupError:
            detail = "no message has this id, or not any more: read the newest page instead"
            return invalid([wrong("query", "after", "unknown-id", detail)])
    except psycopg.Error as error:
        print(f"the store did not answer: {error}", file=sys.stderr)
        detail = "the history can't be read just now: try again"
        status, kind, headers, text = problem(503, "store-unavailable", "Store unavailable", detail)
        return status, kind, {"retry-after": "1"}, text
    # The documents are spliced in as they were kept, not parsed and printed again.
    text = b'{"items":[' + b",".join(items) + b'],"next":' + json.dumps(following).encode()
    if total is not None:
        text += b',"total":' + str(total).encode()
    headers = {}
    if following:
        kept = {name: value for name, value in query.items() if name not in ("before", "after", "limit")}
        kept = {name: "true" if value is True else value for name, value in kept.items() if value is not False}
        link = urlencode({"after" if asked["after"] else "before": following, "limit": asked["limit"], **kept})
        headers["link"] = f'<?{link}>; rel="next"'
    return 200, "application/json", headers, text + b"}"


# --- the queue ----------------------------------------------------------------------------------------------------


class Worker:
    """Takes calls from the queue, one after the other, until it is told to stop."""

    def __init__(self, options):
        self.options = options
        self.store = Store(options.store)
        self.stopping = False

    def stop(self, *_):
        self.stopping = True

    def run(self):
        pause = 0.1
        while not self.stopping:
            try:
                self.consume()
                pause = 0.1
            except (pika.exceptions.AMQPError, OSError) as error:
                print(f"the broker is away ({error!r}): trying again", file=sys.stderr)
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, 10)

    def consume(self):
        parameters = pika.URLParameters(self.options.bus)
        parameters.heartbeat = 5
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        # Exactly so: every worker of the queue declares the same.
        channel.queue_declare(self.options.queue, durable=True, auto_delete=True, arguments={"x-expires": 5000})
        channel.basic_qos(prefetch_count=32)
        tag = channel.basic_consume(self.options.queue, self.call)
        print("working: history", flush=True)
        while not self.stopping:
            connection.process_data_events(time_limit=0.1)
        # Nothing new; what came already is given back to the queue by the cancel, and another worker takes it.
        channel.basic_cancel(tag)
        connection.close()

    def call(self, channel, method, properties, body):
        """Answers one call. One that can't be understood is rejected: it must not end the worker, again and again."""
        try:
            self.reply(channel, properties, body)
        except (pika.exceptions.AMQPError, OSError):
            raise
        except Exception as error:
            print(f"a call can't be answered and is rejected: {error!r}", file=sys.stderr)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)

    def reply(self, channel, properties, body):
        headers = properties.headers or {}
        if not self.is_late(headers.get("fpesa-deadline")):
            status, content_type, extra, text = answer(self.store, body)
            reply = {"status": status, "fpesa-worker": f"history@{os.getpid()}"}
            reply.update({f"http.{name}": value for name, value in extra.items()})
            channel.basic_publish(
                "",
                properties.reply_to,
                text,
                pika.BasicProperties(
                    content_type=content_type, correlation_id=properties.correlation_id, app_id="fpesa/1", headers=reply
                ),
            )

    @staticmethod
    def is_late(deadline):
        """Nobody waits any more: the work is spared."""
        try:
            return deadline is not None and datetime.fromisoformat(deadline) <= datetime.now(timezone.utc)
        except (TypeError, ValueError):
            return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bus", default=os.environ.get("FPESA_BUS"), help="amqp://user:password@host:5672/vhost")
    parser.add_argument("--store", default=os.environ.get("FPESA_STORE"), help="postgres://user@host/database")
    parser.add_argument("--queue", default="messages.history", help="the queue of the table's worker")
    options = parser.parse_args()
    if not options.bus or not options.store:
        parser.error("--bus and --store are needed (or FPESA_BUS and FPESA_STORE)")
    worker = Worker(options)
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
