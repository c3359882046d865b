// A BullMQ worker that calls the endpoint until as many jobs as were added have ended.
// Arguments: URL, jobs, redis port, "limiter=N" or "backoff".
import { Queue, QueueEvents, Worker } from "bullmq";

const [url, jobs, port, mode] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue("jobs", { connection });

const known = await queue.getJobCounts("completed", "failed", "wait", "active", "delayed", "prioritized");
if (Object.values(known).reduce((a, b) => a + b, 0) === 0) {
  const all = Array.from({ length: Number(jobs) }, (_, n) => ({
    name: "job",
    data: { n },
    opts: { jobId: `j-${n}`, attempts: 20, backoff: { type: "exponential", delay: 500, jitter: 0.5 }, removeOnComplete: false },
  }));
  for (let at = 0; at < all.length; at += 500) await queue.addBulk(all.slice(at, at + 500));
}

const limiter = mode.startsWith("limiter=") ? { max: Number(mode.slice(8)), duration: 1000 } : undefined;
const worker = new Worker(
  "jobs",
  async (job) => {
    const answer = await fetch(`${url}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: "Bearer k" },
      body: JSON.stringify({ model: "gpt-5.4-mini", max_completion_tokens: 16, messages: [{ role: "user", content: `job ${job.data.n}` }] }),
    });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    await answer.json();
  },
  { connection, concurrency: 64, limiter, lockDuration: 30000, stalledInterval: 30000 },
);
worker.on("error", () => {});

const events = new QueueEvents("jobs", { connection });
await events.waitUntilReady();
const ended = async () => {
  const counts = await queue.getJobCounts("completed", "failed");
  return counts.completed + counts.failed >= Number(jobs);
};
while (!(await ended())) await new Promise((resolve) => setTimeout(resolve, 50));
const counts = await queue.getJobCounts("completed", "failed");
console.log(JSON.stringify(counts));
process.exit(0);
