// One connection to the feed for the whole page, whichever view is open.

import { ref } from 'vue';
import type { Event } from '../event';
import { connect, type State } from './connection';

export interface Ear {
  /** The subscription is in force (again): what came before it, history has to tell. */
  subscribed?: () => void;
  event?: (event: Event) => void;
}

const ears = new Set<Ear>();
export const state = ref<State>('connecting');
let hangUp: (() => void) | undefined;

/** Listens until what it returns is called. */
export function listen(ear: Ear): () => void {
  ears.add(ear);
  hangUp ??= connect({
    state: (now) => {
      state.value = now;
    },
    subscribed: () => {
      for (const one of ears) one.subscribed?.();
    },
    event: (event) => {
      for (const one of ears) one.event?.(event);
    },
  });
  return () => ears.delete(ear);
}

/** Connects anew at once, whatever the pauses say. */
export function reconnect(): void {
  hangUp?.();
  hangUp = undefined;
  const ear: Ear = {};
  listen(ear)();
}
