'use strict';
// BullMQ's worker. NODE_PATH names the folder of its modules.
const fs = require('fs');
const { Worker } = require('bullmq');
const file = fs.openSync(process.env.BENCH_MARKS, 'a');
const mark = () => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE((performance.timeOrigin + performance.now()) / 1000);
  fs.writeSync(file, bytes);
};
const work = async (job) => {
  if (job.name === 'sleep') await new Promise((resolve) => setTimeout(resolve, 50));
  mark();
};
const keep = { removeOnComplete: { count: 100 }, removeOnFail: { count: 500 } };
new Worker('bench', work, { connection: { path: process.env.BENCH_SOCKET }, concurrency: +process.env.BENCH_SLOTS, ...keep });
