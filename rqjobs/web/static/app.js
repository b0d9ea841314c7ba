"use strict";

// Parts of a page that refresh themselves: <div data-live="URL" data-every="MS">. The server draws; here the new
// drawing is laid over the old one, changing only what differs, so that focus, selection and scrolling stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  const open = old.nodeName === "DETAILS" && old.open;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (open) old.open = true;
  morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
  const news = [...fresh.childNodes];
  const olds = [...old.childNodes];
  news.forEach((node, index) => (index < olds.length ? morph(olds[index], node) : old.append(node)));
  olds.slice(news.length).forEach((node) => node.remove());
}

// What is shown is old: says so, and since when. Without a reason, it is fresh again.
let lastFresh = Date.now();
function stale(reason) {
  const banner = document.getElementById("stale");
  banner.hidden = !reason;
  if (!reason) lastFresh = Date.now();
  else banner.textContent = `${reason} What you see is ${Math.round((Date.now() - lastFresh) / 1000)} seconds old.`;
}

// A fetch for what refreshes itself; undefined, with the page saying why, if there is no answer.
async function fresh(url) {
  const answer = await fetch(url, { headers: { "X-Live": "1" }, signal: AbortSignal.timeout(10000) }).catch(() => null);
  if (answer?.status === 401) return location.reload();
  const reasons = { 404: "This is gone.", 503: "Redis does not answer." };
  stale(!answer ? "The dashboard does not answer." : answer.ok ? "" : reasons[answer.status] ?? "The dashboard fails.");
  return answer?.ok ? answer : undefined;
}

async function refresh(part) {
  if (document.hidden || part.contains(document.activeElement?.closest("input, textarea, select"))) return;
  const answer = await fresh(part.dataset.live);
  if (!answer) return;
  const page = new DOMParser().parseFromString(`<div>${await answer.text()}</div>`, "text/html");
  morphChildren(part, document.importNode(page.body.firstElementChild, true));
}

for (const part of document.querySelectorAll("[data-live]")) {
  let busy = false;
  const tick = async () => {
    if (busy) return;
    busy = true;
    try {
      await refresh(part);
    } finally {
      busy = false;
    }
  };
  setInterval(tick, Number(part.dataset.every) || 2000);
  document.addEventListener("visibilitychange", tick);
}

// What cannot be undone asks first: <form data-confirm="...">.
document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// On a phone the row of pages is wider than the screen: the present one is in sight.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
