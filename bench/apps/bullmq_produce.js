'use strict';
// What produce.py does, for BullMQ: fill KIND N | rate one|many SECONDS | latency N
const fs = require('fs');
const { Queue } = require('bullmq');
const queue = new Queue('bench', { connection: { path: process.env.BENCH_SOCKET } });
const more = JSON.parse(process.env.BENCH_MORE || '{}');
const payload = (n) => ({ webhookId: 'webhook_123', event: 'qr.scanned', url: process.env.BENCH_URL || 'https://api.example.com/hook', payload: { qrCode: 'ABC123', n, ...more } });
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const many = (kind, n) => queue.addBulk(Array.from({ length: n }, (_, i) => ({ name: kind, data: payload(i) })));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
(async () => {
  await queue.waitUntilReady();
  const [what, first, second] = process.argv.slice(2);
  if (what === 'fill') {
    for (let left = +second; left > 0; left -= 500) await many(first, Math.min(500, left));
  } else if (what === 'rate') {
    const start = now();
    let n = 0;
    while (now() - start < +second) {
      if (first === 'one') { await queue.add('noop', payload(n)); n += 1; } else { await many('noop', 500); n += 500; }
    }
    console.log(n / (now() - start));
  } else {
    const sent = [];
    for (let i = 1; i <= +first; i++) {
      sent.push(now());
      await queue.add('noop', payload(i));
      while (fs.statSync(process.env.BENCH_MARKS).size < 8 * i) await pause(1);
      await pause(10 + Math.random() * 10);
    }
    console.log(JSON.stringify(sent));
  }
  await queue.close();
  process.exit(0);
})();
