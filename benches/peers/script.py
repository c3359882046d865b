"""What a user would write: asyncio, the official client, a semaphore, tenacity. Skips what an earlier run has done.

Arguments: URL, jobs, the file that remembers what is done.
"""

import asyncio
import json
import pathlib
import sys

import openai
import tenacity

URL, JOBS, DONE = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
CLIENT = openai.AsyncOpenAI(base_url=URL, api_key="k", max_retries=0)
PLACES = asyncio.Semaphore(64)


@tenacity.retry(
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=60),
    stop=tenacity.stop_after_attempt(20),
    retry=tenacity.retry_if_exception_type(openai.APIError),
)
async def call(n):
    async with PLACES:
        await CLIENT.chat.completions.create(
            model="gpt-5.4-mini", max_completion_tokens=16, messages=[{"role": "user", "content": f"job {n}"}]
        )


async def job(n, done):
    try:
        await call(n)
    except tenacity.RetryError:
        return False
    done.write(f"{n}\n")
    done.flush()
    return True


async def main():
    known = set(map(int, DONE.read_text().split())) if DONE.exists() else set()
    with DONE.open("a") as done:
        ended = await asyncio.gather(*(job(n, done) for n in range(JOBS) if n not in known))
    print(json.dumps({"completed": len(known) + sum(ended), "failed": len(ended) - sum(ended)}))


asyncio.run(main())
