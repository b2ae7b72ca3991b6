import vue from '@vitejs/plugin-vue';
import { defineConfig } from 'vitest/config';

const gateway = process.env.FPESA_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [vue()],
  // Vue's inline style attributes and eval-free runtime keep the page within a strict Content-Security-Policy.
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    rollupOptions: { input: ['index.html', 'docs.html'] },
  },
  server: {
    proxy: {
      '/api': gateway,
      '/feed.json': gateway,
      '/table.json': gateway,
      '/pulse.json': gateway,
      '/openapi.json': gateway,
      '/asyncapi.json': gateway,
      '/readyz': gateway,
      '/metrics': gateway,
      '/mqtt': { target: gateway.replace('http', 'ws'), ws: true },
    },
  },
  test: { environment: 'happy-dom', include: ['tests/**/*.test.ts'] },
});
