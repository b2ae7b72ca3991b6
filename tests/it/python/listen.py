"""Reads three messages of the feed with paho-mqtt over a WebSocket, at QoS 1, and prints them."""

import sys
import threading

import paho.mqtt.client as mqtt

host, port = sys.argv[1].split(":")
version = mqtt.MQTTv5 if sys.argv[2] == "5" else mqtt.MQTTv311
done = threading.Event()
seen = []


def on_connect(client, userdata, flags, reason, properties=None):
    assert not flags.session_present
    client.subscribe([("messages/#", 1)])


def on_subscribe(client, userdata, mid, reasons, properties=None):
    assert [reason.value for reason in reasons] == [1], reasons


def on_message(client, userdata, message):
    if len(seen) < 3:
        seen.append(message.payload.decode())
        print(message.topic, seen[-1], flush=True)
    if len(seen) == 3:
        done.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets", protocol=version)
client.ws_set_options(path="/mqtt")
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port), keepalive=10)
client.loop_start()
assert done.wait(30), "no three messages came"
client.disconnect()
client.loop_stop()
