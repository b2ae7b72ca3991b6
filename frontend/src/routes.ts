// The table's routes, for what is written next to a message; asked for once, and anew when the table changes.

import { shallowRef } from 'vue';
import { table } from './api';
import { historyPlaces, type RouteEntry } from './table';

export const knownRoutes = shallowRef<(RouteEntry & { one?: boolean })[]>([]);
let asked = false;

export function learnRoutes(): void {
  if (asked) return;
  asked = true;
  table()
    .then((document) => {
      const { one } = historyPlaces(document);
      knownRoutes.value = document.routes.map((route) => ({
        ...route,
        one: route.path === one && route.method === 'GET',
      }));
    })
    .catch(() => {
      asked = false;
    });
}
