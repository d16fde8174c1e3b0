// The page's hands: keys and buttons, what is shown and what is fetched ahead, and what became of an answer.
import { Editor } from "./edit.js";
import { refresh, send } from "./send.js";

const at = (id) => document.getElementById(id);
const [place, ahead, status, trouble] = [at("place"), at("ahead"), at("status"), at("trouble")];
const TOO_SOON = 300; // ms: a second press meant for the query before must not judge this one
const watched = new Map(); // by lease the milliseconds that its query was in view
let article, editor, since, sending = false, again = null;

show(place.querySelector(".item"), false);

// Put a query in the middle. What was typed into it before is still there.
function show(next, focus = true) {
  stopWatch();
  if (next !== place.firstElementChild) place.replaceChildren(next);
  article = next;
  editor = null;
  if (article.dataset.lease) {
    editor = article.editor ??= new Editor(article);
    delete article.dataset.ready;
    setTimeout(() => (next.dataset.ready = ""), TOO_SOON);
    if ("edit" in article.dataset && !editor.isOpen) editor.open();
  }
  startWatch();
  if (focus) (article.querySelector("[aria-invalid]") ?? article.querySelector("#query")).focus();
}

function startWatch() {
  since = document.hidden ? null : performance.now();
}

function stopWatch() {
  if (since != null && article) watched.set(article.dataset.lease, spent());
  since = null;
}

function spent() {
  return (watched.get(article.dataset.lease) ?? 0) + (since == null ? 0 : performance.now() - since);
}

document.addEventListener("visibilitychange", () => (document.hidden ? stopWatch() : startWatch()));

function say(words) {
  status.textContent = words;
}

function complain(words, button = "", act = null) {
  trouble.hidden = !words;
  at("trouble-words").textContent = words;
  at("again").hidden = !button;
  at("again").textContent = button;
  again = act;
}

at("again").addEventListener("click", () => again?.());

// Send the answer, with its own lease. The next query is shown at once; if the answer is not taken this one comes back.
async function act(path, decision = "") {
  if (sending) return say("Still saving the last answer…");
  sending = true;
  const from = article;
  const fields = new URLSearchParams(new FormData(from.querySelector(".answer")));
  if (decision) fields.set("decision", decision);
  fields.set("seconds", (spent() / 1000).toFixed(2));
  const next = decision === "corrected" ? null : ahead.content.firstElementChild;
  complain("");
  say("Saving…");
  if (next) show(next);
  from.setAttribute("aria-busy", "true");

  const back = () => {
    if (article === from) return;
    ahead.content.replaceChildren(article);
    show(from);
  };
  const lost = (wait, now) => {
    back();
    say("");
    complain(`The server can't be reached. Your answer is kept on this page and is sent again by itself, next in ${wait} s.`, "Try now", now);
  };
  const answer = await send(`${at("main").dataset.root}/${path}`, fields, lost, () => complain(""));
  from.removeAttribute("aria-busy");
  sending = false;
  if (answer.status === 200) return taken(answer.body);
  say("");
  if (answer.status === 409) {
    taken(answer.body, "");
    complain(answer.body.message);
  } else if (answer.status === 422) {
    back();
    reshow(answer.body);
  } else {
    back();
    const retry = async () => {
      await refresh().catch(() => null);
      await act(path, decision);
    };
    complain(answer.body.message, "Try again", retry);
  }
}

// After an answer was saved: how far all is now, the query to show, and the one ahead of it.
function taken(body, words = body.message) {
  say(words);
  complain(body.trouble ?? "", body.trouble ? "Load again" : "", () => location.reload());
  if (!body.items) return;
  at("progress").innerHTML = body.progress;
  const [first, second] = body.items.map(parse);
  ahead.content.replaceChildren(...(second ? [second] : []));
  if (first.dataset.lease !== article.dataset.lease || !first.dataset.lease) show(first);
}

// The same query with what is wrong at its fields.
function reshow(body) {
  const next = parse(body.item);
  watched.set(next.dataset.lease, spent());
  since = null;
  show(next);
  complain(body.message);
}

function parse(html) {
  const made = document.createElement("template");
  made.innerHTML = html;
  return made.content.querySelector(".item");
}

async function undo() {
  const form = at("undo");
  if (sending || form.querySelector("button").disabled) return;
  sending = true;
  const fields = new URLSearchParams(new FormData(form));
  complain("");
  const lost = (wait, now) => complain(`The server can't be reached; next try in ${wait} s.`, "Try now", now);
  const answer = await send(form.action, fields, lost, () => complain(""));
  sending = false;
  if (answer.status === 200) taken(answer.body);
  else complain(answer.body.message, "Try again", async () => {
    await refresh().catch(() => null);
    await undo();
  });
}

const ACTS = {
  accept: () => article.querySelector('[data-act="accept"]') && act("verdict", "right"),
  save: () => act("verdict", "corrected"),
  cant: () => act("verdict", "cant_tell"),
  skip: () => act("skip"),
  undo,
  edit: () => {
    say("");
    editor.open();
  },
  cancel: () => {
    editor.close();
    article.querySelector("#query").focus();
  },
  note: () => {
    const note = article.querySelector(".note");
    note.open = !note.open;
    if (note.open) note.querySelector("textarea").focus();
  },
  keys: () => at("keys").showModal(),
};
const KEYS = { Enter: "accept", a: "accept", e: "edit", c: "cant", s: "skip", u: "undo", n: "note", "?": "keys" };

function perform(name) {
  if (name !== "keys" && article.ariaBusy === "true") return; // its answer is on its way
  const soon = !("ready" in article.dataset);
  if (name === "keys" || name === "undo") ACTS[name]();
  else if (article.dataset.lease && !(soon && ["accept", "cant", "skip"].includes(name))) ACTS[name]();
}

document.addEventListener("click", (event) => {
  const name = event.target.closest("[data-act]")?.dataset.act;
  if (!name) return;
  event.preventDefault();
  if (event.detail < 2 || ["edit", "cancel", "note"].includes(name)) perform(name);
});

document.addEventListener("submit", (event) => {
  if (event.target.closest(".item")) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (at("keys").open) return;
  const typing = event.target.closest("input, textarea, select");
  const button = event.target.closest("button, a, summary");
  if (editor?.isOpen) return editKey(event, typing, button);
  if (event.key === "Escape" && typing) article.querySelector("#query").focus();
  if (typing || (button && (event.key === "Enter" || event.key === " "))) return;
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!name) return;
  event.preventDefault();
  perform(name);
});

function editKey(event, typing, button) {
  const note = typing?.matches("textarea");
  if (event.key === "Escape") {
    if (typing) article.querySelector(".text").focus();
    else perform("cancel");
  } else if (event.key === "Enter" && !button && !note) perform("save");
  else if ((event.key === "?" || event.key === "n") && !typing) perform(KEYS[event.key]);
  else return;
  event.preventDefault();
}

at("keys-open").addEventListener("click", () => ACTS.keys());
addEventListener("beforeunload", (event) => {
  if (sending || editor?.isChanged) event.preventDefault();
});
