// What do queries name? Usage: node client.ts QUERY... (LOOKUP_URL, and LOOKUP_KEY where the service wants one)
// Types are only annotations here: Node 22.18 and later, Deno and Bun run the file as it is.

type Answer = {
  query: string;
  value: Record<string, unknown> | null; // null where source is "none"
  source: "cache" | "student" | "tail-cache" | "none";
  release: string | null;
  confidence: number | null;
  age: number | null;
  reason: string;
  milliseconds: number;
};

const url: string = process.env.LOOKUP_URL ?? "http://127.0.0.1:8017";
const key: string | undefined = process.env.LOOKUP_KEY;

/** What the queries name, in their order; null where nobody knows in time: search then goes on with the words alone. */
async function lookUp(queries: string[]): Promise<Answer["value"][]> {
  try {
    const answer = await fetch(`${url}/v1/lookup`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body: JSON.stringify({ queries }),
      signal: AbortSignal.timeout(500),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    const { answers }: { answers: Answer[] } = await answer.json();
    return answers.map((one) => one.value);
  } catch (error) {
    console.error(`no lookup: ${error}`);
    return queries.map(() => null);
  }
}

for (const value of await lookUp(process.argv.slice(2))) console.log(JSON.stringify(value));
