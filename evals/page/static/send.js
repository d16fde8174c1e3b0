// Sends an answer until the server has said something of it. The lease in it makes sending twice harmless.

const main = document.getElementById("main");
const LONGEST = 10;
let csrf = main.dataset.csrf;

// The token of the session as it is now: after signing in again in another tab it is a new one.
export async function refresh() {
  const answer = await ask(`${main.dataset.root}/session`);
  if (answer.status === 200) csrf = answer.body.csrf;
}

// {status, body} of a POST. While the server can't be reached it tries again by itself: `lost` is told how many seconds
// until the next try and gets a function that tries at once; `found` is told when the server answers again.
export async function send(url, fields, lost, found) {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST)) {
    fields.set("csrf", csrf);
    try {
      const answer = await ask(url, { method: "POST", body: fields });
      if (![502, 504].includes(answer.status)) {
        if (wait > 1) found();
        return answer;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await new Promise((now) => {
      setTimeout(now, 1000 * wait);
      lost(wait, now);
    });
  }
}

async function ask(url, more = {}) {
  const answer = await fetch(url, { ...more, headers: { Accept: "application/json" }, credentials: "same-origin" });
  const text = await answer.text();
  try {
    return { status: answer.status, body: JSON.parse(text) };
  } catch {
    return { status: answer.status, body: { message: `Not saved: the server had a fault (${answer.status}).` } };
  }
}
