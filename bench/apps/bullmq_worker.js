'use strict';
// BullMQ's worker. NODE_PATH names the folder of its modules.
const fs = require('fs');
const http = require('http');
const { Worker } = require('bullmq');
const file = fs.openSync(process.env.BENCH_MARKS, 'a');
const mark = () => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE((performance.timeOrigin + performance.now()) / 1000);
  fs.writeSync(file, bytes);
};
const agent = new http.Agent({ keepAlive: true });
const post = (data) => new Promise((resolve, reject) => {
  const body = JSON.stringify(data);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const request = http.request(data.url, { agent, method: 'POST', headers }, (answer) => {
    answer.resume().on('end', () => (answer.statusCode === 200 ? resolve() : reject(new Error(answer.statusCode))));
  });
  request.on('error', reject).end(body);
});
const byFetch = async (data) => {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(data.url, { method: 'POST', body: JSON.stringify(data), headers });
  await answer.arrayBuffer();
  if (!answer.ok) throw new Error(answer.status);
};
const work = async (job) => {
  if (job.name === 'fetch') return byFetch(job.data);
  if (job.name === 'post') return post(job.data);
  if (job.name === 'sleep') await new Promise((resolve) => setTimeout(resolve, 50));
  return mark();
};
const keep = { removeOnComplete: { count: 100 }, removeOnFail: { count: 500 } };
new Worker('bench', work, { connection: { path: process.env.BENCH_SOCKET }, concurrency: +process.env.BENCH_SLOTS, ...keep });
