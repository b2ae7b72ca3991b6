// The live feed: MQTT over a WebSocket, the same for the embedded bus and for RabbitMQ. It connects, subscribes to what
// the gateway names, and connects again with growing pauses.

import type { MqttClient } from 'mqtt';
import { feedDocument } from '../api';
import { readEvent, type Event } from '../event';
import { uuid } from '../uuid';

/** `none`: the table lets nothing be read live. */
export type State = 'connecting' | 'live' | 'away' | 'refused' | 'none';

export interface Listener {
  state(state: State): void;
  /** The subscription is in force: what comes from now on is told by `event`. */
  subscribed(): void;
  event(event: Event): void;
}

/** Connections that end at once this many times in a row are a refusal, not an accident. */
const REFUSALS = 5;
const SHORT_LIVED_MS = 1_000;
const LONGEST_PAUSE_MS = 10_000;

export function connect(listener: Listener): () => void {
  let stopped = false;
  let client: MqttClient | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let tries = 0;
  let refusals = 0;

  const again = (): void => {
    if (stopped) return;
    if (refusals >= REFUSALS) {
      listener.state('refused');
      return;
    }
    listener.state('away');
    // Full jitter: a crowd of browsers does not come back all at once.
    const most = Math.min(LONGEST_PAUSE_MS, 500 * 2 ** tries);
    tries += 1;
    timer = setTimeout(() => void open(), 100 + Math.random() * most);
  };

  const open = async (): Promise<void> => {
    // Coming back is told as being away until it is done: a state that flickers helps nobody.
    if (tries === 0 && refusals === 0) listener.state('connecting');
    try {
      const [{ default: mqtt }, document] = await Promise.all([import('mqtt'), feedDocument()]);
      if (stopped) return;
      if (document.topics.length === 0) return listener.state('none');
      const url = new URL(document.url, location.href);
      url.protocol = url.protocol.replace('http', 'ws');
      const opened = Date.now();
      let connected = false;
      let ended = false;
      const current = mqtt.connect(url.href, {
        protocolVersion: 4,
        clientId: `fpesa-page-${uuid().slice(0, 13)}`,
        clean: true,
        keepalive: 20,
        connectTimeout: 8_000,
        // Coming back is ours: the gap must be closed each time.
        reconnectPeriod: 0,
        timerVariant: 'auto',
        ...(document.username === undefined ? {} : { username: document.username }),
        ...(document.password === undefined ? {} : { password: document.password }),
      });
      client = current;
      const over = (): void => {
        if (ended) return;
        ended = true;
        current.removeAllListeners();
        current.on('error', () => undefined);
        current.end(true);
        refusals = connected && Date.now() - opened < SHORT_LIVED_MS ? refusals + 1 : 0;
        again();
      };
      current.on('connect', () => {
        connected = true;
        current.subscribe(document.topics, { qos: 1 }, (error, granted) => {
          if (error || granted?.some((grant) => grant.qos > 2)) return over();
          tries = 0;
          listener.state('live');
          listener.subscribed();
        });
      });
      current.on('message', (_topic, payload) => {
        const event = readEvent(new TextDecoder().decode(payload));
        if (event) listener.event(event);
      });
      current.on('close', over);
      current.on('error', over);
    } catch {
      again();
    }
  };

  void open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    client?.end(true);
  };
}
