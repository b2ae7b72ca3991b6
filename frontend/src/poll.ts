// Asking again and again while somebody looks.

import { onBeforeUnmount, ref, shallowRef, type Ref, type ShallowRef } from 'vue';
import { problemOf, type Problem } from './api';

export function usePoll<T>(
  ask: () => Promise<T>,
  everyMs: number,
): { value: ShallowRef<T | undefined>; problem: Ref<Problem | undefined>; now: () => void } {
  const value = shallowRef<T>();
  const problem = ref<Problem>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let over = false;

  async function once(): Promise<void> {
    clearTimeout(timer);
    try {
      value.value = await ask();
      problem.value = undefined;
    } catch (error) {
      problem.value = problemOf(error, 'The gateway’s answer could not be read');
    }
    if (!over) timer = setTimeout(() => (document.hidden ? wait() : void once()), everyMs);
  }
  /** Nobody looks at a hidden page. */
  function wait(): void {
    const shown = (): void => {
      if (document.hidden) return;
      document.removeEventListener('visibilitychange', shown);
      if (!over) void once();
    };
    document.addEventListener('visibilitychange', shown);
  }
  void once();
  onBeforeUnmount(() => {
    over = true;
    clearTimeout(timer);
  });
  return { value, problem, now: () => void once() };
}
