// The command that a new user is shown: it sends one message by the table's first route that takes one.

import { shallowRef } from 'vue';
import { openapi } from './api';
import { exampleBody, readApi } from './openapi';
import { curl } from './snippets';

const FALLBACK = curl({
  method: 'POST',
  url: `${location.origin}/api/v1/messages`,
  headers: { 'content-type': 'application/json' },
  body: '{"text":"Hello"}',
});

let asked: Promise<void> | undefined;
const command = shallowRef(FALLBACK);

/** The command; better once the API's description is there. */
export function useExample() {
  asked ??= openapi()
    .then((document) => {
      const api = readApi(document);
      const route = api.operations.find(
        (one) => one.method === 'POST' && one.action !== 'call' && !one.path.includes('{') && one.body?.json === true,
      );
      const body = route && exampleBody(api, route);
      if (!route || body === undefined) return;
      const headers = { 'content-type': route.body?.type ?? 'application/json' };
      command.value = curl({ method: 'POST', url: location.origin + route.path, headers, body });
    })
    .catch(() => {
      asked = undefined;
    });
  return command;
}
