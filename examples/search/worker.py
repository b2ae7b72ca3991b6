#!/usr/bin/env python3
"""Answers searches: a worker in thirty lines. What travels on the queue is in docs/workers.md.

    pip install pika
    python worker.py --bus amqp://guest:guest@localhost:5672/%2f
"""

import argparse
import json
import signal
from datetime import datetime, timezone

import pika

BOOKS = [
    {"title": "The Old Man and the Sea", "tag": "novel"},
    {"title": "Sea Fever", "tag": "poem"},
    {"title": "The Sea-Wolf", "tag": "novel"},
    {"title": "The Seagull", "tag": "play"},
    {"title": "Walden", "tag": "novel"},
]


def search(q, tags, limit):
    found = [book for book in BOOKS if q.lower() in book["title"].lower() and (not tags or book["tag"] in tags)]
    return {"books": found[:limit]}


def call(channel, method, properties, body):
    deadline = (properties.headers or {}).get("fpesa-deadline")
    # Nobody waits any more when the deadline has passed: the work is spared.
    if not deadline or datetime.fromisoformat(deadline) > datetime.now(timezone.utc):
        reply = pika.BasicProperties(
            correlation_id=properties.correlation_id, content_type="application/json", app_id="fpesa/1"
        )
        answer = search(**json.loads(body)["params"]["query"])
        channel.basic_publish("", properties.reply_to, json.dumps(answer).encode(), reply)
    channel.basic_ack(method.delivery_tag)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bus", required=True, help="amqp://user:password@host:5672/vhost")
    connection = pika.BlockingConnection(pika.URLParameters(parser.parse_args().bus))
    channel = connection.channel()
    # Exactly so: every worker of the queue declares the same, and the gateway never does.
    channel.queue_declare("search", durable=True, auto_delete=True, arguments={"x-expires": 5000})
    channel.basic_qos(prefetch_count=32)
    channel.basic_consume("search", call)
    signal.signal(signal.SIGTERM, lambda *_: connection.add_callback_threadsafe(channel.stop_consuming))
    print("working: search", flush=True)
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    main()
