// Light or dark: as the system has it, until it is chosen.

import { computed, ref, watchEffect } from 'vue';

export type Choice = 'auto' | 'light' | 'dark';
const KEY = 'fpesa-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

function remembered(): Choice {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === 'light' || kept === 'dark' ? kept : 'auto';
  } catch {
    return 'auto';
  }
}

export const choice = ref<Choice>(remembered());
const systemIsDark = ref(system.matches);
system.addEventListener('change', () => {
  systemIsDark.value = system.matches;
});
export const dark = computed(() => (choice.value === 'auto' ? systemIsDark.value : choice.value === 'dark'));

export function toggle(): void {
  const wanted: Choice = dark.value ? 'light' : 'dark';
  choice.value = (wanted === 'dark') === systemIsDark.value ? 'auto' : wanted;
  try {
    localStorage.setItem(KEY, choice.value);
  } catch {
    // A page that may keep nothing forgets it.
  }
}

watchEffect(() => {
  document.documentElement.dataset.theme = dark.value ? 'dark' : 'light';
});
